"""Records of a study on disk: events, the event log, trial records and the study directory."""
