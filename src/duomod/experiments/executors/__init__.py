"""One executor a file, named as the file."""
