"""What every choice costs a block, from a model's config alone: no weights, no batch, no memory for either.

The steps are those of `measured_costs` on tensors without values (`NoValues`), so that bytes are those of a batch without
padding whose labels all count. Seconds are modelled from the operators that run (`modelled_time`).

A stack of more than three blocks of one kind is simulated with three of them, and the inner ones stand for all that are
left out: they run the same operators on the same shapes, and what is alive beside them is the same but for what the
blocks keep, which a table counts by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.measure.memory import loss_of, without_cache
from wtacrs.integration.measure.simulation.step import Shape, checked_shape, example_batch, has_output_embeddings
from wtacrs.integration.measure.simulation.values import NoValues, fill_without_values, without_values
from wtacrs.integration.measure.track_memory import bytes_of as bytes_of_tensors
from wtacrs.integration.models.published_sizes import config_of, model_from
from wtacrs.integration.planning.choices import Head, heads_of
from wtacrs.integration.planning.costs import (
    PRECISIONS,
    Noise,
    Way,
    convert_,
    fixed_bytes,
    kind_of,
    table_entries,
    ways_of,
)
from wtacrs.integration.planning.modelled_time import ModelledClock, ModelledWork
from wtacrs.integration.planning.noise import independent_rows_noise
from wtacrs.integration.planning.timeline import LiveMeter, Timeline, record
from wtacrs.validation.records.plan import BlockCosts, Choice, CostTable, NoiseSource, Rates, RestCosts

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SHOWN = 3
"""Blocks of a stack that are simulated: the first, one for all in the middle, the last."""


def simulated_costs(
    model: str | Path | PretrainedConfig,
    choices: Sequence[Choice],
    *,
    batch_size: int,
    rates: Rates,
    length: int = 128,
    target_length: int | None = None,
    noise: Callable[[nn.Module], Noise] = independent_rows_noise,
    noise_by: NoiseSource = "independent rows",
    heads: Sequence[Head] | None = None,
    precision: str = "fp32",
    lora_rank: int | None = None,
    optimizer_bytes: int = 8,
    every_block: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CostTable:
    """Simulate one step with every choice, in place of the steps that `measured_costs` takes.

    Args:
        model: as in `simulate_step`: a published size, a folder of a checkpoint, its `config.json`, or a config.
        choices: for every block, the stock one first.
        batch_size: examples.
        rates: of the machine that the plan is for.
        length: tokens of an input.
        target_length: tokens of an answer of an encoder–decoder; None for `length`.
        noise: from the model, without values, to the noise of a block with a choice.
        noise_by: where it comes from.
        heads: choices of the output layer, the stock one first; None for all that the model can have.
        precision: "fp32"; autocast is refused as yet.
        lora_rank: None; adapters are refused as yet.
        optimizer_bytes: as in `measured_costs`.
        every_block: simulate all blocks of a stack.
        progress: called with how many steps are done, and how many there are.

    Raises:
        InputError: as `simulate_step`, and if the model has no blocks.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} must be {' or '.join(map(repr, PRECISIONS))}")
    if precision != "fp32" or lora_rank is not None:
        raise InputError(
            f"precision={precision!r}, lora_rank={lora_rank}: simulated costs are for 'fp32' and all weights"
        )
    config = config_of(model)
    shape = checked_shape(config, batch_size, length, target_length)
    with torch.device("meta"):
        made: nn.Module = model_from(config)
    blocks = blocks_of(made)
    if not blocks:
        raise InputError(f"model={config.model_type!r} has no repeated blocks, which a plan chooses for")
    heads = heads_of(made) if heads is None else heads
    ways = ways_of(choices, heads)
    noise_of, fixed = noise(made), fixed_bytes(made, {}, optimizer_bytes)
    stands = {name: [name] for name in blocks} if every_block else _shorten(made, blocks)
    steps = _steps(made, shape, ways, precision, rates, progress)
    shown = {name: blocks_of(made)[name] for name in steps[ways[0]].order}
    bytes_of = {way: step.bytes for way, step in steps.items()}
    seconds_of = {way: [step.seconds] for way, step in steps.items()}
    of_shown, rest = table_entries(shown, choices, heads, bytes_of, seconds_of, lambda *_: 0.0)
    return CostTable(
        by="simulated",
        rates=rates,
        noise_by=noise_by,
        fixed=fixed | {"batch": steps[ways[0]].batch},
        blocks=[_named(name, costs, noise_of) for costs in of_shown for name in stands[costs.name]],
        rest=[_lengthened(costs, [len(stands[name]) for name in shown]) for costs in rest],
    )


class _Step(NamedTuple):
    """Bytes alive and seconds at the moments of a step, and the bytes of its batch."""

    bytes: Timeline
    seconds: Timeline
    batch: int

    @property
    def order(self) -> list[str]:
        """Names of the blocks as the forward pass comes to them."""
        return self.bytes.order


def _steps(
    model: nn.Module,
    shape: Shape,
    ways: Sequence[Way],
    precision: str,
    rates: Rates,
    progress: Callable[[int, int], None] | None,
) -> dict[Way, _Step]:
    found = {}
    for done, way in enumerate(ways, start=1):
        converted = deepcopy(model)
        convert_(converted, blocks_of(converted), way)  # without the mode: modules are asked what they compute
        found[way] = _step(converted, shape, precision, rates)
        if progress is not None:
            progress(done, len(ways))
    return found


def _step(model: nn.Module, shape: Shape, precision: str, rates: Rates) -> _Step:
    shifts = shape.target_length is None and has_output_embeddings(model)
    with without_values(NoValues(all_count=not shifts)), without_cache(model):
        fill_without_values(model)
        batch = example_batch(model, shape)
        with ModelledWork(rates) as work:
            sizes, seconds = record(
                blocks_of(model), partial(loss_of, model, batch, precision), LiveMeter(work), ModelledClock(work)
            )
        return _Step(sizes, seconds, bytes_of_tensors(batch.values()))


def _shorten(model: nn.Module, blocks: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """Take inner blocks of one kind out of the stacks of a model, all but one.

    Returns:
        By name of a block in the shortened model: names of those that it stands for.
    """
    stacks: dict[str, list[str]] = {}
    for name in blocks:
        stacks.setdefault(name.rpartition(".")[0], []).append(name)
    stands: dict[str, list[str]] = {}
    for stack, names in stacks.items():
        if len(names) <= _SHOWN or len({kind_of(blocks[name]) for name in names[1:-1]}) > 1:
            stands |= {name: [name] for name in names}
            continue
        left = [names[0], names[1], names[-1]]
        model.get_submodule(stack)._modules = {str(place): blocks[name] for place, name in enumerate(left)}
        here = [f"{stack}.{place}".lstrip(".") for place in range(_SHOWN)]
        stands |= dict(zip(here, [names[:1], names[1:-1], names[-1:]], strict=True))
    return stands


def _named(name: str, costs: BlockCosts, noise: Noise) -> BlockCosts:
    options = [option.model_copy(update={"noise": noise(name, option.choice)}) for option in costs.options]
    return costs.model_copy(update={"name": name, "options": options})


def _lengthened(rest: RestCosts, times: Sequence[int]) -> RestCosts:
    """What lies beside every block as often as the block is there."""
    count = len(times)

    def longer(values: Sequence[int]) -> list[int]:
        repeated = [value for value, many in zip(values, times, strict=False) for _ in range(many)]
        return [*repeated, *values[count:]]

    parts = ("forward", "between", "backward", "until")
    return rest.model_copy(update={name: longer(getattr(rest, name)) for name in parts})
