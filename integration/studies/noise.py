"""Estimators against the noise of the minibatch: result file and figure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wtacrs.estimators import InputError, make
from wtacrs.figures.plots import noise as noise_figure
from wtacrs.integration.studies.layer_choice import chosen_names
from wtacrs.integration.studies.output import device_name, draw_or_remove, source_of
from wtacrs.validation.layers.candidates import candidates_from
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.layers.noise import LEVEL, layer_entries, model_noise, noise_of_layer
from wtacrs.validation.layers.scores import default_scores
from wtacrs.validation.records.base import ScoreKind, stamp
from wtacrs.validation.records.noise import LayerNoise, NoiseResult
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Runner, Task, file_mark
from wtacrs.validation.seeds import checked_seed

DEFAULT_ESTIMATORS = ("topk", "crs", "wta_crs", 'wta_crs(winners="optimal")')
DEFAULT_BUDGETS = (0.1, 0.3, 0.5)


def noise_study(
    captures: Captures,
    specs: Sequence[str],
    budgets: Sequence[int | float],
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] | None = None,
    draws: int = 64,
    seed: int = 0,
    device: str = "cpu",
    runner: Runner | None = None,
) -> NoiseResult:
    """Variance of every estimator over the minibatch variance: `noise.json` and `noise.png`.

    A spec without a budget is taken at every budget, a spec with one as it is. All captured batches are used.

    Raises:
        InputError: on an unusable spec, budget or layer, on captures of a single batch, and if no layer has any noise.
    """
    seed = checked_seed(seed)
    entries = layer_entries(captures)
    batches = {batch for found in entries.values() for batch in found}
    if len(batches) < 2:
        raise InputError(
            f"captures={captures.path}: holds one batch, and the noise between batches needs at least two: "
            "`wtacrs capture --batches 8`"
        )
    chosen = chosen_names(list(entries), layers)
    runner = Runner() if runner is None else runner
    estimators = [make(candidate.estimator) for candidate in candidates_from(specs, budgets)]
    kinds = default_scores(captures) if scores is None else scores
    tasks = [
        Task(
            key=f"noise {file_mark(captures.path)} {layer} {estimators} {list(kinds)} {draws} {seed} {device}",
            work=noise_of_layer,
            arguments=(captures.path, layer, estimators, tuple(kinds), draws, seed, device),
            label=layer,
        )
        for layer in chosen
    ]
    rows = runner.run(LayerNoise, tasks)
    if not rows:
        raise InputError(f"captures={captures.path}: no chosen layer has a gradient that differs between batches")
    inputs = source_of(captures) | {"draws": str(draws)}
    result = NoiseResult(
        stamp=stamp(seed=seed, device=device_name(device), inputs=inputs),
        level=LEVEL,
        models=model_noise(rows),
        layers=rows,
    )
    write_result(out / "noise.json", result)
    runner.forget()
    draw_or_remove(partial(noise_figure.draw, result), out / "noise.png")
    return result
