"""Training of one student or of the teachers: step, loop, checkpoints."""
