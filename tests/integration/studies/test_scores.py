"""`wtacrs study scores`: what is measured is what layers would be sampled by, and nothing is changed by the measurement."""
