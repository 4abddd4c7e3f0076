"""A plan of what every block of a model keeps for its backward pass, and the costs that it is made from, as data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from wtacrs.validation.records.base import Record, Result, register_result
from wtacrs.validation.records.units import megabytes

NoiseSource = Literal["closed form", "independent rows"]
"""`closed form`: variances on captured layers. `independent rows`: 1/budget − 1, for gradients of mean zero."""

CostSource = Literal["measured", "simulated"]


class Choice(Record):
    """What is done with one block.

    Attributes:
        estimator: spec of the estimator of its dW; None for exact ones.
        lean: words of `LeanOptions`, such as "attention,8-bit"; None for stock neighbours.
        checkpointed: whether it is run again in the backward pass.
    """

    estimator: str | None = None
    lean: str | None = None
    checkpointed: bool = False

    def __str__(self) -> str:
        words = [self.estimator or "exact"]
        words += [] if self.lean is None else [f"lean {self.lean}"]
        words += ["checkpointed"] if self.checkpointed else []
        return ", ".join(words)


STOCK = Choice()
"""A block as it is."""


class BlockChoices(Record):
    """What is done with a model, block by block; all else stays as it is.

    Attributes:
        blocks: by name.
        head: as in `RestCosts`.
    """

    blocks: dict[str, Choice]
    head: Literal["forward", "again"] | None = None

    @property
    def digest(self) -> str:
        """A short name, the same for what is the same."""
        told = "\n".join([f"head {self.head}", *(f"{name}: {choice}" for name, choice in self.blocks.items())])
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"plan {self.digest}"


class OptionCosts(Record):
    """What a block costs with one choice.

    Attributes:
        choice: what is done.
        kept: bytes that are alive once its forward pass has ended and were not before; may be negative.
        forward: the most bytes alive within its forward pass beyond those before it.
        backward: the most bytes alive within its backward pass beyond those before it.
        seconds: of its forward and backward pass.
        noise: E‖dŴ − dW‖² of its layers over the minibatch's variance of all gradients.
        group: a plan takes one group for all blocks, where something is chosen for the whole model; None takes part in
            any.
    """

    choice: Choice
    kept: int
    forward: int = Field(ge=0)
    backward: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    noise: float = Field(ge=0, allow_inf_nan=False)
    group: str | None = None


class BlockCosts(Record):
    """A block by name, the bytes of its gradients, and what it may cost."""

    name: str
    gradients: int = Field(ge=0)
    options: Sequence[OptionCosts] = Field(min_length=1)

    def of(self, choice: Choice) -> OptionCosts:
        """The costs of a choice, which must be among the options."""
        return next(option for option in self.options if option.choice == choice)


class RestCosts(Record):
    """What is no block: embeddings, the output layer and the loss, and what lies between blocks.

    All bytes are those alive beyond what the blocks keep and beyond the gradients of those that are through.

    Attributes:
        head: how the output layer is lean, "forward" or "again"; None for the stock one.
        forward: bytes alive when the forward pass of block i begins.
        between: the most alive before it, after block i − 1; the last one is the output layer with the loss.
        backward: bytes alive when the backward pass of block i begins.
        until: the most alive in the backward pass after block i, before block i − 1; that of block 0 is the end.
        seconds: of all that.
    """

    head: Literal["forward", "again"] | None = None
    forward: Sequence[int]
    between: Sequence[int]
    backward: Sequence[int]
    until: Sequence[int]
    seconds: float = Field(ge=0, allow_inf_nan=False)


class Rates(Record):
    """How fast a machine is, in two numbers that modelled seconds are made from.

    Attributes:
        flops: floating-point operations of matrix products, per second.
        bytes: that all other operations read and write, per second.
        by: whether they were measured on this machine, or given.
    """

    flops: float = Field(gt=0, allow_inf_nan=False)
    bytes: float = Field(gt=0, allow_inf_nan=False)
    by: Literal["measured", "given"] = "measured"


class CostTable(Record):
    """What the blocks of a model cost, in the order of the forward pass; backward passes go the other way.

    Attributes:
        by: where bytes come from: steps that were taken, or simulated ones.
        rates: what seconds are modelled from, where steps were simulated; None where they were timed.
        noise_by: where noise comes from.
        fixed: bytes that are alive all the time, by what they are.
        blocks: by position.
        rest: by choice of the output layer; the first one is the stock one.
    """

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {"fixed": ("fixed",)}

    by: CostSource = "measured"
    rates: Rates | None = None
    noise_by: NoiseSource = "closed form"
    fixed: dict[str, int]
    blocks: Sequence[BlockCosts] = Field(min_length=1)
    rest: Sequence[RestCosts] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> CostTable:
        if (self.by == "simulated") != (self.rates is not None):
            raise ValueError(f"rates: costs are {self.by}, and seconds are modelled for simulated ones alone")
        count = len(self.blocks)
        for rest in self.rest:
            sizes = [len(rest.forward), len(rest.between) - 1, len(rest.backward), len(rest.until)]
            if sizes != [count] * 4:
                raise ValueError(f"rest: there are {count} blocks, and costs of the rest for {sizes}")
        return self

    @property
    def always(self) -> int:
        """Bytes that no choice changes."""
        return sum(self.fixed.values())


class PlannedBlock(Record):
    """A block, what is done with it, and what that is predicted to cost; as in `OptionCosts`."""

    name: str
    choice: Choice
    kept: int
    seconds: float
    noise: float


class AlikePlan(Record):
    """All blocks with one estimator, and nothing else; as in `OptionCosts`, and over all blocks."""

    estimator: str
    kept: int
    peak: int
    seconds: float
    noise: float


class FrontPoint(Record):
    """The best plan for an amount of memory."""

    memory: int
    peak: int
    seconds: float
    noise: float


@register_result
class Plan(Result):
    """What every block of a model does, for `approximate_`, `finetune` and `WtacrsCallback`.

    Attributes:
        model: its name.
        task: whose batches it is made for.
        batch_size: examples of a batch.
        tokens: longest input of the batch.
        precision: "fp32", or "bf16" for autocast.
        lora_rank: of adapters that train in place of all weights; None for all weights.
        memory: bytes asked for.
        noise_ceiling: the most noise, over the minibatch's; None where seconds are limited instead.
        time_ceiling: the most seconds, over those of the stock step; None where noise is.
        head: as in `RestCosts`.
        blocks: in the order of the forward pass.
        peak: predicted, in bytes, with all that is always there.
        seconds: predicted, of forward and backward pass.
        noise: predicted, over the minibatch's variance.
        stock_peak: of the stock step.
        stock_seconds: of the stock step.
        limit: the moment of the step at which the peak is reached.
        front: best plans for other amounts of memory under the same ceiling.
        costs: what it is made from.
        kept_as: the estimator that would keep as much in all blocks, if that was asked for; then no more is kept.
        alike: one estimator in all blocks, for every one among the choices; none in files from before there were any.
    """

    kind: Literal["plan"] = "plan"
    model: str
    task: str
    batch_size: int
    tokens: int
    precision: Literal["fp32", "bf16"] = "fp32"
    lora_rank: int | None = None
    memory: int
    noise_ceiling: float | None
    time_ceiling: float | None
    head: Literal["forward", "again"] | None
    blocks: Sequence[PlannedBlock]
    peak: int
    seconds: float
    noise: float
    stock_peak: int
    stock_seconds: float
    limit: str
    front: Sequence[FrontPoint] = Field(default_factory=list)
    costs: CostTable | None = None
    kept_as: str | None = None
    alike: Sequence[AlikePlan] = Field(default_factory=list)

    @property
    def kept(self) -> int:
        """Bytes that all blocks keep together."""
        return sum(block.kept for block in self.blocks)

    @property
    def beside(self) -> AlikePlan | None:
        """One estimator in all blocks to compare with: the one asked for, or that of least noise in no more bytes."""
        if self.kept_as is not None:
            return next((one for one in self.alike if one.estimator == self.kept_as), None)
        fitting = [one for one in self.alike if one.kept <= self.kept]
        return min(fitting, key=lambda one: one.noise, default=None)

    @property
    def does(self) -> BlockChoices:
        """What is done with the model, without what it costs."""
        return BlockChoices(blocks={block.name: block.choice for block in self.blocks}, head=self.head)


def plan_sentences(plan: Plan) -> Iterator[str]:
    """What a plan costs beside the stock step, what limits it, and where its numbers come from."""
    more = plan.seconds / plan.stock_seconds if plan.stock_seconds else float("nan")
    yield (
        f"predicted: a peak of {megabytes(plan.peak)} MB of {megabytes(plan.memory)} asked for (stock step: "
        f"{megabytes(plan.stock_peak)}), {more:.2f} × the stock step's time, noise {plan.noise:.3g} × the minibatch's"
    )
    yield f"the peak is reached in {plan.limit}"
    if (alike := plan.beside) is not None:
        yield (
            f"blocks keep {megabytes(plan.kept)} MB with noise {plan.noise:.3g}; {alike.estimator} in all of them would "
            f"keep {megabytes(alike.kept)} MB with noise {alike.noise:.3g}"
        )
    if plan.costs is not None:
        fixed = ", ".join(f"{name} {megabytes(size)}" for name, size in plan.costs.fixed.items())
        yield f"always there, MB: {fixed}"
        if plan.costs.rates is not None:
            yield _modelled(plan.costs.rates)
        if plan.costs.noise_by == "independent rows":
            yield (
                "noise: 1/budget − 1, as if rows had independent gradients of mean zero, since no layer was "
                "captured; measured noise may be a fraction of it"
            )


def _modelled(rates: Rates) -> str:
    where = "as measured on this machine" if rates.by == "measured" else "as given"
    return (
        "no step was taken: bytes are simulated, and times are modelled from all operations of the step, at "
        f"{rates.flops / 1e9:.4g} GFLOP/s of matrix products and {rates.bytes / 1e9:.4g} GB/s of all others, {where}"
    )
