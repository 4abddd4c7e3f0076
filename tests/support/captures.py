"""Small captured layers."""

from __future__ import annotations

import torch

from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.problems import make_problem


def capture(seed: int, n: int, d: int, m: int) -> LayerCapture:
    x, dy = make_problem("gaussian", n, d, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return LayerCapture(x, dy, torch.arange(n) % 4 != 0)
