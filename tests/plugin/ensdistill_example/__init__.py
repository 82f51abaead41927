"""A plugin of ensdistill: one piece of each family."""
