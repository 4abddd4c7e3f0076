"""Helpers of the tests: slow twins, planted defects, small models."""
