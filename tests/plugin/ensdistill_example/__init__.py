"""An example plugin of ensdistill: one piece of each family."""
