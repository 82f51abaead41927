"""Hyperparameters, search spaces, searchers and schedulers. Independent of studies."""
