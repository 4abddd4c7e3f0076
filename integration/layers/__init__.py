"""The autograd Function, the converted layers, and the conversion of a model."""
