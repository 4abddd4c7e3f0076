"""What every choice costs a block, measured on this machine: the whole model takes a step with one choice in all blocks.

Between two moments of a step (`record`) the bytes alive say what every block keeps and needs for a while, and the clock
how long it takes; medians of interleaved rounds count, and blocks of one kind share their mean. What the rest of the
model has alive is what is left without the blocks; it is measured beside stock blocks, for every choice of the output
layer.

A block may cost otherwise beside others: what several of them read is counted for the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.checkpointed import unchecked_class
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.measure.memory import LiveBytes, loss_of, without_cache
from wtacrs.integration.planning.choices import Head, group_of
from wtacrs.integration.planning.timeline import Clock, DeviceMeter, LiveMeter, Timeline, record
from wtacrs.validation.arguments import check_batch
from wtacrs.validation.records.plan import (
    STOCK,
    BlockChoices,
    BlockCosts,
    Choice,
    CostTable,
    NoiseSource,
    OptionCosts,
    RestCosts,
)

Noise = Callable[[str, Choice], float]
"""Of a block with a choice, over the minibatch's variance."""
Batch = Mapping[str, Tensor]
PRECISIONS = ("fp32", "bf16")


class Way(NamedTuple):
    """One step to take: all blocks with one choice, and the output layer with one."""

    choice: Choice
    head: Head = None


def measured_costs(
    model: nn.Module,
    batch: Batch,
    choices: Sequence[Choice],
    *,
    noise: Noise,
    noise_by: NoiseSource,
    heads: Sequence[Head] = (None,),
    optimizer_bytes: int = 8,
    precision: str = "fp32",
    rounds: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> CostTable:
    """Take `1 + rounds` steps with every choice; the model is left stock, in its mode, without changed gradients.

    Args:
        model: a stock model whose output has a `loss`.
        batch: keyword arguments of its forward pass, on its device.
        choices: for every block, the stock one first.
        noise: of a block with a choice.
        noise_by: where it comes from.
        heads: choices of the output layer, the stock one first.
        optimizer_bytes: of the optimizer's states per number that trains; 8 for Adam in single precision.
        precision: "fp32", or "bf16" for autocast.
        rounds: timed steps, ≥ 1.
        progress: called with how many steps are done, and how many there are.

    Raises:
        InputError: if the model has no blocks that are called once each, or gives no loss.
    """
    check_batch(batch, "batch")
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} must be {' or '.join(map(repr, PRECISIONS))}")
    blocks = blocks_of(model)
    if not blocks:
        raise InputError(f"model={type(model).__name__} has no repeated blocks, which a plan chooses for")
    ways = ways_of(choices, heads)
    bytes_of, seconds_of = _Sessions(model, blocks, batch, precision).run(ways, rounds, progress)
    blocks_by_place = {name: blocks[name] for name in bytes_of[ways[0]].order}
    fixed = fixed_bytes(model, batch, optimizer_bytes)
    costs = table_entries(blocks_by_place, choices, heads, bytes_of, seconds_of, noise)
    return CostTable(noise_by=noise_by, fixed=fixed, blocks=costs[0], rest=costs[1])


def table_entries(
    blocks: Mapping[str, nn.Module],
    choices: Sequence[Choice],
    heads: Sequence[Head],
    bytes_of: Mapping[Way, Timeline],
    seconds_of: Mapping[Way, Sequence[Timeline]],
    noise: Noise,
) -> tuple[list[BlockCosts], list[RestCosts]]:
    """Costs of blocks and of the rest from the timelines of all ways.

    Args:
        blocks: by name, in the order of the forward pass.
        choices: for every block, the stock one first.
        heads: of the output layer, the stock one first.
        bytes_of: alive, by way.
        seconds_of: of one or more steps, by way.
        noise: of a block with a choice.
    """
    gradients = [_gradient_bytes(block) for block in blocks.values()]
    kinds = [kind_of(block) for block in blocks.values()]
    options = {choice: _options(bytes_of[Way(choice)], seconds_of[Way(choice)], kinds) for choice in choices}
    table = [
        BlockCosts(
            name=name,
            gradients=gradients[place],
            options=[
                OptionCosts(
                    choice=choice, noise=noise(name, choice), group=group_of(choice), **options[choice][place]
                )
                for choice in choices
            ],
        )
        for place, name in enumerate(blocks)
    ]
    stock = [Way(STOCK, head) for head in heads]
    return table, [_rest(way.head, bytes_of[way], seconds_of[way], gradients) for way in stock]


def convert_(model: nn.Module, blocks: Iterable[str], way: Way) -> None:
    """Make a model of any state go a way."""
    restore_(model)
    if way != Way(STOCK):
        approximate_(model, BlockChoices(blocks=dict.fromkeys(blocks, way.choice), head=way.head), seed=0)


def ways_of(choices: Sequence[Choice], heads: Sequence[Head]) -> list[Way]:
    """What a table needs: every choice beside the stock output layer, and all others beside stock blocks.

    Raises:
        InputError: unless the stock choices are the first ones.
    """
    if choices[0] != STOCK or heads[0] is not None:
        raise InputError("choices: the stock one must be the first, and so must that of heads")
    return [*(Way(choice) for choice in choices), *(Way(STOCK, head) for head in heads[1:])]


class _Sessions:
    """Steps of one model, converted in every way, on one batch."""

    def __init__(self, model: nn.Module, blocks: Mapping[str, nn.Module], batch: Batch, precision: str) -> None:
        self._model, self._blocks, self._batch, self._precision = model, blocks, batch, precision
        self._device = next(model.parameters()).device

    def run(
        self, ways: Sequence[Way], rounds: int, progress: Callable[[int, int], None] | None
    ) -> tuple[dict[Way, Timeline], dict[Way, list[Timeline]]]:
        """Bytes of one step and seconds of others, by way."""
        model, mode = self._model, self._model.training
        gradients = {parameter: parameter.grad for parameter in model.parameters()}
        total, done = len(ways) * (1 + rounds), 0
        sizes: dict[Way, Timeline] = {}
        seconds: dict[Way, list[Timeline]] = {way: [] for way in ways}
        devices = [self._device] if self._device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), without_cache(model):
                model.train()
                for turn in range(1 + rounds):
                    for way in ways:
                        convert_(self._model, self._blocks, way)
                        if turn == 0:
                            self._step(Clock(self._device))  # warms up
                            sizes[way] = self._measured_bytes()
                        else:
                            seconds[way].append(self._step(Clock(self._device)))
                        done += 1
                        if progress is not None:
                            progress(done, total)
        finally:
            restore_(model)
            model.train(mode)
            for parameter, gradient in gradients.items():
                parameter.grad = gradient
        return sizes, seconds

    def _measured_bytes(self) -> Timeline:
        self._model.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            return self._step(DeviceMeter(self._device))
        with LiveBytes() as live:
            return self._step(LiveMeter(live))

    def _step(self, meter: Any) -> Timeline:
        self._model.zero_grad(set_to_none=True)
        step = partial(loss_of, self._model, self._batch, self._precision)
        (found,) = record(self._blocks, step, meter)
        self._model.zero_grad(set_to_none=True)
        return found


def _options(sizes: Timeline, seconds: Sequence[Timeline], kinds: Sequence[Any]) -> list[dict[str, Any]]:
    """Costs of every block, by the name of the field."""
    times = [median(_block_seconds(timeline, place) for timeline in seconds) for place in range(len(kinds))]
    mean = {kind: fmean(t for t, other in zip(times, kinds, strict=True) if other == kind) for kind in kinds}
    return [
        {
            "kept": round(forward.exit - forward.entry),
            "forward": round(max(forward.most - forward.entry, 0)),
            "backward": round(max(backward.most - backward.entry, 0)),
            "seconds": mean[kind],
        }
        for forward, backward, kind in zip(sizes.forward, sizes.backward, kinds, strict=True)
    ]


def _block_seconds(timeline: Timeline, place: int) -> float:
    spans = (timeline.forward[place], timeline.backward[place])
    return sum(span.exit - span.entry for span in spans)


def _rest(head: Head, sizes: Timeline, seconds: Sequence[Timeline], gradients: Sequence[int]) -> RestCosts:
    """What is left without the blocks."""
    count = len(gradients)
    kept = [round(span.exit - span.entry) for span in sizes.forward]
    before = [sum(kept[:i]) for i in range(count + 1)]
    through = [sum(gradients[i:]) for i in range(count + 1)]
    until = [sizes.end.most, *(sizes.backward[i].before for i in range(count - 1))]
    return RestCosts(
        head=head,
        forward=[round(span.entry) - before[i] for i, span in enumerate(sizes.forward)],
        between=[
            *(round(span.before) - before[i] for i, span in enumerate(sizes.forward)),
            round(sizes.backward[-1].before) - before[count],
        ],
        backward=[round(span.entry) - before[i + 1] - through[i + 1] for i, span in enumerate(sizes.backward)],
        until=[round(until[i]) - before[i] - through[i] for i in range(count)],
        seconds=median(_rest_seconds(timeline) for timeline in seconds),
    )


def _rest_seconds(timeline: Timeline) -> float:
    whole = timeline.end.now - timeline.forward[0].entry
    return max(whole - sum(_block_seconds(timeline, place) for place in range(len(timeline.order))), 0.0)


def kind_of(block: nn.Module) -> tuple[Any, ...]:
    """Blocks of one kind are of one class, with parameters of the same names and shapes."""
    return unchecked_class(block), tuple((name, tuple(p.shape)) for name, p in block.named_parameters())


def _gradient_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def fixed_bytes(model: nn.Module, batch: Batch, optimizer_bytes: int) -> dict[str, int]:
    """Bytes that are there all the time."""
    return {
        "parameters": sum(p.numel() * p.element_size() for p in model.parameters()),
        "buffers": sum(b.numel() * b.element_size() for b in model.buffers()),
        "batch": sum(t.numel() * t.element_size() for t in batch.values()),
        "optimizer states": optimizer_bytes * sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
