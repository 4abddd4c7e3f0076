"""Ways to take a training step of one model beside each other: bytes kept, peak, time and added gradient noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from wtacrs.validation.records.base import Record, Result, register_result
from wtacrs.validation.records.simulation import StepChoice, tokens_text
from wtacrs.validation.records.units import megabytes


class Way(StepChoice):
    """A `StepChoice` with what cannot be simulated.

    `attention` is the implementation of stock attention. `memory_budget` in [0, 1] is that of torch's compiler, which
    decides by it what is computed again; None runs eagerly. `min_rows` leaves layers with fewer rows exact.
    """

    attention: Literal["eager", "sdpa"] = "eager"
    memory_budget: float | None = None
    min_rows: int = 0

    @property
    def name(self) -> str:
        """As it is shown."""
        stock = f"stock {self.attention}"
        compiled = "" if self.memory_budget is None else f" + compiled, memory budget {self.memory_budget:g}"
        told = super().name.removeprefix("exact").removeprefix(" + ")
        told += f" from {self.min_rows} rows" if self.min_rows else ""
        if not told:
            return stock + compiled
        return (told if self.attention == "eager" else f"{told}, {self.attention}") + compiled


class FrontRow(Record):
    """One way to take a step.

    Attributes:
        way: how.
        kept: bytes for the backward pass; parameters, buffers and the batch are left out.
        peak: the most that is alive at any moment of forward and backward pass beyond them, gradients included; None
            where the compiler hides it.
        seconds: median of forward and backward pass.
        ratio: median over the rounds of the time over that of the first way in the same round.
        noise: E‖Ĝ − G‖² over draws, over the variance of the gradient between batches of this size; 0 for exact ways.
    """

    way: Way
    kept: int
    peak: int | None
    seconds: float
    ratio: float
    noise: float | None = 0.0


class SavingPart(Record):
    """What a step keeps after one more part has been made lean, or sampled; `peak` as in `FrontRow`."""

    part: str
    kept: int
    peak: int


@register_result
class FrontResult(Result):
    """Ways to take a step of one model; the first is what the others are compared with.

    `parts` decomposes the saving: every entry has all parts before it too; what a part saves depends on its place.
    `batches` and `draws` say what the noise is a mean over.
    """

    kind: Literal["front"] = "front"
    model: str
    layers: int
    batch_size: int
    length: int
    target_length: int | None
    dropout: float
    rounds: int
    batches: int
    draws: int
    rows: Sequence[FrontRow]
    parts: Sequence[SavingPart] = Field(default_factory=list)

    @property
    def tokens(self) -> str:
        """Of an input, and of an answer where there is one."""
        return tokens_text(self.length, self.target_length)


def front_sentences(result: FrontResult) -> Iterator[str]:
    """The ways that no other one beats in memory, time and noise together, and what each part of the saving is."""
    first = result.rows[0]
    for row in pareto(result.rows):
        noise = "unknown" if row.noise is None else f"{row.noise:.2g}"
        yield (
            f"not beaten: {row.way.name}: keeps {row.kept / first.kept:.2f}, takes {row.ratio:.2f} of the time, "
            f"added noise {noise} of the minibatch's"
        )
    for before, after in zip(result.parts, result.parts[1:], strict=False):
        yield f"{after.part}: {megabytes(before.kept - after.kept)} MB less are kept"


def pareto(rows: Sequence[FrontRow]) -> list[FrontRow]:
    """Rows that no other row beats: keeps as little, takes no longer and adds no more noise, and is not equal."""
    return [row for row in rows if not any(_beats(other, row) for other in rows)]


def _beats(one: FrontRow, other: FrontRow) -> bool:
    ours, theirs = _costs(one), _costs(other)
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def _costs(row: FrontRow) -> tuple[float, float, float]:
    return float(row.kept), row.ratio, float("inf") if row.noise is None else row.noise
