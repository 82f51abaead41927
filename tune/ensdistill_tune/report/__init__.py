"""The report of a study: one page, built from the files of the study, with the answers first."""
