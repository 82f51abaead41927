"""What the trials show: replication, statistics, test evaluation, importance, tables of results."""
