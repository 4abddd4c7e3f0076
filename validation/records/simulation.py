"""Training steps that were simulated from shapes alone, or measured in the same way, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from wtacrs.validation.records.base import Record, Result, register_result
from wtacrs.validation.records.owners import OwnerBytes
from wtacrs.validation.records.units import gigabytes

Phase = Literal["forward", "backward", "update"]
StepPrecision = Literal["fp32", "bf16", "bf16-weights"]
"""Single precision; autocast to bfloat16; weights, gradients and states in bfloat16."""

PARTS = (
    "parameters",
    "buffers",
    "batch",
    "optimizer states",
    "gradients",
    "kept for the backward pass",
    "at work",
)
"""What is alive at the peak, by kind, in the order in which it is shown."""


class AliveBytes(Record):
    """What is alive at the peak: its kind (of `PARTS`), the modules and the operation that made it."""

    kind: str
    modules: str
    operation: str
    bytes: int


def tokens_text(length: int, target_length: int | None) -> str:
    """Tokens of an input, and of an answer where there is one.

    >>> tokens_text(128, 8), tokens_text(128, None)
    ('128 / 8', '128')
    """
    return f"{length}" if target_length is None else f"{length} / {target_length}"


class StepChoice(Record):
    """How a step is taken.

    `estimator` is a spec, or the text of a mapping of patterns to specs. `lean` are the words of the options of `lean_`,
    None for stock neighbours.
    """

    table_derived: ClassVar[Sequence[str]] = ("name",)

    estimator: str = "exact"
    lean: str | None = None
    lora_rank: int | None = None
    checkpointing: bool = False
    offload: bool = False
    precision: StepPrecision = "fp32"
    optimizer: str = "adamw"

    @property
    def name(self) -> str:
        """As it is shown, without what most steps share: single precision and AdamW."""
        words = [
            self.estimator,
            *([f"lean {self.lean}"] if self.lean is not None else []),
            *([f"LoRA {self.lora_rank}"] if self.lora_rank is not None else []),
            *(["checkpointing"] if self.checkpointing else []),
            *(["offloading"] if self.offload else []),
            *([self.precision] if self.precision != "fp32" else []),
            *([self.optimizer] if self.optimizer != "adamw" else []),
        ]
        return " + ".join(words)


class SimulatedStep(Record):
    """The bytes of a training step: forward pass, backward pass and update, with the optimizer's states from before.

    `parameters`, `buffers`, `batch`, `states` and `gradients` are whole. `kept` is what the backward pass keeps on the
    device, `owners` and `shared` as in `StepMemory`, and `blocks` what repeated blocks would free by letting go.
    Offloading hides owners: there are none, and `kept` is all that is alive at the end of the forward pass. `host` is the
    most that lies on the host. `peak` is the most that is alive on the device at any moment, all of the above included;
    `phase` is when, `phases` the most in each, `alive` what it is made of, largest first.
    """

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {"blocks": ("blocks",)}

    choice: StepChoice
    batch_size: int
    length: int
    target_length: int | None
    converted: int
    parameters: int
    buffers: int
    batch: int
    states: int
    gradients: int
    kept: int
    host: int
    peak: int
    phase: Phase
    phases: Mapping[Phase, int]
    alive: Sequence[AliveBytes]
    owners: Sequence[OwnerBytes] = Field(default_factory=list)
    shared: int = 0
    blocks: Mapping[str, int] = Field(default_factory=dict)

    @property
    def parts(self) -> dict[str, int]:
        """Bytes at the peak by kind, in the order of `PARTS`."""
        found = dict.fromkeys(PARTS, 0)
        for entry in self.alive:
            found[entry.kind] += entry.bytes
        return found


class Largest(Record):
    """The largest batch of a step that fits a device: `batch_size` fits, one more does not; 0 if none does.

    `fixed` is what is there before the first example, `each` what another example adds at the peak.
    """

    budget: int
    batch_size: int
    fixed: int
    each: int


@register_result
class SimulationResult(Result):
    """Training steps of one model without its numbers, in several ways; the first is the one to compare with.

    `largest` has an entry for every step where a budget of bytes was given.
    """

    kind: Literal["simulation"] = "simulation"
    model: str
    steps: Sequence[SimulatedStep]
    largest: Sequence[Largest] = Field(default_factory=list)


def simulation_sentences(result: SimulationResult) -> Iterator[str]:
    """What each step needs, and what limits it."""
    for step in result.steps:
        yield f"{step.choice.name}: {gigabytes(step.peak)} GB at the peak, in the {_when(step)}; {_limits(step)}"
    for step, found in zip(result.steps, result.largest, strict=False):
        yield largest_sentence(step, found)


def largest_sentence(step: SimulatedStep, found: Largest) -> str:
    """The largest batch, and what limits it."""
    if not found.batch_size:
        return (
            f"{step.choice.name}: not one example fits {gigabytes(found.budget)} GB; "
            f"{gigabytes(found.fixed)} GB are needed before the first one"
        )
    return (
        f"{step.choice.name}: batch {found.batch_size} fits {gigabytes(found.budget)} GB; {gigabytes(found.fixed)} GB "
        f"are needed before the first example, and {gigabytes(found.each)} GB for each"
    )


def _when(step: SimulatedStep) -> str:
    return "update" if step.phase == "update" else f"{step.phase} pass"


def _limits(step: SimulatedStep) -> str:
    parts = sorted(step.parts.items(), key=lambda part: -part[1])[:3]
    told = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts if size)
    owners = " and ".join(f"{entry.name} {gigabytes(entry.held)}" for entry in step.owners[:2])
    return f"{told} GB" + (f"; most is kept by {owners} GB" if owners else "")
