"""What every estimator is built on: the protocol, the registry, sizes, scores and random numbers."""
