"""A small output layer, stock and lean, and the tensors of a linear + cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wtacrs.integration.layers.lean.head import LeanHead, set_lean_head
from wtacrs.integration.layers.lean.options import HeadMode

N, D, V = 7, 4, 9


MODES: tuple[HeadMode, ...] = ("forward", "again")
LABELS = torch.arange(15) % V


def tensors(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and labels, two of which are ignored."""
    generator = torch.Generator().manual_seed(2)
    made = [torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((N, D), (V, D), (V,))]
    labels = torch.randint(0, V, (N,), generator=generator)
    labels[1] = labels[4] = -100
    x, weight, bias = (t.to(dtype).requires_grad_() for t in made)
    return x, weight, bias, labels


def head(biased: bool = False) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(4)
    return nn.Linear(D, V, bias=biased).double(), torch.randn(3, 5, D, dtype=torch.float64, requires_grad=True)


def lean_head(mode: HeadMode = "forward", biased: bool = False) -> tuple[LeanHead, Tensor]:
    layer, x = head(biased)
    assert set_lean_head(Model(layer), mode=mode) == {}
    assert isinstance(layer, LeanHead)
    return layer, x


class Model(nn.Module):
    """As much as a language model says of its head."""

    def __init__(self, layer: nn.Module | None) -> None:
        super().__init__()
        self.head = layer

    def get_output_embeddings(self) -> nn.Module | None:
        return self.head
