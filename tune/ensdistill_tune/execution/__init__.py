"""Execution of trials and of teacher training: the planner, the worker, Ray and the inline executor."""
