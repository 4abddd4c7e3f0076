"""Estimators on captured layers: comparison, noise, tests, |C| sweeps."""
