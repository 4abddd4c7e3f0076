"""Dropout masks: as torch draws them in one go, in parts, or quickly.

On the CPU the generator is used as stock dropout uses it: the same seed gives the same mask, bit for bit, and leaves the
generator in the same state. Where torch draws a tensor in one go otherwise than in parts (on Intel processors with MKL),
the whole mask of a layer is drawn first, a byte per element for a moment. On CUDA the mask is drawn by the kernel of
stock dropout.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from wtacrs.integration.layers.lean.bits import pack

_FOURTH = 16  # random bits of an element in a quick draw


def kept_probability(dropout: float, *, quick: bool) -> float:
    """Probability that an element is kept, as it is drawn."""
    return 1.0 - _dropped_codes(dropout) / 2**_FOURTH if quick else 1.0 - dropout


def _dropped_codes(dropout: float) -> int:
    """Of the 65,536 codes of 16 bits those that drop an element; never all of them, since what is kept is divided by."""
    return min(round(dropout * 2**_FOURTH), 2**_FOURTH - 1)


class Draws:
    """A mask that is drawn in parts, which follow each other in memory, and its bits."""

    def __init__(self, shape: tuple[int, ...], dropout: float, like: Tensor, *, quick: bool) -> None:
        self._dropout, self._quick, self._device = dropout, quick, like.device
        self._whole: Tensor | None = None
        if not quick and not _drawn_in_parts(like.device.type):
            self._whole = _stock_keep(shape, dropout, like)
        self._packed: list[Tensor] = []

    def next(self, shape: torch.Size, where: tuple[slice, ...], *, times: int = 1) -> Bool[Tensor, "*part"]:
        """True where an element of the next part is kept; the bits of it are noted.

        Args:
            shape: of the part.
            where: it is in the whole.
            times: for how many parts it stands, in a simulated step.
        """
        if self._quick:
            keep = quick_keep(shape, self._dropout, self._device)
        elif self._whole is not None:
            keep = self._whole[where].contiguous()
        else:
            keep = torch.empty(shape, dtype=torch.bool, device=self._device).bernoulli_(1.0 - self._dropout)
        self._packed.append(pack(keep.view(torch.uint8)))
        self._packed += [torch.empty_like(self._packed[-1]) for _ in range(times - 1)]
        return keep

    @property
    def bits(self) -> UInt8[Tensor, " bytes"]:
        """Of all parts."""
        return self._packed[0] if len(self._packed) == 1 else torch.cat(self._packed)


@cache
def _drawn_in_parts(kind: str) -> bool:
    """Whether this build of torch draws a tensor on such a device as it draws its parts one after the other."""
    if kind != "cpu":
        return False
    with _disable_current_modes():  # the numbers are asked for, and no bytes of a step
        return _cpu_draws_in_parts()


def _cpu_draws_in_parts() -> bool:
    whole, parts = (torch.empty(4 * 4096, dtype=torch.bool) for _ in range(2))
    one, other = (torch.Generator().manual_seed(1) for _ in range(2))
    whole.bernoulli_(0.5, generator=one)
    for part in parts.view(4, -1):
        part.bernoulli_(0.5, generator=other)
    return torch.equal(whole, parts) and torch.equal(one.get_state(), other.get_state())


def _stock_keep(shape: tuple[int, ...], dropout: float, like: Tensor) -> Bool[Tensor, "*shape"]:
    if like.device.type == "cpu":
        return torch.empty(shape, dtype=torch.bool).bernoulli_(1.0 - dropout)
    return torch.native_dropout(like.new_empty(shape), dropout, True)[1]


def quick_keep(shape: torch.Size, dropout: float, device: torch.device) -> Bool[Tensor, ...]:
    """True with the probability that `kept_probability` says, from 16 random bits each."""
    n = shape.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None)
    least = _dropped_codes(dropout) - 2 ** (_FOURTH - 1)
    return (words.view(torch.int16)[:n] >= least).view(shape)
