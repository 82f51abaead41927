"""The four components of a method (student, perturbation, loss, averaging) and the training recipe."""
