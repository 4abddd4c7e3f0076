"""Plug an estimator into real models: autograd, Hugging Face models, capture, training, the command line."""
