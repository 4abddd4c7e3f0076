"""Accuracy and gradient variance at every budget, beside exact training, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

from wtacrs.estimators import Estimator, make
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.sizing import missing_size, sized
from wtacrs.figures.plots import budgets as budgets_figure
from wtacrs.integration.models.loading import load_model
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies.capture import capture_task
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.studies.runs import planned_runs, train_in
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.dry_run import begin_work, is_dry_run
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.layers.compare import compare
from wtacrs.validation.layers.scores import SCORE_KINDS
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.budgets import BudgetPoint, BudgetsResult, Difference, Scores
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.runner import Runner
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.summaries.compare import LayerMedian, layer_medians
from wtacrs.validation.summaries.series import series

DEFAULT_BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)
LEVEL = 0.95


def budgets_study(
    subject: Subject,
    config: FinetuneConfig,
    estimator: str,
    budgets: Sequence[int | float],
    seeds: int,
    out: Path,
    *,
    draws: int = 200,
    overwrite: bool = False,
    progress: bool = False,
    skipped: Callable[[str, str], None] | None = None,
) -> BudgetsResult:
    """Fine-tune exactly and at every budget from the same starts, and measure the variance on the exact model.

    The folder receives `budgets.json`, `budgets.png`, `captures.safetensors` (of the first exactly trained model, on
    one batch of training examples, dropout on) and every run in a folder of its own; the same
    settings continue an interrupted study, and more budgets or seeds train only what is new.

    Args:
        subject: task and model.
        config: how to train; its estimator and seed are those of the runs.
        estimator: a spec whose budget is left out, or written `{budget}` where it lies inside.
        budgets: fractions of the rows (float) or numbers of rows (int).
        seeds: number of runs per budget; their seeds are `config.seed`, `config.seed` + 1 and so on.
        out: the folder.
        draws: Monte Carlo draws of the variance where there is no closed form.
        overwrite: start anew whatever the folder holds.
        progress: show progress lines on stderr.
        skipped: called with the name and the reason of a captured layer that is left out.

    Raises:
        InputError: on an unusable spec, budget or folder, or as `finetune`.
    """
    if seeds < 1:
        raise InputError(f"seeds={seeds}: at least 1 is needed")
    checked_seed(config.seed + seeds - 1, f"seeds={seeds} from seed={config.seed} on: the last seed")
    chosen = _at_budgets(estimator, budgets)
    task = subject.load()
    numbers = [config.seed + i for i in range(seeds)]

    folders = [out / name / f"seed-{n}" for name in ("exact", *(f"budget-{b}" for b in chosen)) for n in numbers]
    if is_dry_run():
        subject.open(task, config.seed)
    begin_work(
        f"{subject.name} on {task.name}: {len(folders)} runs of {config.steps} steps",
        *planned_runs(folders, overwrite=overwrite),
        f"writes {out / 'budgets.json'}",
    )

    def runs(name: str, spec: str | None) -> list[TrainingResult]:
        return [
            train_in(
                out / name / f"seed-{seed}",
                config.but(estimator=spec, seed=seed),
                subject,
                task,
                overwrite=overwrite,
                progress=progress,
            )
            for seed in numbers
        ]

    exact = runs("exact", None)
    estimated = {budget: runs(f"budget-{budget}", repr(ready)) for budget, ready in chosen.items()}
    captures = _capture(out, task, config, numbers[0])
    medians = _variances(captures, list(chosen.values()), draws, config.seed, skipped)
    return _write(out, subject, config, task, numbers, exact, estimated, chosen, medians)


def at_budget(spec: str, budget: int | float) -> Estimator:
    """The estimator of a spec that leaves its budget out, or has `{budget}` where it belongs.

    >>> at_budget("crs", 0.3), at_budget("control_variate(rank=4, rows=crs(budget={budget}))", 8).rows
    (crs(budget=0.3), crs(budget=8))

    Raises:
        InputError: on a spec that has a budget already or is unusable, or an unusable budget.
    """
    if "{budget}" in spec:
        return make(spec.replace("{budget}", repr(budget)))
    if missing_size(spec) == "budget":
        return sized(spec, budget)
    make(spec)  # a spec that is unusable altogether says so itself
    raise InputError(
        f"estimator={spec!r}: leave the budget out, as in 'wta_crs', or write {{budget}} for it: it is given apart"
    )


def _at_budgets(estimator: str, budgets: Sequence[int | float]) -> dict[int | float, Estimator]:
    if not budgets:
        raise InputError("budgets: at least one is needed")
    found: dict[int | float, Estimator] = {}
    for budget in budgets:
        # 1 row and 1.0 of the rows are equal as numbers
        if any(budget == other for other in found):
            raise InputError(f"budget={budget} is given twice")
        found[budget] = at_budget(estimator, budget)
    return dict(sorted(found.items()))


def _capture(out: Path, task: TaskData, config: FinetuneConfig, seed: int) -> Captures:
    model, tokenizer = load_model(str(out / "exact" / f"seed-{seed}" / "last"), task)
    return capture_task(
        model,
        tokenizer,
        task,
        out / "captures.safetensors",
        batches=1,
        batch_size=min(config.batch_size, len(task.train)),
        max_length=config.max_length,
        seed=seed,
    )


def _variances(
    captures: Captures,
    estimators: Sequence[Estimator],
    draws: int,
    seed: int,
    skipped: Callable[[str, str], None] | None,
) -> list[LayerMedian]:
    runner = Runner(skipped=skipped)
    rows = compare(captures, estimators, scores=SCORE_KINDS, draws=draws, seed=seed, runner=runner)
    return layer_medians(rows)


def _write(
    out: Path,
    subject: Subject,
    config: FinetuneConfig,
    task: TaskData,
    seeds: Sequence[int],
    exact: Sequence[TrainingResult],
    estimated: dict[int | float, list[TrainingResult]],
    chosen: dict[int | float, Estimator],
    medians: Sequence[LayerMedian],
) -> BudgetsResult:
    size = len(task.dev) if task.metrics[0] == "accuracy" else None
    base = [run.final for run in exact]
    points = [
        BudgetPoint(
            budget=budget,
            scores=scores_over_seeds([run.final for run in runs], size),
            difference=difference([run.final for run in runs], base, size),
            variance={m.scores: m.variance for m in medians if m.budget == budget},
        )
        for budget, runs in estimated.items()
    ]
    settings = {key: str(getattr(config, key)) for key in ("steps", "batch_size", "lr", "max_length")}
    result = BudgetsResult(
        stamp=stamp(seed=config.seed, device=exact[0].stamp.device, inputs=subject.described | settings),
        task=task.name,
        model=exact[0].model,
        estimator=series(repr(next(iter(chosen.values())))),
        metric=task.metrics[0],
        majority=task.majority,
        dev_size=len(task.dev),
        steps=exact[0].history[-1].step,
        seeds=seeds,
        layers=max((m.layers for m in medians), default=0),
        exact=scores_over_seeds(base, size),
        points=points,
    )
    write_result(out / "budgets.json", result)
    draw_or_remove(partial(budgets_figure.draw, result), out / "budgets.png")
    return result


def scores_over_seeds(values: Sequence[float], dev_size: int | None) -> Scores:
    """Mean and standard errors of a metric over seeds; `dev_size` is None for a metric that is no accuracy."""
    mean = fmean(values)
    return Scores(
        values=list(values),
        mean=mean,
        seed_error=stdev(values) / len(values) ** 0.5 if len(values) > 1 else None,
        dev_error=None if dev_size is None else (mean * (1 - mean) / dev_size) ** 0.5,
    )


def difference(values: Sequence[float], exact: Sequence[float], dev_size: int | None) -> Difference:
    """Mean of the paired differences with its 95 % interval; see `Difference` for what the interval holds."""
    paired = [a - b for a, b in zip(values, exact, strict=True)]
    mean = fmean(paired)
    halves = []
    if len(paired) > 1:
        quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(paired) - 1))
        halves.append(quantile * stdev(paired) / len(paired) ** 0.5)
    if dev_size is not None:
        sampling = sum(p * (1 - p) for p in (fmean(values), fmean(exact))) / dev_size
        halves.append(float(stats.norm.ppf((1 + LEVEL) / 2)) * sampling**0.5)
    if not halves:
        return Difference(value=mean, low=None, high=None)
    half = sum(each**2 for each in halves) ** 0.5
    return Difference(value=mean, low=mean - half, high=mean + half)
