"""Projections: the features of x in a few directions."""
