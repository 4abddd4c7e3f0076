"""The limit of memory reduction as models grow: closed forms, checked by simulation, and the largest batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from wtacrs.estimators import InputError
from wtacrs.figures.plots import limits as limits_figure
from wtacrs.integration.measure.simulation.step import simulate_step
from wtacrs.integration.models.published_sizes import config_of
from wtacrs.integration.studies.output import keep
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.front import FrontResult
from wtacrs.validation.records.limits import Grows, LimitBatch, LimitCheck, LimitCurve, LimitsResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.runner import Runner, Task, TaskOutput
from wtacrs.validation.theory.step_bytes import WAYS, StepWay, T5Step, step_bytes

MODELS = ("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b")
MEMORIES = (24_000_000_000, 80_000_000_000)
ROWS = 0.1
# half of an A100's peak in TF32, and its memory's bandwidth
FLOPS, BANDWIDTH = 78e12, 2.0e12
_FAR = 2**40
_MOST = 2**30
_STEPS: Mapping[Grows, tuple[int, ...]] = {
    "batch": tuple(2**i for i in range(13)),
    "width": tuple(2**i for i in range(7, 17)),
    "depth": tuple(2**i for i in range(10)),
    "length": tuple(2**i for i in range(4, 16)),
}
_HEAD_WIDTH = 64
_UPDATE_TRAFFIC = 28
"""Bytes per parameter that AdamW reads and writes: weight, gradient and two states read, all but the gradient written."""


class _Taken(NamedTuple):
    """How the real step of a way is taken."""

    sampled: bool = False
    lean: str | None = None
    checkpointing: bool = False


_TAKEN: Mapping[StepWay, _Taken] = {
    "stock": _Taken(),
    "sampled": _Taken(sampled=True),
    "lean": _Taken(lean="attention,head"),
    "again": _Taken(lean="attention-again,head-again"),
    "again, sampled": _Taken(sampled=True, lean="attention-again,head-again"),
    "checkpointed": _Taken(checkpointing=True),
    "again, checkpointed": _Taken(lean="head-again", checkpointing=True),
}


def limits_study(
    out: Path,
    *,
    models: Sequence[str] = MODELS,
    base: str = "t5-base",
    rows: float = ROWS,
    batch_size: int = 64,
    length: int = 128,
    target_length: int = 128,
    memories: Sequence[int] = MEMORIES,
    simulated: Sequence[str] | None = None,
    times: Path | None = None,
    flops: float = FLOPS,
    bandwidth: float = BANDWIDTH,
    runner: Runner | None = None,
) -> LimitsResult:
    """Compute curves and batches, check the closed forms by simulation: `limits.json`, `limits.png`.

    An interrupted study goes on: finished simulations stay in the folder until the result is whole.

    Args:
        out: folder of the result.
        models: T5s with a ReLU, as `config_of` takes them.
        base: the one that grows.
        rows: share of the rows that sampled layers keep.
        batch_size: examples, of checks and curves.
        length: tokens of an input.
        target_length: tokens of an answer.
        memories: bytes of devices.
        simulated: models that are simulated; all if None.
        times: a result of `wtacrs study front`, whose times are those of steps; None for none.
        flops: multiply and add operations per second of the device, for what a larger batch gives.
        bandwidth: bytes per second of its memory.
        runner: progress and resumption.

    Raises:
        InputError: on a model that has no closed form, and on unusable numbers.
    """
    check_folder("out", out)
    shape: dict[str, Any] = {"batch_size": batch_size, "length": length, "target_length": target_length}
    steps = {name: t5_step(name, **shape) for name in dict.fromkeys((*models, base))}
    chosen = [name for name in models if simulated is None or name in simulated]
    tasks = [_check_task(name, way, rows, shape) for name in chosen for way in WAYS]
    runner = replace(runner or Runner(), folder=out)
    measured, source = ({}, None) if times is None else _times(times, rows)
    checks = runner.run(LimitCheck, tasks)
    found = LimitsResult(
        stamp=stamp(seed=None),
        base=base,
        rows=rows,
        **shape,
        flops=flops,
        bandwidth=bandwidth,
        times_of=source,
        checks=checks,
        curves=[limit_curve(steps[base], grows, way, rows) for grows in _STEPS for way in WAYS[1:]],
        batches=[
            one
            for name in models
            for memory in memories
            for one in _batches(name, steps[name], memory, rows, measured, flops, bandwidth)
        ],
    )
    keep(found, out, "limits.json", runner, {"limits.png": partial(limits_figure.draw, found)})
    return found


def t5_step(model: str, *, batch_size: int, length: int, target_length: int) -> T5Step:
    """The sizes of a T5 by its name or config.

    Raises:
        InputError: if it is another architecture, has a gated feed-forward part, or a head with weights of its own.
    """
    config: Any = config_of(model)
    if config.model_type != "t5" or config.is_gated_act or not config.tie_word_embeddings:
        raise InputError(f"model={model!r} has no closed form: a T5 with ReLU and tied embeddings is needed")
    return T5Step(
        width=config.d_model,
        inner=config.num_heads * config.d_kv,
        feed_forward=config.d_ff,
        heads=config.num_heads,
        layers=config.num_layers,
        decoder_layers=config.num_decoder_layers,
        vocabulary=config.vocab_size,
        batch_size=batch_size,
        length=length,
        target_length=target_length,
    )


def limit_curve(base: T5Step, grows: Grows, way: StepWay, rows: float) -> LimitCurve:
    """The ratio of peaks while one size grows, and its limit."""
    sizes = _STEPS[grows]
    grown = _GROWN[grows]
    ratios = [_ratio(grown(base, size), way, rows) for size in sizes]
    far, farther = (_ratio(grown(base, _FAR * step), way, rows) for step in (1, 16))
    return LimitCurve(
        grows=grows, way=way, sizes=list(sizes), ratios=ratios, limit=farther if farther < 1.01 * far else None
    )


def largest_batch(step: T5Step, way: StepWay, memory: int, rows: float) -> int:
    """The most examples whose peak fits; 0 if not one does."""

    def fits(batch: int) -> bool:
        return step_bytes(step.but(batch_size=batch), way, rows=rows).peak <= memory

    if not fits(1):
        return 0
    low, high = 1, 2
    while high < _MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _ratio(step: T5Step, way: StepWay, rows: float) -> float:
    return step_bytes(step).peak / step_bytes(step, way, rows=rows).peak


def _wide(step: T5Step, width: int) -> T5Step:
    return step.but(width=width, inner=width, feed_forward=4 * width, heads=max(1, width // _HEAD_WIDTH))


_GROWN: Mapping[Grows, Callable[[T5Step, int], T5Step]] = {
    "batch": lambda step, size: step.but(batch_size=size),
    "width": _wide,
    "depth": lambda step, size: step.but(layers=size, decoder_layers=size),
    "length": lambda step, size: step.but(length=size),
}


def _check_task(model: str, way: StepWay, rows: float, shape: Mapping[str, int]) -> Task[LimitCheck]:
    told = " ".join(f"{name}={value}" for name, value in shape.items())
    return Task(
        f"limits {model} {way} {rows} {told}", _checked, (model, way, rows, dict(shape)), f"{model}, {way}"
    )


def _checked(model: str, way: StepWay, rows: float, shape: dict[str, Any]) -> TaskOutput[LimitCheck]:
    taken = _TAKEN[way]
    options: dict[str, Any] = {"lean": taken.lean or False, "checkpointing": taken.checkpointing}
    if taken.sampled:
        options |= {"estimator": f"wta_crs(budget={rows})", "min_elements": 0}
    real = simulate_step(model, **shape, **options).step
    found = step_bytes(t5_step(model, **shape), way, rows=rows)
    check = LimitCheck(
        model=model, way=way, kept=found.kept, peak=found.peak, simulated_kept=real.kept, simulated_peak=real.peak
    )
    return TaskOutput((check,))


def _batches(
    name: str,
    step: T5Step,
    memory: int,
    rows: float,
    times: Mapping[str, float],
    flops: float,
    bandwidth: float,
) -> list[LimitBatch]:
    largest = {way: largest_batch(step, way, memory, rows) for way in WAYS}
    stock = largest["stock"]

    def amortised(batch: int) -> float | None:
        if not stock or not batch:
            return None
        update = _UPDATE_TRAFFIC * step.parameters / bandwidth
        example = 6 * step.parameters * (step.length + step.target_length) / 2 / flops
        return (1 + update / (stock * example)) / (1 + update / (batch * example))

    return [
        LimitBatch(
            model=name,
            memory=memory,
            way=way,
            batch=batch,
            time=times.get(way),
            amortised=amortised(batch),
        )
        for way, batch in largest.items()
    ]


def _times(path: Path, rows: float) -> tuple[dict[str, float], str]:
    """Time of a step over a stock one by way, as `wtacrs study front` measured it."""
    found = load_result(path)
    if not isinstance(found, FrontResult):
        raise InputError(f"times={path}: a result of `wtacrs study front` is needed, got {found.kind!r}")
    names = {taken: way for way, taken in _TAKEN.items()}
    times: dict[str, float] = {}
    for row in found.rows:
        estimator = row.way.estimator
        if estimator != "exact" and f"budget={rows}" not in estimator:
            continue
        name = estimator.partition("(")[0]
        if name not in ("exact", "wta_crs") or row.way.lora_rank is not None or row.way.attention == "sdpa":
            continue
        key = _Taken(name == "wta_crs", row.way.lean, row.way.checkpointing)
        if key in names:
            times.setdefault(names[key], row.ratio)
    return times, f"{found.model}, {path.name}"
