"""Default learning rates; imports nothing, so that the command line shows them at once."""

LEARNING_RATE = 3e-4
"""Of fine-tuning."""

NEW_MODEL_LEARNING_RATE = 1e-3
"""Of small new models: in the demo, in the studies that train one, and in pre-training."""
