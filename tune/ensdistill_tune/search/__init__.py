"""Hyperparameters, search spaces, searchers and schedulers. They use trial records, but require no study."""
