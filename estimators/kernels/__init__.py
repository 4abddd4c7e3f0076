"""Numerical kernels of the zoo: in plain PyTorch, compiled by inductor, and in Triton."""
