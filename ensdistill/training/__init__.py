"""Trains one student, or the teachers: step, loop, checkpoint."""
