"""Sketches: random combinations of the rows."""
