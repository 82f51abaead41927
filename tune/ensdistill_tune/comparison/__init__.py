"""Comparison of settings without a study: paired seeds, the same data and teachers, and a sequential test."""
