"""Hyperparameters, search spaces, searchers and schedulers. Imports nothing of a study."""
