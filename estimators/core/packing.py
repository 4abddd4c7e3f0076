"""Numbers in 8, 4 or 2 bits: unbiased rounding to 2^bits levels, and codes packed into bytes.

A group of numbers shares a step Δ = 2 max|x| / L, L = 2^bits − 1, kept in bf16 and rounded up, so that the levels
(q − L/2) Δ, q = 0 … L, reach from −max to max (in fp64 beside fp64 numbers, whose range bf16 does not have). With
place p = x/Δ + L/2 and u uniform on [0, 1), the code is `q = ⌊p + u⌋`, and there are two ways to read it:

- stochastic rounding: (q − L/2) Δ. `E q = p`, since q is ⌊p⌋ or ⌊p⌋ + 1, the latter with probability f, the
  fractional part of p. So the mean is x, and the variance Δ² f (1 − f): at most Δ²/4, Δ²/6 on average over f.
- subtractive dithering: (q + ½ − u − L/2) Δ, with u regenerated from a seed. The error is (½ − frac(p + u)) Δ, and
  frac(p + u) is uniform on [0, 1): mean x again, variance Δ²/12 for every x, never above that of a uniform error
  (Schuchman, "Dither Signals and Their Effect on Quantization Noise", IEEE Transactions on Communication
  Technology 12, 1964).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.products import working_dtype

BITS = (8, 4, 2)


class Packed(NamedTuple):
    """Codes and steps of a matrix `[k, d]`, `groups` steps to a row."""

    codes: UInt8[Tensor, "k bytes"]
    steps: Float[Tensor, "k groups"]


def check_bits(bits: int, group: int | None, owner: str) -> None:
    """Refuse bit widths and group sizes that cannot be packed.

    Raises:
        InputError: unless `bits` is 8, 4 or 2 and `group` is None (one step for a whole row) or an int ≥ 1.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in BITS:
        raise InputError(f"{owner}: bits={bits!r} must be one of {', '.join(map(str, BITS))}")
    if group is not None and (isinstance(group, bool) or not isinstance(group, int) or group < 1):
        raise InputError(f"{owner}: group={group!r} must be None (a whole row) or an int ≥ 1")


def step_sizes(x: Float[Tensor, "k d"], bits: int, group: int | None) -> Float[Tensor, "k groups"]:
    """Δ of every group, in bf16, rounded up; 0 for a group of zeros. Beside fp64 numbers steps are fp64."""
    groups = grouped(x.abs(), group)
    precise = x.dtype == torch.float64
    if groups.numel() == 0:
        return x.new_zeros(groups.shape[:2], dtype=torch.float64 if precise else torch.bfloat16)
    steps = groups.amax(2).to(working_dtype(x.dtype)) * (2.0 / _top(bits))
    return steps if precise else round_up(steps)


def pack(x: Float[Tensor, "k d"], bits: int, group: int | None, uniforms: Float[Tensor, "k d"]) -> Packed:
    """Round and pack.

    Args:
        x: finite numbers.
        bits: 8, 4 or 2.
        group: numbers to a step; None for a whole row. A last, shorter group is allowed.
        uniforms: in [0, 1), one for each number; 0.5 throughout rounds to the nearest.
    """
    steps = step_sizes(x, bits, group)
    codes = (_places(x, steps, bits, group) + uniforms).floor().clamp(0, _top(bits))
    return Packed(to_bytes(codes.to(torch.uint8), bits), steps)


def grid_places(x: Float[Tensor, "k d"], bits: int, group: int | None) -> Float[Tensor, "k d"]:
    """The places p of `pack`: the code of a number changes where its uniform number passes 1 − frac(p)."""
    return _places(x, step_sizes(x, bits, group), bits, group)


def unpack(
    packed: Packed,
    columns: int,
    bits: int,
    group: int | None,
    dtype: torch.dtype,
    dither: Float[Tensor, "k d"] | None = None,
) -> Float[Tensor, "k d"]:
    """The rounded numbers `[k, columns]`; `dither` are the uniforms of `pack`, to be subtracted again."""
    working = working_dtype(dtype)
    values = from_bytes(packed.codes, bits)[:, :columns].to(working) - _top(bits) / 2
    if dither is not None:
        values = values + (0.5 - dither).to(working)
    return (values * spread_steps(packed.steps, columns, group).to(working)).to(dtype)


def rounding_variance(
    x: Float[Tensor, "n d"], bits: int, group: int | None, *, dithered: bool
) -> Float64[Tensor, " n"]:
    """`E‖Q(x_i) − x_i‖²` of every row, in fp64: `Σ_j Δ² f_ij (1 − f_ij)`, dithered `Σ_j Δ²/12`."""
    steps = step_sizes(x, bits, group)
    squares = spread_steps(steps, x.shape[1], group).double().square()
    if dithered:
        return squares.sum(1) / 12
    place = _places(x.double(), steps.double(), bits, group)
    fraction = place - place.floor()
    return (squares * fraction * (1 - fraction)).sum(1)


def pack_bits(flags: Bool[Tensor, " n"]) -> UInt8[Tensor, " b"]:
    """Eight flags to the byte, the first one lowest."""
    padded = torch.nn.functional.pad(flags.to(torch.uint8), (0, -flags.shape[0] % 8))
    return (padded.reshape(-1, 8) << _bit_places(flags.device)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: UInt8[Tensor, " b"], n: int) -> Bool[Tensor, " n"]:
    """The first n flags."""
    return ((packed.unsqueeze(1) >> _bit_places(packed.device)) & 1).reshape(-1)[:n] > 0


def _top(bits: int) -> int:
    return int(2**bits - 1)


def _places(
    x: Float[Tensor, "k d"], steps: Float[Tensor, "k groups"], bits: int, group: int | None
) -> Float[Tensor, "k d"]:
    """Where the numbers lie among the levels 0 … L; in the middle where the step is 0."""
    working = working_dtype(x.dtype)
    step = spread_steps(steps, x.shape[1], group).to(working)
    return x.to(working) / torch.where(step > 0, step, 1.0) + _top(bits) / 2


def round_up(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The least bf16 number not below x ≥ 0: for positive numbers the next one has the next bit pattern."""
    rounded = x.to(torch.bfloat16)
    following = (rounded.view(torch.int16) + 1).view(torch.bfloat16)
    return torch.where(rounded.to(x.dtype) < x, following, rounded)


def round_down(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The largest finite bf16 number not above x; below the least of them, that one."""
    limit = torch.finfo(torch.bfloat16).max
    below = -round_up(-x.clamp(max=0.0))
    rounded = x.clamp(min=0.0).to(torch.bfloat16)
    previous = (rounded.view(torch.int16) - 1).view(torch.bfloat16)
    above = torch.where(rounded.to(x.dtype) > x, previous, rounded)
    return torch.where(x < 0, below, above).clamp(-limit, limit)


def grouped(x: Float[Tensor, "k d"], group: int | None) -> Float[Tensor, "k groups size"]:
    """The numbers of every group, zeros at the end of a last, shorter one."""
    k, d = x.shape
    size = max(d, 1) if group is None else group
    short = -d % size
    return torch.nn.functional.pad(x, (0, short)).reshape(k, (d + short) // size, size)


def spread_steps(steps: Float[Tensor, "k groups"], columns: int, group: int | None) -> Float[Tensor, "k d"]:
    """The step of every number."""
    size = max(columns, 1) if group is None else group
    return steps.repeat_interleave(size, dim=1)[:, :columns]


def to_bytes(codes: UInt8[Tensor, "k d"], bits: int) -> UInt8[Tensor, "k bytes"]:
    """Codes of `bits` bits side by side, the first one lowest."""
    per_byte = 8 // bits
    if per_byte == 1:
        return codes
    k, d = codes.shape
    padded = torch.nn.functional.pad(codes, (0, -d % per_byte)).reshape(k, -(-d // per_byte), per_byte)
    packed = padded[..., 0]
    for place in range(1, per_byte):
        packed = packed | (padded[..., place] << (bits * place))
    return packed


def from_bytes(packed: UInt8[Tensor, "k bytes"], bits: int) -> UInt8[Tensor, "k d"]:
    """The codes again, and those of the padding to whole bytes."""
    per_byte = 8 // bits
    if per_byte == 1:
        return packed
    mask = 2**bits - 1
    places = [(packed >> (bits * place)) & mask for place in range(per_byte)]
    return torch.stack(places, dim=2).reshape(packed.shape[0], packed.shape[1] * per_byte)


def _bit_places(device: torch.device) -> UInt8[Tensor, " 8"]:
    return torch.arange(8, dtype=torch.uint8, device=device)
