"""Unbiased codes for element-wise functions: stochastic rounding of what a backward pass multiplies dY by.

The backward pass of h = f(a) is `dX = dY ∘ f'(a)`: linear in f'(a), which may then be stored as q with `E q = f'(a)`.
Likewise a gated product h = f(a) ∘ b has `da = dY ∘ (b ∘ f'(a))` and `db = dY ∘ f(a)`. So codes are unbiased, and a
gradient below a layer that keeps them is, as it is linear in dX; with several such layers if they draw independently.

**Law.** With neighbouring levels lo ≤ v ≤ hi of a grid, the level is hi with probability (v − lo)/(hi − lo), else lo:

    E q = lo + (hi − lo) · (v − lo)/(hi − lo) = v,
    Var q = (hi − v)² (v − lo)/(hi − lo) + (v − lo)² (hi − v)/(hi − lo) = (v − lo)(hi − v).

Elements are rounded independently, so that for dX = dY ∘ q

    E dX = dY ∘ v,   Var dX_ij = dY_ij² (v_ij − lo)(hi − v_ij),   E‖dX − dY ∘ v‖² = Σ dY_ij² (v_ij − lo)(hi − v_ij),

and for a linear layer below, dW = dXᵀ X with rows x_i, `E‖dW − E dW‖² = Σ_ij ‖x_i‖² dY_ij² (v_ij − lo)(hi − v_ij)`.
0 where v is a level: so ReLU and dropout, whose derivative has two values, are exact in one bit.

**Levels.** For f' between known bounds the grid is fixed (`DerivativeGrid`), with no scale to store. 0 and 1 are
levels: elements that are saturated or pass have no variance. The 2^bits − 1 steps are shared between [0, 1] and the
two tails in proportion to their lengths, tails rounded up. Where the steps then differ by less than a tenth, as in
eight bits, all are as long as the inner ones, and a level is one sum and one product. For GELU of normal numbers with
standard deviation 0.5, 1, 2 and 4, four bits then have 1.10, 0.94, 0.69 and 0.36 times the variance of an even grid
between the bounds; the best 16 levels for each of these laws (dynamic programming) have 0.98, 0.93, 0.67 and 0.35.
Other values have a step and a zero per group of 64 (`group_codes`), the step in bf16, rounded up.

**Randomness.** An element is rounded up where its fraction is above a 16-bit number of the generator, so that the
mean is the value to 2⁻¹⁶ of a step, less than fp32 resolves of a number around 1 in eight bits. On a CPU elements
come in pieces: element j of piece i has the number `u_ij = c_j + r_i` mod 2¹⁶, with c and r independent and uniform,
r_0 = 0. **Any two elements then have independent numbers**, each uniform: those of one piece are c_j and c_k, each
moved by the same r_i; those of two pieces i < l are c_j + r_i and c_k + r_l, and as r_l is uniform and independent of
c_j, c_k and r_i, the second is uniform whatever the first is. Mean and variance of every linear function of the
codes, so all formulas above, need no more than that; only moments beyond the second know of it. Source of the idea
for activations: ActNN (Chen et al., ICML 2021, arXiv 2104.14129).

**Bytes.** n · bits/8; in groups 3/64 more per number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int16, UInt8
from torch import Tensor

from wtacrs.estimators.core.checks import check_length
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.packing import round_up
from wtacrs.estimators.core.products import working_dtype
from wtacrs.estimators.core.scores import row_norms

CODE_BITS = (8, 4)
GROUP = 64
"""Numbers that share a step."""
_DITHER = 2.0**-16
_PIECE = 2**16
_EVEN = 0.9
"""Tails with steps that are longer than this share of the inner steps get these."""

ElementWise = Callable[..., Tensor]
Dither = Callable[[int], Int16[Tensor, " count"]]


class DerivativeGrid(NamedTuple):
    """Levels `−below·tail, …, 0, 1/inside, …, 1, …, 1 + above·tail`.

    Attributes:
        bits: of a code; `below + inside + above` is at most 2^bits − 1.
        below: steps below 0.
        inside: steps from 0 to 1.
        above: steps above 1.
        tail: length of a step outside of [0, 1]; 1 if there is none.
    """

    bits: int
    below: int
    inside: int
    above: int
    tail: float

    def places(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Where values lie among the levels 0, 1, 2, …, as a new tensor: v = level(⌊p⌋) + frac(p) · step."""
        return self.moved_places(values, 0.0)

    def moved_places(self, values: Float[Tensor, "*shape"], by: float) -> Float[Tensor, "*shape"]:
        """`places + by`."""
        first = torch.scalar_tensor(self.below + by, dtype=values.dtype, device=values.device)
        if self.is_even:
            return torch.add(first, values, alpha=self.inside)
        inner = values.clamp(0.0, 1.0)
        outer = values - inner
        return torch.add(first, inner, alpha=self.inside, out=inner).add_(outer, alpha=1.0 / self.tail)

    def values(self, codes: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The levels of codes, which are overwritten."""
        codes.sub_(self.below)
        if self.is_even:
            return codes.div_(self.inside)
        inner = codes.clamp(0.0, self.inside)
        codes.sub_(inner)
        return inner.div_(self.inside).add_(codes, alpha=self.tail)

    @property
    def is_even(self) -> bool:
        """Whether all steps are equal."""
        return self.tail == 1.0 / self.inside

    @property
    def levels(self) -> Float64[Tensor, " levels"]:
        """All of them, ascending."""
        return self.values(torch.arange(self.below + self.inside + self.above + 1, dtype=torch.float64))


def derivative_grid(low: float, high: float, bits: int) -> DerivativeGrid:
    """The grid of derivatives between two bounds.

    Args:
        low: at most 0.
        high: at least 1.
        bits: 8 or 4.

    Raises:
        InputError: on other bounds or bits.

    >>> derivative_grid(0.0, 1.0, 4).levels[:3]
    tensor([0.0000, 0.0667, 0.1333], dtype=torch.float64)
    """
    _check_bits(bits)
    if not (-math.inf < low <= 0.0 and 1.0 <= high < math.inf):
        raise InputError(f"low={low!r}, high={high!r} must be finite, with low ≤ 0 and high ≥ 1")
    top = 2**bits - 1
    below, above = (math.ceil(top * tail / (high - low)) for tail in (-low, high - 1.0))
    inside = top - below - above
    if inside < 1:
        raise InputError(f"low={low!r}, high={high!r}: {bits} bits leave no step between 0 and 1")
    step = 1.0 / inside
    tail = max((length / steps for length, steps in ((-low, below), (high - 1.0, above)) if steps), default=step)
    return DerivativeGrid(bits, below, inside, above, step if _EVEN * step < tail <= step else tail)


def encode(
    x: Float[Tensor, "*shape"],
    grid: DerivativeGrid,
    generator: torch.Generator | None,
    *,
    of: ElementWise | None = None,
) -> UInt8[Tensor, " bytes"]:
    """Round values at random to levels of the grid.

    Args:
        x: the values, or what they are a function of; strides do not matter.
        grid: within its bounds lie the values; what lies beyond, by rounding, counts as the bound.
        generator: of the device of x; None for torch's default one.
        of: gives the values of a piece of x, in its dtype, which is fp64 or fp32; None for x itself.

    Returns:
        ⌈n · bits / 8⌉ bytes for n elements, to be read by `decode` on the same kind of device.

    >>> x = torch.tensor([0.0, 1.0, 1.0])
    >>> grid = derivative_grid(-0.13, 1.13, 4)
    >>> decode(encode(x, grid, torch.Generator()), grid, x)
    tensor([0., 1., 1.])
    """
    return encode_dithered(x, grid, numbers_of_pieces(x.numel(), x.device, generator), of=of)


def encode_dithered(
    x: Float[Tensor, "*shape"], grid: DerivativeGrid, numbers: Dither, *, of: ElementWise | None = None
) -> UInt8[Tensor, " bytes"]:
    """`encode` by given numbers: `numbers(count)` are the next ones, each uniform over all that 16 bits can say.

    They are asked for piece by piece, and not written to.
    """
    flat = x.reshape(-1)
    codes = torch.empty(code_bytes(flat.numel(), grid.bits), dtype=torch.uint8, device=x.device)
    for first, last in _pieces(flat):
        values = flat[first:last].to(working_dtype(x.dtype))
        places = grid.moved_places(values if of is None else of(values), _middle(grid.bits))
        _write(codes, first, _dithered(places, numbers(last - first), grid.bits), grid.bits)
    return codes


def decode(
    codes: UInt8[Tensor, " bytes"], grid: DerivativeGrid, like: Float[Tensor, "*shape"], *, times: bool = False
) -> Float[Tensor, "*shape"]:
    """The levels, an unbiased estimate of the values.

    Args:
        codes: of `encode`.
        grid: of `encode`.
        like: has the shape of x, and the dtype of the result.
        times: whether the levels are multiplied by `like`: the gradient by x if that is dY.
    """
    flat = like.reshape(-1)
    found = torch.empty_like(flat)
    for first, last in _pieces(flat):
        levels = grid.values(_read(codes, first, found[first:last], grid.bits))
        _put(found[first:last], levels, flat[first:last] if times else None)
    return found.view(like.shape)


def variance(values: Float[Tensor, "*shape"], grid: DerivativeGrid) -> Float64[Tensor, "*shape"]:
    """`(v − lo)(hi − v)` of every element, in fp64."""
    levels = grid.levels.to(values.device)
    exact = values.double().clamp(levels[0], levels[-1]).contiguous()
    above = torch.searchsorted(levels, exact, right=True).clamp(max=len(levels) - 1)
    return (exact - levels[above - 1]) * (levels[above] - exact)


def variance_of_dx(
    dy: Float[Tensor, "*shape"], values: Float[Tensor, "*shape"], grid: DerivativeGrid
) -> Float64[Tensor, ""]:
    """`E‖dX − dY ∘ v‖² = Σ dY² (v − lo)(hi − v)`.

    Raises:
        InputError: if the shapes differ.
    """
    if dy.shape != values.shape:
        raise InputError(f"dy has shape {list(dy.shape)}, values {list(values.shape)}: they must be equal")
    return (dy.double().square() * variance(values, grid)).sum()


def variance_of_dw_below(
    x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], values: Float[Tensor, "n m"], grid: DerivativeGrid
) -> Float64[Tensor, ""]:
    """`E‖dW − E dW‖²` of a linear layer whose outputs the function reads: `Σ_ij ‖x_i‖² dY_ij² (v − lo)(hi − v)`.

    Raises:
        InputError: if x and dy have not the same number of rows.
    """
    check_length(x, dy)
    return variance_of_dx(row_norms(x)[:, None] * dy.double(), values, grid)


class GroupCodes(NamedTuple):
    """Codes of values of any size: in a group of 64 value = (code − zero) · step.

    Attributes:
        codes: as `encode` packs them, of whole groups.
        steps: bf16, of fp64 values fp64.
        zeros: the code of 0, from 0 to 2^bits − 1.
    """

    codes: UInt8[Tensor, " bytes"]
    steps: Float[Tensor, " groups"]
    zeros: UInt8[Tensor, " groups"]


def group_codes(
    x: Float[Tensor, "*shape"],
    bits: int,
    generator: torch.Generator | None,
    *,
    of: ElementWise | None = None,
    beside: Float[Tensor, "*shape"] | None = None,
) -> GroupCodes:
    """Round values at random, with a step for every 64 of them; 0 is always a level.

    The step is (largest − least)/(2^bits − 2), rounded up, least at most 0 and largest at least 0; one code is left for
    both ends to fit with 0 as a level.

    Args:
        x: the values, or what they are a function of; finite.
        bits: 8 or 4.
        generator: as in `encode`.
        of: gives the values of a piece of x, and of `beside` if there is one, in fp64 or fp32; None for x itself.
        beside: a second argument of `of`.

    Raises:
        InputError: on other bits.
    """
    whole = -(-x.numel() // GROUP) * GROUP
    numbers = numbers_of_pieces(whole, x.device, generator)
    return group_codes_dithered(x, bits, numbers, of=of, beside=beside)


def group_codes_dithered(
    x: Float[Tensor, "*shape"],
    bits: int,
    numbers: Dither,
    *,
    of: ElementWise | None = None,
    beside: Float[Tensor, "*shape"] | None = None,
) -> GroupCodes:
    """`group_codes` by given numbers, as `encode_dithered`, for every element of whole groups."""
    _check_bits(bits)
    dtype = working_dtype(x.dtype)
    flat, others = x.reshape(-1), None if beside is None else beside.reshape(-1)
    groups = -(-flat.numel() // GROUP)
    codes = torch.empty(groups * GROUP * bits // 8, dtype=torch.uint8, device=x.device)
    steps = flat.new_empty(groups, dtype=torch.float64 if x.dtype == torch.float64 else torch.bfloat16)
    zeros = torch.empty(groups, dtype=torch.uint8, device=x.device)
    for first, last in _pieces(flat):
        values = flat[first:last].to(dtype)
        if of is not None:
            values = of(values) if others is None else of(values, others[first:last].to(dtype))
        values, step, zero = _grouped(values, bits, steps.dtype)
        places = values.div(step.to(dtype)[:, None]).add_((zero + _middle(bits))[:, None]).view(-1)
        _write(codes, first, _dithered(places, numbers(len(places)), bits), bits)
        at = slice(first // GROUP, first // GROUP + len(step))
        steps[at], zeros[at] = step, zero
    return GroupCodes(codes, steps, zeros)


def group_values(
    kept: GroupCodes, bits: int, like: Float[Tensor, "*shape"], *, times: bool = False
) -> Float[Tensor, "*shape"]:
    """The rounded values, an unbiased estimate of what was given; `like` and `times` as in `decode`."""
    flat = like.reshape(-1)
    found = torch.empty_like(flat)
    for first, last in _pieces(flat):
        at = slice(first // GROUP, -(-last // GROUP))
        steps, zeros = kept.steps[at], kept.zeros[at]
        whole = torch.empty(len(steps) * GROUP, dtype=like.dtype, device=like.device)
        values = _read(kept.codes, first, whole, bits).view(-1, GROUP)
        values.sub_(zeros.to(values.dtype)[:, None]).mul_(steps.to(values.dtype)[:, None])
        _put(found[first:last], values.view(-1)[: last - first], flat[first:last] if times else None)
    return found.view(like.shape)


def group_variance(values: Float[Tensor, "*shape"], bits: int) -> Float64[Tensor, "*shape"]:
    """`step² f (1 − f)` of every element, f the fraction of value/step, in fp64: the law with lo and hi of its group."""
    precise = values.dtype == torch.float64
    wide = values.reshape(-1).to(working_dtype(values.dtype))
    groups, steps, _ = _grouped(wide, bits, torch.float64 if precise else torch.bfloat16)
    step = steps.double()[:, None]
    place = groups.double() / step
    fraction = place - place.floor()
    found = step.square() * fraction * (1.0 - fraction)
    return found.view(-1)[: values.numel()].view(values.shape)


def code_bytes(elements: int, bits: int, *, grouped: bool = False) -> int:
    """Bytes of the codes of so many elements, with steps in bf16.

    >>> code_bytes(128, 4), code_bytes(128, 4, grouped=True)
    (64, 70)
    """
    if not grouped:
        return -(-elements * bits // 8)
    groups = -(-elements // GROUP)
    return groups * (GROUP * bits // 8 + 3)


def dither(count: int, device: torch.device, generator: torch.Generator | None) -> Int16[Tensor, " count"]:
    """Independent 16-bit numbers, four to a word of the generator."""
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]


def numbers_of_pieces(count: int, device: torch.device, generator: torch.Generator | None) -> Dither:
    """The numbers of pieces of so many elements, one after the other: any two are independent."""
    size = _PIECE if device.type == "cpu" else max(count, 1)
    first = dither(min(count, size), device, generator)
    if count <= size:
        return lambda asked: first[:asked]
    others = dither(-(-count // size) - 1, device, generator)
    moves = chain([first.new_zeros(1)], others.split(1))  # tensors, for those without values
    return lambda asked: first[:asked] + next(moves)


def _check_bits(bits: object) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in CODE_BITS:
        raise InputError(f"bits={bits!r} must be {' or '.join(map(str, CODE_BITS))}")


def _pieces(flat: Float[Tensor, " n"]) -> Iterator[tuple[int, int]]:
    """On a CPU pieces whose temporaries stay in the cache: fresh memory costs more than the arithmetic."""
    count = flat.numel()
    size = _PIECE if flat.device.type == "cpu" else max(count, 1)
    for first in range(0, count, size):
        yield first, min(first + size, count)


def _middle(bits: int) -> float:
    """What makes a number of 16 bits, divided by 2¹⁶, one of [0, 1).

    In four bits half a number more makes the mean of u exactly ½. Numbers above 127 have no place for that in fp32.
    """
    return 0.5 + (0.5 * _DITHER if bits < 8 else 0.0)


def _dithered(places: Float[Tensor, " n"], numbers: Int16[Tensor, " n"], bits: int) -> UInt8[Tensor, " n"]:
    """⌊p + u⌋ for u = number / 2¹⁶ + middle, given p + middle, which is overwritten.

    By way of int16, which a CPU converts to and from five times as fast as to bytes.
    """
    places.add_(numbers.to(places.dtype), alpha=_DITHER)
    return places.to(torch.int16).clamp_(0, 2**bits - 1).to(torch.uint8)


def _write(codes: UInt8[Tensor, " bytes"], first: int, piece: UInt8[Tensor, " n"], bits: int) -> None:
    """Put the codes of a piece in their place; in four bits its halves share bytes."""
    if bits == 4:
        half = (len(piece) + 1) // 2
        piece, upper = piece[:half], piece[half:]
        piece[: len(upper)].add_(upper, alpha=16)
    start = first * bits // 8
    codes[start : start + len(piece)] = piece


def _put(found: Float[Tensor, " n"], levels: Float[Tensor, " n"], factors: Float[Tensor, " n"] | None) -> None:
    """Write levels, or their products with factors of the dtype of `found`."""
    if factors is None:
        found.copy_(levels)
    elif found.dtype == levels.dtype:
        torch.mul(levels, factors, out=found)
    else:
        found.copy_(levels.mul_(factors))


def _read(codes: UInt8[Tensor, " bytes"], first: int, like: Float[Tensor, " n"], bits: int) -> Float[Tensor, " n"]:
    """The codes of a piece as numbers that may be overwritten; `like` gives their number and dtype."""
    count = like.numel()
    half = (count + 1) // 2
    start = first * bits // 8
    piece = codes[start : start + (count if bits == 8 else half)]
    working = working_dtype(like.dtype)
    if bits == 8:
        return piece.to(working)
    numbers = torch.empty(2 * half, dtype=working, device=codes.device)
    numbers[:half] = piece & 15
    numbers[half:] = piece >> 4
    return numbers[:count]


def _grouped(
    values: Float[Tensor, " n"], bits: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "groups 64"], Float[Tensor, " groups"], Float[Tensor, " groups"]]:
    """Values in groups, zeros at the end of the last one, the step of each in a dtype, and the place of 0."""
    groups = torch.nn.functional.pad(values, (0, -values.numel() % GROUP)).view(-1, GROUP)
    least, largest = groups.amin(1).clamp_(max=0.0), groups.amax(1).clamp_(min=0.0)  # faster than aminmax
    steps = largest.sub_(least).div_(2**bits - 2).clamp_(min=torch.finfo(dtype).tiny)  # of zeros, not 0
    steps = steps if dtype == torch.float64 else round_up(steps)
    return groups, steps, least.neg_().div_(steps.to(least.dtype)).ceil_()
