"""What every choice costs a block, measured on this machine: the whole model takes a step with one choice in all blocks.

Between two moments of a step (`record`) the bytes alive say what every block keeps and needs for a while, and the clock
how long it takes; medians of interleaved rounds count, and blocks of one kind share their mean. What the rest of the
model has alive is what is left without the blocks; it is measured beside stock blocks, for every choice of the output
layer.

A block may cost otherwise beside others: what several of them read is counted for the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.checkpointed import unchecked_class
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.measure.memory import LiveBytes
from wtacrs.integration.planning.choices import group_of
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

Head = Literal["forward", "again"] | None
Noise = Callable[[str, Choice], float]
"""Of a block with a choice, over the minibatch's variance."""
Batch = Mapping[str, Tensor]


class _Way(NamedTuple):
    """One step to measure: all blocks with one choice, and the output layer with one."""

    choice: Choice
    head: Head


def measured_costs(
    model: nn.Module,
    batch: Batch,
    choices: Sequence[Choice],
    *,
    noise: Noise,
    noise_by: NoiseSource,
    heads: Sequence[Head] = (None,),
    optimizer_bytes: int = 8,
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
        rounds: timed steps, ≥ 1.
        progress: called with how many steps are done, and how many there are.

    Raises:
        InputError: if the model has no blocks that are called once each, or gives no loss.
    """
    check_batch(batch, "batch")
    blocks = blocks_of(model)
    if not blocks:
        raise InputError(f"model={type(model).__name__} has no repeated blocks, which a plan chooses for")
    ways = [*(_Way(choice, None) for choice in choices), *(_Way(STOCK, head) for head in heads[1:])]
    if ways[0].choice != STOCK or heads[0] is not None:
        raise InputError("choices: the stock one must be the first, and so must that of heads")
    sessions = _Sessions(model, blocks, batch)
    bytes_of, seconds_of = sessions.run(ways, rounds, progress)
    order = bytes_of[ways[0]].order
    gradients = [_gradient_bytes(blocks[name]) for name in order]
    kinds = [_kind(blocks[name]) for name in order]
    options = {way: _options(bytes_of[way], seconds_of[way], kinds) for way in ways}
    table = [
        BlockCosts(
            name=name,
            gradients=gradients[place],
            options=[
                OptionCosts(
                    choice=choice,
                    noise=noise(name, choice),
                    group=group_of(choice),
                    **options[_Way(choice, None)][place],
                )
                for choice in choices
            ],
        )
        for place, name in enumerate(order)
    ]
    rest = [_rest(head, bytes_of[_Way(STOCK, head)], seconds_of[_Way(STOCK, head)], gradients) for head in heads]
    return CostTable(noise_by=noise_by, fixed=_fixed(model, batch, optimizer_bytes), blocks=table, rest=rest)


class _Sessions:
    """Steps of one model, converted in every way, on one batch."""

    def __init__(self, model: nn.Module, blocks: Mapping[str, nn.Module], batch: Batch) -> None:
        self._model, self._blocks, self._batch = model, blocks, batch
        self._device = next(model.parameters()).device

    def run(
        self, ways: Sequence[_Way], rounds: int, progress: Callable[[int, int], None] | None
    ) -> tuple[dict[_Way, Timeline], dict[_Way, list[Timeline]]]:
        """Bytes of one step and seconds of others, by way."""
        model, mode = self._model, self._model.training
        gradients = {parameter: parameter.grad for parameter in model.parameters()}
        total, done = len(ways) * (1 + rounds), 0
        sizes: dict[_Way, Timeline] = {}
        seconds: dict[_Way, list[Timeline]] = {way: [] for way in ways}
        devices = [self._device] if self._device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                model.train()
                for turn in range(1 + rounds):
                    for way in ways:
                        self._convert(way)
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

    def _convert(self, way: _Way) -> None:
        restore_(self._model)
        if way.choice != STOCK or way.head is not None:
            choices = dict.fromkeys(self._blocks, way.choice)
            approximate_(self._model, BlockChoices(blocks=choices, head=way.head), seed=0)

    def _measured_bytes(self) -> Timeline:
        self._model.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            return self._step(DeviceMeter(self._device))
        with LiveBytes() as live:
            return self._step(LiveMeter(live))

    def _step(self, meter: Any) -> Timeline:
        self._model.zero_grad(set_to_none=True)
        found = record(self._blocks, self._loss, meter)
        self._model.zero_grad(set_to_none=True)
        return found

    def _loss(self) -> Tensor:
        with torch.enable_grad():
            loss = getattr(self._model(**self._batch), "loss", None)
        if not isinstance(loss, Tensor):
            raise InputError(f"batch: {type(self._model).__name__} gives no loss for it; labels are needed")
        return loss


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


def _kind(block: nn.Module) -> tuple[Any, ...]:
    """Blocks of one kind are of one class, with parameters of the same names and shapes."""
    return unchecked_class(block), tuple((name, tuple(p.shape)) for name, p in block.named_parameters())


def _gradient_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)


def _fixed(model: nn.Module, batch: Batch, optimizer_bytes: int) -> dict[str, int]:
    """Bytes that are there all the time."""
    return {
        "parameters": sum(p.numel() * p.element_size() for p in model.parameters()),
        "buffers": sum(b.numel() * b.element_size() for b in model.buffers()),
        "batch": sum(t.numel() * t.element_size() for t in batch.values()),
        "optimizer states": optimizer_bytes * sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
