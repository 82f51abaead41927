"""Analysis of trials: replication, statistics, test evaluation, importance, tables of results."""
