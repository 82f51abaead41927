"""A real Ray cluster of two machines (both on this one): which machines are refused, lost and added."""
