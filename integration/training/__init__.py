"""Training: settings, loop, run, checkpoints, pre-training, callback."""
