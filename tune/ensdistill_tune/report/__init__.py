"""What was learnt: one page that says it in plain words first, made from the files of a study alone."""
