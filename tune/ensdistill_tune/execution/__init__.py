"""Runs trials and teachers: the planner, the worker, Ray and the inline executor."""
