"""Memory, time and noise of a training step, in many ways beside each other: result file and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from wtacrs.estimators import InputError
from wtacrs.figures.plots import front as front_figure
from wtacrs.figures.plots import saving as saving_figure
from wtacrs.integration.measure.simulation.step import checked_shape
from wtacrs.integration.measure.step_ways import Subjects, gradient_noise, saving_parts, step_bytes, step_seconds
from wtacrs.integration.measure.text_windows import text_windows
from wtacrs.integration.models.published_sizes import config_of, model_from
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.studies.step_ways import FEW_ROWS, default_ways
from wtacrs.integration.tasks.loading import load_task
from wtacrs.validation.arguments import checked_integer
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.front import FrontResult, FrontRow, SavingPart, Way
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed


def front_study(model: str, out: Path, **options: Any) -> FrontResult:
    """Measure every way: `front.json`, `front.png` and `saving.png`.

    Args:
        model: as in `simulate_step`; its weights are random.
        out: folder of the result.
        options: of `measure_front`.

    Raises:
        InputError: on an unusable argument.
    """
    check_folder("out", out)
    result = measure_front(model, **options)
    write_result(out / "front.json", result)
    draw_or_remove(partial(front_figure.draw, result), out / "front.png")
    draw_or_remove(partial(saving_figure.draw, result), out / "saving.png")
    return result


def measure_front(
    model: str,
    *,
    layers: int | None = None,
    batch_size: int = 8,
    length: int = 128,
    target_length: int | None = None,
    dropout: float | None = None,
    precision: str = "fp32",
    compiled: bool = False,
    rounds: int = 5,
    batches: int = 4,
    draws: int = 2,
    device: str = "cpu",
    ways: Sequence[Way] | None = None,
    parts: bool = True,
    seed: int = 0,
    report: Report | None = None,
) -> FrontResult:
    """Measure every way to take a step.

    Args:
        model: as in `simulate_step`; its weights are random.
        layers: blocks, of encoder and decoder each; None for as many as it has.
        batch_size: examples.
        length: tokens of an input.
        target_length: tokens of an answer of an encoder–decoder; None for `length`.
        dropout: probability, everywhere; None for what the config says.
        precision: "fp32", or "bf16" for autocast.
        compiled: whether torch's compiler with a memory budget is among the default ways; it takes minutes to compile.
        rounds: of timing, in which ways take turns.
        batches: whose gradients scatter: the noise of the minibatch.
        draws: of every estimator.
        device: where.
        ways: to take a step; None for `default_ways`. The first is what the others are compared with.
        parts: whether the saving is decomposed too.
        seed: of weights, dropout, adapters and draws.
        report: progress.

    Raises:
        InputError: on an unusable argument.
    """
    seed = checked_seed(seed)
    for name, value, least in (("rounds", rounds, 1), ("batches", batches, 2), ("draws", draws, 1)):
        checked_integer(value, name, least=least)
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision={precision!r} must be fp32 or bf16")
    config = config_of(model)
    _resize(config, layers, dropout)
    batch_size, length, target_length = astuple(checked_shape(config, batch_size, length, target_length))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = model_from(config).to(device)
    found = text_windows(
        made, load_task("docstrings"), batches=batches, batch_size=batch_size, length=length,
        target_length=target_length,
    )  # fmt: skip
    given = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in found]
    chosen = list(ways) if ways is not None else _default(compiled)
    chosen = [way.model_copy(update={"precision": precision}) for way in chosen]
    begin_work(
        f"{model}: {len(chosen)} ways to take a step, {rounds} rounds of timing, {batches} batches, {draws} draws",
        *(f"  {way.name}" for way in chosen),
    )
    subjects = Subjects(made, seed=seed)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        sizes = []
        for place, way in enumerate(chosen):
            if report is not None:
                report(f"bytes of {way.name}", place, len(chosen))
            sizes.append(step_bytes(subjects, way, given[0]))
        seconds = step_seconds(subjects, chosen, given[0], rounds=rounds, report=report)
        noises = gradient_noise(subjects, chosen, given, draws=draws, seed=seed, report=report)
        pieces = saving_parts(subjects, FEW_ROWS, given[0]) if parts else []
    rows = [
        FrontRow(
            way=way,
            kept=size.kept,
            peak=size.peak,
            seconds=median(taken),
            ratio=median(one / first for one, first in zip(taken, seconds[0], strict=True)),
            noise=noise,
        )
        for way, size, taken, noise in zip(chosen, sizes, seconds, noises, strict=True)
    ]
    return FrontResult(
        stamp=stamp(seed=seed, device=device),
        model=model,
        layers=config.num_hidden_layers,
        batch_size=batch_size,
        length=length,
        target_length=target_length,
        dropout=_dropout_of(config),
        rounds=rounds,
        batches=batches,
        draws=draws,
        rows=rows,
        parts=[SavingPart(part=name, kept=size.kept, peak=size.peak or 0) for name, size in pieces],
    )


def _default(compiled: bool) -> list[Way]:
    ways = default_ways()
    return [*ways, *(Way(memory_budget=budget) for budget in (1.0, 0.3))] if compiled else ways


_DROPOUTS = ("dropout_rate", "hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop",
             "attn_pdrop", "dropout", "attention_dropout")  # fmt: skip


def _resize(config: object, layers: int | None, dropout: float | None) -> None:
    if layers is not None:
        checked_integer(layers, "layers", least=1)
        for name in ("num_hidden_layers", "num_decoder_layers"):
            if hasattr(config, name):
                setattr(config, name, layers)
    if dropout is not None:
        if not 0.0 <= dropout < 1.0:
            raise InputError(f"dropout={dropout!r} must be in [0, 1)")
        for name in _DROPOUTS:
            if isinstance(getattr(config, name, None), float):
                setattr(config, name, dropout)


def _dropout_of(config: object) -> float:
    return next((value for name in _DROPOUTS if isinstance(value := getattr(config, name, None), float)), 0.0)
