"""``python -m duomod`` is ``duomod``."""

from duomod.cli import main

main()
