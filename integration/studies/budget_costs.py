"""What every budget costs a model: variance of the estimate, noise beside the minibatch's, and bytes of a step.

Only layers that training would sample count as sampled: those whose inputs are too small stay exact, and add to the
minibatch's variance alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from wtacrs.estimators import Estimator, InputError, spec
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS
from wtacrs.integration.layers.linear_layers import filter_of, is_linear_layer
from wtacrs.integration.measure.coverage import coverage
from wtacrs.integration.measure.memory import step_memory
from wtacrs.integration.models.loading import is_text_to_text
from wtacrs.integration.studies.capture import capture_task
from wtacrs.integration.studies.noise import noise_study, small_layers
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.batches import task_batches
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.layers.noise import layer_entries, model_noise
from wtacrs.validation.layers.scores import SCORE_KINDS
from wtacrs.validation.records.base import ScoreKind
from wtacrs.validation.records.budgets import BudgetNoise, NoiseThreshold, StepBytes
from wtacrs.validation.records.memory import StepMemory
from wtacrs.validation.records.noise import LayerNoise, ModelNoise
from wtacrs.validation.runner import Report, Runner
from wtacrs.validation.statistics.variance_cost import noise_threshold

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Budget = int | float


class BudgetCosts(NamedTuple):
    """What `budget_costs` found; mappings are by budget, `memory` has None for the exact step."""

    layers: int
    variance: dict[Budget, dict[str, float]]
    noise: dict[Budget, list[BudgetNoise]]
    memory: dict[Budget | None, StepBytes]

    @property
    def thresholds(self) -> list[NoiseThreshold]:
        """Where noise is that of the minibatch, by kind of scores."""
        kinds = dict.fromkeys(one.scores for found in self.noise.values() for one in found)
        return [
            NoiseThreshold(
                scores=kind,
                at=noise_threshold(
                    {b: o.ratio for b, found in self.noise.items() for o in found if o.scores == kind}
                ),
            )
            for kind in kinds
        ]


def first_batch(
    task: TaskData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: FinetuneConfig
) -> dict[str, Tensor]:
    """The batch whose step is measured: the first of those that are captured."""
    sizes = {"batch_size": config.batch_size, "max_length": config.max_length, "seed": config.seed}
    return next(task_batches(task, tokenizer, text_to_text=is_text_to_text(model), batches=1, **sizes))


def refuse_unsampled(model: PreTrainedModel, batch: Mapping[str, Tensor], config: FinetuneConfig) -> None:
    """Refuse a model of which no layer would be sampled, since all inputs are too small.

    Raises:
        InputError: naming the least size, and what batches have.
    """
    found = coverage(model, batch, filter_fn=filter_of(model, config.layers), min_rows=config.min_rows)
    if not any(entry.gradient == "estimated" for entry in found):
        raise InputError(
            f"batch_size={config.batch_size}, max_length={config.max_length}: no layer of this model would be sampled, "
            f"all inputs have fewer than {MIN_ELEMENTS:,} numbers or min_rows={config.min_rows} rows"
        )


def budget_costs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    estimators: Mapping[Budget, Estimator],
    captures: Path,
    config: FinetuneConfig,
    *,
    batches: int,
    draws: int,
    report: Report | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> BudgetCosts:
    """Capture the model on batches of training examples, dropout on, and take a step at every budget.

    Args:
        model: stock.
        tokenizer: the model's.
        task: whose training examples are captured.
        estimators: by budget.
        captures: the file.
        config: sizes of batches, the seed, and which layers are sampled.
        batches: that are captured, ≥ 2.
        draws: Monte Carlo draws of the variance where there is no closed form.
        report: called with what is measured.
        skipped: called with the name and the reason of a layer that is left out.

    Raises:
        InputError: as `capture_task`, `noise_study` and `step_memory`.
    """
    found = capture_task(
        model,
        tokenizer,
        task,
        captures,
        batches=batches,
        batch_size=config.batch_size,
        max_length=config.max_length,
        by_length=True,
        seed=config.seed,
    )
    noise = noise_study(
        found,
        list(estimators.values()),
        scores=SCORE_KINDS,
        draws=draws,
        seed=config.seed,
        runner=Runner(skipped=skipped, report=None if report is None else partial(_told, report)),
        min_elements=0,  # which layers are sampled is told below, by patterns too
    )
    names = _sampled(model, found, config)
    sampled = [row for row in noise.layers if row.layer in names]
    if not sampled:
        raise InputError(f"captures={captures}: no layer that would be sampled has a gradient in every batch")
    models = model_noise(noise.layers, {row.layer for row in noise.layers} - names)
    memory = _memory(model, first_batch(task, model, tokenizer, config), estimators, config, report)
    return BudgetCosts(
        layers=len({row.layer for row in sampled}),
        variance={budget: _relative(sampled, one) for budget, one in estimators.items()},
        noise={budget: _noise(models, one) for budget, one in estimators.items()},
        memory=memory,
    )


def _told(report: Report, label: str, done: int, total: int) -> None:
    report(f"noise of {label}", done, total)


def _sampled(model: PreTrainedModel, captures: Captures, config: FinetuneConfig) -> set[str]:
    """Layers that training would sample, by the size of their inputs in the first batch."""
    chosen = filter_of(model, config.layers)
    linear = {
        name
        for name, module in model.named_modules()
        if is_linear_layer(module) and (chosen is None or chosen(module, name))
    }
    captured = linear & layer_entries(captures).keys()
    return captured - small_layers(captures, captured, MIN_ELEMENTS, config.min_rows)


def _of(rows: Sequence[LayerNoise], estimator: Estimator) -> dict[ScoreKind, list[LayerNoise]]:
    found: dict[ScoreKind, list[LayerNoise]] = {}
    for row in rows:
        if row.estimator == spec(estimator):
            found.setdefault(row.scores, []).append(row)
    return found


def _relative(sampled: Sequence[LayerNoise], estimator: Estimator) -> dict[str, float]:
    """Medians over layers and batches of Var Ĝ / ‖G‖², where the gradient is not zero."""
    return {
        kind: median(
            variance / square
            for row in rows
            for variance, square in zip(row.variances, row.sizes or (), strict=True)
            if square > 0
        )
        for kind, rows in _of(sampled, estimator).items()
    }


def _noise(models: Sequence[ModelNoise], estimator: Estimator) -> list[BudgetNoise]:
    return [BudgetNoise(scores=one.scores, ratio=one.ratio) for one in models if one.estimator == spec(estimator)]


def _memory(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    estimators: Mapping[Budget, Estimator],
    config: FinetuneConfig,
    report: Report | None,
) -> dict[Budget | None, StepBytes]:
    ways: dict[Budget | None, str] = {None: "exact", **{budget: spec(one) for budget, one in estimators.items()}}
    found = {}
    for done, (budget, name) in enumerate(ways.items()):
        if report is not None:
            report(f"memory of {name}", done, len(ways))
        step = step_memory(
            model,
            batch,
            estimator=name,
            precision=config.precision,
            layers=config.layers,
            lean=config.lean,
            budget_of=config.budget_of,
            min_rows=config.min_rows,
        )
        found[budget] = _bytes(step)
    return found


def _bytes(step: StepMemory) -> StepBytes:
    return StepBytes(kept=step.total, linear=step.ours, peak=step.peak)
