"""The moments of a training step at which memory may peak, each a sum over what is chosen for the blocks.

Forward passes go through the blocks in order, backward passes in the opposite one. While block i runs forward, the
blocks before it keep what they keep; while it runs backward, so does it, and the blocks after it have their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from wtacrs.validation.records.plan import CostTable, OptionCosts, RestCosts


class Moment(NamedTuple):
    """A moment of the step.

    Attributes:
        name: in words.
        kept: the blocks before this one keep what they keep.
        gradients: this block and those after it have their gradients.
        rest: bytes of the rest, for every choice of the output layer.
        running: the block that runs; None between blocks.
        part: which of its costs counts.
    """

    name: str
    kept: int
    gradients: int
    rest: tuple[int, ...]
    running: int | None = None
    part: Literal["forward", "backward"] = "forward"


def moments_of(table: CostTable) -> Iterator[Moment]:
    """All moments, in the order of time."""
    count = len(table.blocks)
    names = [block.name for block in table.blocks]
    for i, name in enumerate(names):
        yield Moment(f"the forward pass before {name}", i, count, tuple(r.between[i] for r in table.rest))
        yield Moment(
            f"the forward pass of {name}", i, count, tuple(r.forward[i] for r in table.rest), i, "forward"
        )
    yield Moment("the output layer and the loss", count, count, tuple(r.between[count] for r in table.rest))
    for i in reversed(range(count)):
        rest = tuple(r.backward[i] for r in table.rest)
        yield Moment(f"the backward pass of {names[i]}", i + 1, i + 1, rest, i, "backward")
        name = f"the backward pass after {names[i]}" if i else "the end of the backward pass"
        yield Moment(name, i, i, tuple(r.until[i] for r in table.rest))


def bytes_at(moment: Moment, table: CostTable, options: Sequence[OptionCosts], rest: int) -> int:
    """Bytes alive at a moment, with all that is always there.

    Args:
        moment: of the step.
        table: whose moment it is.
        options: of every block.
        rest: place of the choice of the output layer.
    """
    alive = table.always + moment.rest[rest] + sum(option.kept for option in options[: moment.kept])
    alive += sum(block.gradients for block in table.blocks[moment.gradients :])
    return alive if moment.running is None else alive + getattr(options[moment.running], moment.part)


def peak_of(table: CostTable, options: Sequence[OptionCosts], rest: int) -> tuple[int, str]:
    """The most bytes alive in a step, and the first moment at which they are; arguments as in `bytes_at`."""
    found = [(bytes_at(moment, table, options, rest), moment.name) for moment in moments_of(table)]
    return max(found, key=lambda entry: entry[0])


def seconds_of(options: Sequence[OptionCosts], rest: RestCosts) -> float:
    """Of forward and backward pass."""
    return sum(option.seconds for option in options) + rest.seconds


def noise_of(options: Sequence[OptionCosts]) -> float:
    """Over the minibatch's variance; draws of different blocks are independent."""
    return sum(option.noise for option in options)
