"""Learning rates that are taken where none is given; no imports, so that the command line can show them at once."""

LEARNING_RATE = 3e-4
"""Of fine-tuning."""

NEW_MODEL_LEARNING_RATE = 1e-3
"""Of small new models, which bear more: the demo, the studies that train one, and pre-training."""
