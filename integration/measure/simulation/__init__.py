"""A training step without its numbers: the bytes of any model, from its config alone."""
