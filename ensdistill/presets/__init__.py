"""One YAML a method: the piece on each axis and its published settings."""
