"""Comparison of settings without a study: paired seeds, on the same data and teachers, until the result is decided."""
