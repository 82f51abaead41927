"""Files of trained students: written, verified, described, found and opened again."""
