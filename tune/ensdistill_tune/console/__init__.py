"""Terminal output of a study: snapshot, live view, follower, tables."""
