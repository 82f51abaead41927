"""Presets: one YAML file for each method, with one piece for each component and the published settings."""
