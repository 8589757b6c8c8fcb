"""What ``duomod methods`` shows: facts that are counted, costs that were measured, settings as methods hold them."""
