"""Analysis of trials: replication, statistics, test evaluation, importance and result tables."""
