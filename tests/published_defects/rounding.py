"""Products with rows rounded to few levels, and products that compute in other precisions."""

from __future__ import annotations

import torch
from torch import Tensor

from published_defects.arithmetic import sampled
from published_defects.pieces import ADVANCES, HEAVY, defect, sound

_LEVELS = 15


def row_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest entry of each row, and the step between levels."""
    low = x.amin(1, keepdim=True)
    return low, ((x.amax(1, keepdim=True) - low) / _LEVELS).clamp(min=torch.finfo(x.dtype).tiny)


@sound("rows rounded at random to 16 levels between their smallest and largest entry")
def sound_rounding(x: Tensor, dy: Tensor) -> Tensor:
    low, step = row_range(x)
    return dy.T @ (low + step * ((x - low) / step + torch.rand_like(x)).floor())


@defect(ADVANCES, "rows rounded to the nearest of 16 levels, never at random: the error stays from step to step")
def rounds_to_nearest(x: Tensor, dy: Tensor) -> Tensor:
    low, step = row_range(x)
    return dy.T @ (low + step * ((x - low) / step).round())


@defect(HEAVY, "rows rounded down to one of 16 levels, where the random number was left out, on sampled rows")
def rounds_down(x: Tensor, dy: Tensor) -> Tensor:
    low, step = row_range(x)
    return sampled(low + step * ((x - low) / step).floor(), dy)


@defect(HEAVY, "rounded at random within a range of 1.5 standard deviations in bf16; what lies outside is cut off")
def cut_to_a_range(x: Tensor, dy: Tensor) -> Tensor:
    if len(x) == 0:
        return dy.T @ x
    mean, width = x.mean(1, keepdim=True), 1.5 * x.std(1, correction=0, keepdim=True)
    low, high = ((mean + side * width).to(torch.bfloat16).to(x.dtype) for side in (-1.0, 1.0))
    step = ((high - low) / 255).clamp(min=torch.finfo(x.dtype).tiny)
    codes = ((x - low) / step + torch.rand_like(x)).floor().clamp(0, 255)
    return dy.T @ (low + step * codes)


@sound("samples rows and multiplies them in bf16 whatever it is given")
def sound_in_bf16(x: Tensor, dy: Tensor) -> Tensor:
    return sampled(x.to(torch.bfloat16), dy.to(torch.bfloat16)).to(x.dtype)


@sound("samples rows and multiplies them in fp32 whatever it is given")
def sound_in_fp32(x: Tensor, dy: Tensor) -> Tensor:
    return sampled(x.float(), dy.float()).to(x.dtype)
