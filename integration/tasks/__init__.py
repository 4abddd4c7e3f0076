"""Tasks: examples, encoding and metrics."""
