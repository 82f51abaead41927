"""The command `ensdistill-tune`: parsers, options and functions of its commands."""
