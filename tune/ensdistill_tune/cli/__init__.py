"""The command `ensdistill-tune`."""
