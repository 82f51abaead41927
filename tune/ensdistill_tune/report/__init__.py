"""The report of a study: one page, made from its files alone, that begins with the answers."""
