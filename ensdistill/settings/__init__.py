"""Settings classes, their validation, plugins, and the YAML loader."""
