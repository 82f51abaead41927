"""Settings classes, their validation with messages for people, and the YAML loader."""
