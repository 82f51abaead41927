"""The command `ensdistill`."""
