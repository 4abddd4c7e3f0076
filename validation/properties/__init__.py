"""Properties that `wtacrs check` asks of an estimator, of ours and of external ones."""
