"""Comparison of settings without a study: paired seeds and the same data and teachers, until the result is decided."""
