"""Files of trained students: export, verification, model card, lookup and loading."""
