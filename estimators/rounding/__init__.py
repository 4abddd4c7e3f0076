"""Rounding: every row in few bits."""
