"""Is it unbiased, how large is the variance, which is better: library code, no pytest inside."""
