"""Records of a study on disk: events, the event log, trial records, the directory of a study."""
