"""What a terminal shows of a study: snapshot, live view, follower."""
