"""``motet select``: the few columns of a table that matter for outcomes of different kinds, and their prediction."""
