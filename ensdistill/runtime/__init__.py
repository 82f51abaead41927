"""Base layer of the package: files, weights, randomness, devices, secrets, messages."""
