"""Time and memory of estimators, measured."""
