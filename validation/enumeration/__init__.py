"""Exact moments by listing every outcome of a draw."""
