"""What every other part stands on: files, weights, randomness, devices, secrets, messages. Imports no other part."""
