"""Presets: one YAML file for each method, with the piece of each component and its published settings."""
