"""Random numbers as a function of (seed, stream, counter): a sketch can forget its operator and rebuild it.

A `Source` answers for arrays of counters. `CounterStream` does so by integer arithmetic on tensors alone: nothing
is stored, nothing waits for the device, and the same seed gives the same bits on every device. Exact enumeration
answers with listed values instead, so that the code under test is the code that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped
from torch import Tensor

# splitmix64 (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", 2014), as signed numbers
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


# what is rounded by uniform numbers: a source that draws them never asks, one that lists them does
Places = Callable[[], Float[Tensor, "..."]] | None


@runtime_checkable
class Uniforms(Protocol):
    """The part of a `Source` that rounding needs."""

    def uniforms(
        self, stream: int, counters: Int64[Tensor, "*shape"], places: Places = None
    ) -> Float[Tensor, "*shape"]:
        """Uniform on [0, 1).

        Args:
            stream: of the source.
            counters: addresses within the stream.
            places: gives numbers p, of the shape of the counters, of which ⌊p + u⌋ is to be kept; not given where the
                same numbers are asked for again. Places of further axes share the number of their counter.
        """


@runtime_checkable
class Source(Uniforms, Protocol):
    """Independent random numbers, addressed by stream and counter: equal addresses give equal numbers."""

    def offsets(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """Uniform on [0, 1), of numbers on which neither the mean nor the total variance depends: listed as they come."""

    def signs(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """−1 or +1, each with probability ½."""

    def normals(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """Standard normal numbers."""

    def integers(self, stream: int, counters: Int64[Tensor, "*shape"], bound: int) -> Int64[Tensor, "*shape"]:
        """Uniform on 0 … bound − 1."""

    def subset(self, stream: int, allowed: Bool[Tensor, " n"], size: int) -> Int64[Tensor, " size"]:
        """Every choice of `size` of the allowed positions equally likely, in ascending order.

        If fewer are allowed, all of them and some that are not.
        """


class CounterStream(NamedTuple):
    """Random numbers by hashing counters under a seed: a `Source`.

    The key of a stream is the hash of its seed, and number c is the hash of `key + c · golden ratio`: splitmix64
    started at a hashed place, so that neighbouring seeds and streams have nothing in common.
    """

    seed: Int64[Tensor, " 1"]

    def bits(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """64 random bits for every counter."""
        key = mix64(mix64(self.seed) ^ (stream + 1))
        steps = counters + 1
        if torch.compiler.is_compiling():
            # inductor multiplies indices symbolically, beyond 64 bits, but does not see through this
            steps = steps ^ 0
        return mix64(key.reshape([1] * counters.ndim) + steps * _GOLDEN)

    def uniforms(
        self, stream: int, counters: Int64[Tensor, "*shape"], places: Places = None
    ) -> Float64[Tensor, "*shape"]:
        """Multiples of 2⁻⁵³ in [0, 1)."""
        return _shift(self.bits(stream, counters), 11).to(torch.float64).mul_(2.0**-53)

    def offsets(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """As `uniforms`."""
        return self.uniforms(stream, counters)

    def signs(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """The highest bit."""
        return 1.0 - 2.0 * _shift(self.bits(stream, counters), 63).to(torch.float64)

    def normals(self, stream: int, counters: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """Quantiles of the normal distribution at the midpoints of 2⁵² cells: |z| < 8.3, never infinite."""
        cell = _shift(self.bits(stream, counters), 12).to(torch.float64)
        return torch.special.ndtri((cell + 0.5) * 2.0**-52)

    def integers(self, stream: int, counters: Int64[Tensor, "*shape"], bound: int) -> Int64[Tensor, "*shape"]:
        """`⌊u · bound⌋`; probabilities off by less than bound · 2⁻⁵³."""
        # the product may round up to the bound itself
        return (self.uniforms(stream, counters) * bound).to(torch.int64).clamp(max=max(bound - 1, 0))

    def subset(self, stream: int, allowed: Bool[Tensor, " n"], size: int) -> Int64[Tensor, " size"]:
        """The positions of the smallest random keys; a position that is not allowed has a key above all others."""
        keys = self.uniforms(stream, torch.arange(allowed.shape[0], device=allowed.device))
        order = torch.where(allowed, keys, 1.0 + keys).argsort(stable=True)
        return order[:size].sort().values


class FreshNumbers(NamedTuple):
    """Numbers of a generator, in the order they are asked for: for what is never regenerated. `Uniforms`."""

    generator: torch.Generator | None
    dtype: torch.dtype

    def uniforms(
        self, stream: int, counters: Int64[Tensor, "*shape"], places: Places = None
    ) -> Float[Tensor, "*shape"]:
        """New ones every time, whatever the address."""
        return uniform_numbers(counters.shape, self.dtype, counters.device, self.generator)


def uniform_numbers(
    shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Float[Tensor, "*shape"]:
    """What `torch.rand` gives, bit by bit. That one is not compiled where sizes are symbols and a generator is named."""
    return torch.empty(*shape, dtype=dtype, device=device).uniform_(generator=generator)


def entry_counters(like: Shaped[Tensor, "k d"]) -> Int64[Tensor, "k d"]:
    """A counter for every entry of a matrix."""
    return torch.arange(like.numel(), device=like.device).reshape(like.shape)


def mix64(number: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """The finalizer of splitmix64, a bijection of the 64-bit numbers in which every bit moves every other."""
    mixed = number ^ _shift(number, 30)
    # in place from here on: a large temporary is paid for by page faults, not by arithmetic
    mixed *= _FIRST
    mixed ^= _shift(mixed, 27)
    mixed *= _SECOND
    mixed ^= _shift(mixed, 31)
    return mixed


def new_seed(device: torch.device, generator: torch.Generator | None) -> Int64[Tensor, " 1"]:
    """A seed of 62 random bits from the generator, on the device."""
    return torch.randint(2**62, (1,), dtype=torch.int64, device=device, generator=generator)


def _shift(number: Int[Tensor, "*shape"], places: int) -> Int[Tensor, "*shape"]:
    # the shift of a signed number drags its sign along
    return (number >> places).bitwise_and_((1 << (64 - places)) - 1)
