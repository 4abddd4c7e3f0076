"""Estimators against the noise of the minibatch: result file and figure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wtacrs.estimators import Estimator, InputError, make
from wtacrs.figures.plots import noise as noise_figure
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.least_elements import checked_min_elements, is_too_small
from wtacrs.integration.measure.lean_noise import lean_noise
from wtacrs.integration.models.loading import is_text_to_text, model_name
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies.layer_choice import chosen_names
from wtacrs.integration.studies.output import device_name, keep, source_of
from wtacrs.integration.tasks.base import TaskData, examples_digest
from wtacrs.integration.tasks.batches import task_batches
from wtacrs.validation.layers.candidates import candidates_from
from wtacrs.validation.layers.captures import Captures, opened_captures
from wtacrs.validation.layers.noise import LEVEL, layer_entries, model_noise, noise_of_layer
from wtacrs.validation.layers.scores import default_scores
from wtacrs.validation.records.base import ScoreKind, stamp
from wtacrs.validation.records.noise import LayerNoise, NoiseResult
from wtacrs.validation.runner import Runner, Task, code_mark, file_mark
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.summaries.series import series

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_ESTIMATORS = ("topk", "crs", "wta_crs", 'wta_crs(winners="optimal")')
DEFAULT_BUDGETS = (0.1, 0.3, 0.5)
LEAN_DRAWS = 4
"""Passes of the whole model on every batch, for each way to train that codes are compared with."""


def noise_study(
    captures: Captures | str | Path,
    specs: Sequence[str | Estimator] = DEFAULT_ESTIMATORS,
    budgets: Sequence[int | float] = DEFAULT_BUDGETS,
    out: str | Path | None = None,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] | None = None,
    draws: int = 64,
    seed: int = 0,
    device: str = "cpu",
    runner: Runner | None = None,
    lean: Sequence[str] = (),
    subject: Subject | None = None,
    min_elements: int = MIN_ELEMENTS,
) -> NoiseResult:
    """Variance of every estimator over the minibatch variance; writes `noise.json` and `noise.png`.

    A spec without a budget is taken at every budget, a spec with one as it is. All captured batches are used.

    Args:
        captures: layers on several batches, opened, or the name of the file.
        specs: estimators, or their specs.
        budgets: of those without one.
        out: folder of the files; nothing is written if None.
        layers: patterns of the names of layers; all if None.
        scores: kinds of scores; those that the captures have if None.
        draws: Monte Carlo draws per batch where there is no closed form.
        seed: of the draws.
        device: where estimators run.
        runner: of the pieces.
        lean: words of `LeanOptions` with codes, such as "8-bit": the captured model runs again on the captured batches,
            with codes alone, with the first unbiased estimator alone at every budget, and with both.
        subject: task and model of the captures, for `lean`.
        min_elements: a layer whose input has fewer numbers counts as exact in the model's noise, as in training.

    Raises:
        InputError: on an unusable spec, budget or layer, on captures of a single batch, if no layer has any noise, and if
            the inputs of all are too small; with `lean` also if the captures are not of `wtacrs capture`, or of a model
            that was trained first.
    """
    options = [LeanOptions.parse(words) for words in lean]
    seed = checked_seed(seed)
    min_elements = checked_min_elements(min_elements)
    captures = opened_captures(captures)
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
    mark = file_mark(captures.path) + code_mark(estimators)
    tasks = [
        Task(
            key=f"noise {mark} {layer} {estimators} {list(kinds)} {draws} {seed} {device}",
            work=noise_of_layer,
            arguments=(captures.path, layer, estimators, tuple(kinds), draws, seed, device),
            label=layer,
        )
        for layer in chosen
    ]
    opened = _opened(captures, subject) if options else None
    small = small_layers(captures, chosen, min_elements)
    if len(small) == len(chosen):
        raise InputError(
            f"min_elements={min_elements}: all chosen layers have inputs of fewer numbers, which training leaves exact; "
            "0 counts them as sampled"
        )
    rows = runner.run(LayerNoise, tasks)
    if not rows:
        raise InputError(f"captures={captures.path}: no chosen layer has a gradient that differs between batches")
    if all(row.layer in small for row in rows):
        raise InputError(
            f"min_elements={min_elements}: no larger layer has a gradient that differs between batches"
        )
    models = model_noise(rows, small)
    if opened is not None:
        unbiased = [estimator for estimator in estimators if estimator.traits.unbiased]
        first = [e for e in unbiased if series(repr(e)) == series(repr(unbiased[0]))]
        found = lean_noise(*opened, options, first, draws=LEAN_DRAWS, seed=seed)
        found = [row for row in found if row.layer in chosen]
        rows, models = [*rows, *found], [*models, *model_noise(found)]
    inputs = source_of(captures) | {"draws": str(draws), "min_elements": str(min_elements)}
    if options:
        inputs["lean"] = " ".join(map(str, options))
    result = NoiseResult(
        stamp=stamp(seed=seed, device=device_name(device), inputs=inputs),
        level=LEVEL,
        models=models,
        layers=rows,
    )
    keep(result, out, "noise.json", runner, {"noise.png": partial(noise_figure.draw, result)})
    return result


def small_layers(captures: Captures, layers: Collection[str], min_elements: int, min_rows: int = 0) -> set[str]:
    """Those of the layers that training leaves exact, by their inputs in their first batch."""
    entries = layer_entries(captures)
    first = {layer: next(iter(entries[layer].values()))[0] for layer in layers}
    return {layer for layer, entry in first.items() if is_too_small(captures[entry].x, min_elements, min_rows)}


def _opened(captures: Captures, subject: Subject | None) -> tuple[PreTrainedModel, list[Any]]:
    """The model in training mode and the batches that were captured."""
    told = captures.metadata
    sizes = {name: told[name] for name in ("batches", "batch_size", "max_length", "seed") if name in told}
    if len(sizes) < 4 or "step" in told:
        what = "of a model that was trained first" if "step" in told else "not written by `wtacrs capture`"
        raise InputError(f"captures={captures.path}: {what}, which cannot run again for lean")
    task = _captured_task(captures, Subject() if subject is None else subject)
    model, tokenizer = (subject or Subject()).open(task, sizes["seed"])
    if model_name(model) != told["model"]:
        raise InputError(f"model={model_name(model)!r}: the captures are of {told['model']!r}")
    by_length = bool(told.get("by_length"))
    batches = list(task_batches(task, tokenizer, by_length, text_to_text=is_text_to_text(model), **sizes))
    return model.train(), batches


def _captured_task(captures: Captures, subject: Subject) -> TaskData:
    told = captures.metadata
    if subject.files is None:
        if "files" in told:
            given = " ".join(f"{name}={value}" for name, value in told["files"].items() if name != "examples")
            raise InputError(f"captures={captures.path}: made of own files ({given}); give them again, by --train")
        return replace(subject, task=str(told.get("task"))).load()
    task = subject.load(needs_dev=False)
    if examples_digest(task.train) != told.get("examples"):
        raise InputError(f"captures={captures.path}: made of other examples than those of {subject.files.train}")
    return task
