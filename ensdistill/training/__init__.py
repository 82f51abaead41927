"""Training of students and teachers: training step, training loop, and checkpoints."""
