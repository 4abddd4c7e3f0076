"""Composites: estimators that wrap, refine or combine others."""
