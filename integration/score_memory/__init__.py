"""Remembered gradient norms: scores that training itself provides."""
