"""The `ensdistill` command."""
