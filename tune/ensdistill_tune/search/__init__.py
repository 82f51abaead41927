"""Hyperparameters, search spaces, searchers and schedulers. Requires trial records, but no study."""
