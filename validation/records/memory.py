"""What one training step keeps for its backward pass, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from wtacrs.validation.masked_gradient import masked_gradient_sentence
from wtacrs.validation.records.base import Record, Result, register_result, with_lean
from wtacrs.validation.records.owners import OwnerBytes
from wtacrs.validation.records.units import megabytes as megabytes


class TypeBytes(Record):
    """Bytes that modules of one type keep, or that several types keep together: what one gives up stays for the other.

    `types` are class names, converted layers as "Linear"; `modules` is the number of modules that keep something.
    """

    types: Sequence[str]
    modules: int
    bytes: int

    @property
    def name(self) -> str:
        """The types in one word."""
        return " + ".join(self.types)

    @property
    def ours(self) -> bool:
        """Kept by linear layers alone, so that an estimator can keep less."""
        return tuple(self.types) == ("Linear",)


class StepMemory(Record):
    """One way to take a training step: by an estimator, `lean` as `LeanOptions` says it (None: stock neighbours).

    `saved` is what is alive at the end of the forward pass for the sake of the backward pass, largest first; parameters,
    buffers and the batch are left out. `peak` is the most that is alive at any moment of forward and backward pass beyond
    them, gradients of the parameters included: on the CPU the sum of all tensors' storages, on CUDA
    `max_memory_allocated`. `converted` is the number of converted layers that train. `masked_gradient` names those
    whose rows called padding carried gradient, with their share of ‖dY‖². `owners` are all that hold something, by the
    pattern of their modules' names, largest first. `shared` is what several of them hold, once: Σ alone + shared = total.
    There are none where nobody asked, and in files from before there were any. `stays` has the parts that were to be
    lean and are stock, with the reason.
    """

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {"masked_gradient": ("masked_gradient",)}
    table_derived: ClassVar[Sequence[str]] = ("name", "total")

    estimator: str
    lean: str | None = None
    checkpointing: bool
    converted: int
    saved: Sequence[TypeBytes]
    peak: int
    masked_gradient: dict[str, float] = Field(default_factory=dict)
    owners: Sequence[OwnerBytes] = Field(default_factory=list)
    shared: int = 0
    stays: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is shown."""
        name = with_lean(self.estimator, self.lean)
        return f"{name} + checkpointing" if self.checkpointing else name

    @property
    def total(self) -> int:
        """All that is saved."""
        return sum(entry.bytes for entry in self.saved)

    @property
    def ours(self) -> int:
        """The part that estimators work on."""
        return sum(entry.bytes for entry in self.saved if entry.ours)


@register_result
class MemoryResult(Result):
    """A training step of one model on one batch, in several ways; the first is exact. `parameters` is in bytes."""

    kind: Literal["memory"] = "memory"
    model: str
    task: str
    batch_size: int
    tokens: int
    precision: Literal["fp32", "bf16"]
    parameters: int
    steps: Sequence[StepMemory]


def memory_sentences(result: MemoryResult) -> Iterator[str]:
    """What estimators save of what is theirs and of all, and what they cannot touch."""
    exact = result.steps[0]
    others = [f"{entry.name} {megabytes(entry.bytes)}" for entry in exact.saved if not entry.ours]
    yield (
        f"exact: linear layers alone keep {megabytes(exact.ours)} of {megabytes(exact.total)} MB "
        f"({exact.ours / exact.total:.1%}); no estimator of ours touches {', '.join(others)}"
    )
    for step in result.steps[1:]:
        if not step.checkpointing:
            alone = "" if step.lean else f"{_less(step.ours, exact.ours)} in linear layers alone, "
            yield f"{step.name}: {alone}{_changes(step, exact)}"
        else:
            yield f"{step.name}: {_changes(step, exact)}"
    alike = {(step.checkpointing, step.lean): step for step in result.steps if step.estimator == exact.estimator}
    for step in result.steps:
        beside = alike.get((step.checkpointing, step.lean), exact)
        if step.estimator != exact.estimator and step.total >= beside.total:
            yield _saves_nothing(step, beside)
    stays = {part: why for step in result.steps for part, why in step.stays.items()}
    for part, reason in stays.items():
        yield f"not lean: {part}: {reason}"
    misled = {layer: share for step in result.steps for layer, share in step.masked_gradient.items()}
    told = masked_gradient_sentence(misled)
    if told is not None:
        yield told


def _saves_nothing(step: StepMemory, beside: StepMemory) -> str:
    more = step.total - beside.total
    cost = (
        f"{megabytes(more)} MB more are kept than by {beside.name}"
        if more
        else f"as much is kept as by {beside.name}"
    )
    what = (
        f"{step.converted} converted layers free nothing on balance" if step.converted else "no layer is estimated"
    )
    return f"{step.name}: {what}, {cost}"


def _changes(step: StepMemory, exact: StepMemory) -> str:
    return f"{_less(step.total, exact.total)} in all, {_less(step.peak, exact.peak)} at the peak of the step"


def _less(size: int, exact: int) -> str:
    if not exact:
        return f"{megabytes(size)} MB more" if size else "nothing less"
    share = 1 - size / exact
    return f"{abs(share):.1%} {'less' if share >= 0 else 'more'}"
