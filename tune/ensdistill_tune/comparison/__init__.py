"""Comparison of settings without a study: paired seeds, equal data and teachers, and a sequential test."""
