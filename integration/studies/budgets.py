"""Accuracy, gradient variance and memory at every budget, beside exact training, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

from wtacrs.estimators import Estimator, make
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.sizing import missing_size, sized
from wtacrs.figures.plots import budgets as budgets_figure
from wtacrs.integration.models.loading import load_model, model_name
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies.budget_costs import BudgetCosts, budget_costs, first_batch, refuse_unsampled
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.studies.runs import planned_runs, train_over_seeds
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.batches import require_examples, without_captured
from wtacrs.integration.training.before_capture import train_for_capture
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.records.base import counted, stamp
from wtacrs.validation.records.budgets import BudgetPoint, BudgetsResult, Difference, Scores, VarianceCost
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.statistics.equivalence import check_margin, nothing_learned
from wtacrs.validation.statistics.variance_cost import variance_cost
from wtacrs.validation.summaries.series import series

DEFAULT_BUDGETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
LEVEL = 0.95
MARGIN = 0.01
CAPTURED = 4
"""Batches that variance and minibatch noise are measured on."""
_EXACT = "exact"


def budgets_study(
    subject: Subject,
    config: FinetuneConfig,
    estimator: str,
    budgets: Sequence[int | float],
    seeds: int,
    out: Path,
    *,
    average_last: int = 1,
    margin: float = MARGIN,
    captured: int = CAPTURED,
    draws: int = 200,
    overwrite: bool = False,
    progress: bool = False,
    skipped: Callable[[str, str], None] | None = None,
) -> BudgetsResult:
    """Fine-tune exactly and at every budget from the same starts; measure variance and memory on the exact model.

    The folder receives `budgets.json`, `budgets.png`, `captures.safetensors` (of the first exactly trained model, on
    batches of training examples, dropout on) and every run in a folder of its own; the first exact run alone keeps its
    weights. The same settings continue an interrupted study, and more budgets or seeds train only what is new.

    Args:
        subject: task and model; with `held_out` every seed has dev examples of its own.
        config: how to train; its estimator and seed are those of the runs.
        estimator: a spec whose budget is left out, or written `{budget}` where it lies inside.
        budgets: fractions of the rows (float), or numbers of rows (int).
        seeds: number of runs per budget; their seeds are `config.seed`, `config.seed` + 1 and so on.
        out: the folder.
        average_last: a run counts by the mean of its last evaluations.
        margin: a loss of the metric that counts, > 0: the threshold is where variance costs it.
        captured: batches that variance is measured on, ≥ 2.
        draws: Monte Carlo draws of the variance where there is no closed form.
        overwrite: start anew whatever the folder holds.
        progress: show progress lines of the training on stderr.
        skipped: called with the name and the reason of a captured layer that is left out.

    Raises:
        InputError: on an unusable spec, budget or folder, on a model of which no layer would be sampled, or as
            `finetune`.
    """
    if seeds < 1:
        raise InputError(f"seeds={seeds}: at least 1 is needed")
    checked_seed(config.seed + seeds - 1, f"seeds={seeds} from seed={config.seed} on: the last seed")
    check_margin(margin, (1 - LEVEL) / 2)
    if config.lora_rank is not None:
        raise InputError(f"lora_rank={config.lora_rank}: budgets are measured with all weights in training")
    config.check_average(average_last)
    chosen = at_budgets(estimator, budgets)
    task = subject.load(config.seed) if subject.held_out is not None else subject.load()
    _check_captured(task, captured, config)
    numbers = [config.seed + i for i in range(seeds)]
    settings = {_EXACT: config} | {_named(b): config.but(estimator=repr(one)) for b, one in chosen.items()}
    folders = {name: out / name for name in settings}
    planned = [folder / f"seed-{number}" for folder in folders.values() for number in numbers]
    model, tokenizer = subject.open(task, config.seed)
    refuse_unsampled(model, first_batch(task, model, tokenizer, config), config)
    begin_work(
        f"{subject.name} on {task.name}: {len(planned)} runs of {config.steps} steps",
        *planned_runs(planned, overwrite=overwrite),
        f"writes {out / 'budgets.json'}",
    )
    found = train_over_seeds(
        settings,
        folders,
        numbers,
        subject,
        task,
        with_weights={(_EXACT, numbers[0])},
        overwrite=overwrite,
        progress=progress,
    )
    model, tokenizer = load_model(str(folders[_EXACT] / f"seed-{numbers[0]}" / "last"), task)
    costs = budget_costs(
        model,
        tokenizer,
        task,
        chosen,
        out / "captures.safetensors",
        config,
        batches=captured,
        draws=draws,
        skipped=skipped,
    )
    first = found[_EXACT, numbers[0]]
    # of dev examples that every seed has for itself the seeds tell the error
    size = first.dev_size if first.metric == "accuracy" and not (subject.held_out and seeds > 1) else None
    values = {name: [found[name, number].last(average_last) for number in numbers] for name in settings}
    exact = values[_EXACT]
    runs = {budget: values[_named(budget)] for budget in chosen}
    points = [
        point.model_copy(
            update={
                "scores": scores_over_seeds(runs[point.budget], size),
                "difference": difference(runs[point.budget], exact, size),
            }
        )
        for point in _points(costs)
    ]
    result = _result(subject, config, task, chosen, costs, captured, first.stamp.device).model_copy(
        update={
            "model": first.model,
            "dev_size": first.dev_size,
            "steps": first.history[-1].step,
            "seeds": numbers,
            "exact": scores_over_seeds(exact, size),
            "points": points,
            "average_last": average_last,
            "cost": _cost(exact, runs, points, margin, task.majority),
        }
    )
    return _written(result, out)


def untrained_budgets_study(
    subject: Subject,
    config: FinetuneConfig,
    estimator: str,
    budgets: Sequence[int | float],
    out: Path,
    *,
    after: int = 0,
    captured: int = CAPTURED,
    draws: int = 200,
    report: Report | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> BudgetsResult:
    """Variance and memory at every budget without the runs, of a model too large to train.

    The folder receives `budgets.json` and `budgets.png`; captures, which may be gigabytes, are removed.

    Args:
        subject: task and model.
        config: sizes of batches, the seed, and the rate of the exact steps.
        estimator: as in `budgets_study`.
        budgets: as in `budgets_study`.
        out: the folder.
        after: exact steps before the measurement, on other examples than those that are captured.
        captured: batches that variance is measured on, ≥ 2.
        draws: Monte Carlo draws of the variance where there is no closed form.
        report: called with what is measured.
        skipped: called with the name and the reason of a captured layer that is left out.

    Raises:
        InputError: on an unusable spec or budget, and on anything that cannot be loaded or measured.
    """
    chosen = at_budgets(estimator, budgets)
    task = subject.load(config.seed, needs_dev=False)
    _check_captured(task, captured, config)
    rest = without_captured(task, captured * config.batch_size, config.seed) if after else task
    model, tokenizer = subject.open(task, config.seed)
    refuse_unsampled(model, first_batch(task, model, tokenizer, config), config)
    begin_work(
        f"{subject.name} on {task.name}: {counted(after, 'exact step')}, then variance on "
        f"{counted(captured, 'batch', 'batches')} and a step at {counted(len(chosen), 'budget')}",
        f"writes {out / 'budgets.json'}",
    )
    if after:
        train_for_capture(
            model,
            tokenizer,
            rest,
            steps=after,
            lr=config.lr,
            batch_size=config.batch_size,
            max_length=config.max_length,
            seed=config.seed,
        )
    captures = out / "captures.safetensors"
    try:
        costs = budget_costs(
            model,
            tokenizer,
            task,
            chosen,
            captures,
            config,
            batches=captured,
            draws=draws,
            report=report,
            skipped=skipped,
        )
    finally:
        captures.unlink(missing_ok=True)
    result = _result(subject, config.but(steps=None), task, chosen, costs, captured)
    return _written(result.model_copy(update={"model": model_name(model), "steps": after}), out)


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


def at_budgets(estimator: str, budgets: Sequence[int | float]) -> dict[int | float, Estimator]:
    """The estimator at every budget, by rising budget.

    Raises:
        InputError: as `at_budget`; on no budget, one given twice, and fractions beside numbers of rows.
    """
    if not budgets:
        raise InputError("budgets: at least one is needed")
    if len({type(budget) for budget in budgets}) > 1:
        raise InputError(f"budgets={list(budgets)}: fractions and numbers of rows have no axis in common")
    found: dict[int | float, Estimator] = {}
    for budget in budgets:
        if budget in found:
            raise InputError(f"budget={budget} is given twice")
        found[budget] = at_budget(estimator, budget)
    return dict(sorted(found.items()))


def _named(budget: int | float) -> str:
    return f"budget-{budget}"


def _check_captured(task: TaskData, captured: int, config: FinetuneConfig) -> None:
    if captured < 2:
        raise InputError(f"captured={captured}: the noise between batches needs at least two")
    require_examples(task, captured, config.batch_size)


def _points(costs: BudgetCosts) -> list[BudgetPoint]:
    return [
        BudgetPoint(budget=budget, variance=variance, noise=costs.noise[budget], memory=costs.memory[budget])
        for budget, variance in costs.variance.items()
    ]


def _result(
    subject: Subject,
    config: FinetuneConfig,
    task: TaskData,
    chosen: Mapping[int | float, Estimator],
    costs: BudgetCosts,
    captured: int,
    device: str = "cpu",
) -> BudgetsResult:
    """What is known without the runs."""
    settings = {key: getattr(config, key) for key in ("steps", "batch_size", "lr", "max_length")}
    inputs = subject.described | {key: str(value) for key, value in settings.items() if value is not None}
    return BudgetsResult(
        stamp=stamp(seed=config.seed, device=device, inputs=inputs),
        task=task.name,
        model=subject.name,
        estimator=series(repr(next(iter(chosen.values())))),
        metric=task.metrics[0],
        majority=task.majority,
        dev_size=len(task.dev),
        steps=0,
        seeds=[],
        layers=costs.layers,
        points=_points(costs),
        batches=captured,
        memory=costs.memory[None],
        noise_thresholds=costs.thresholds,
    )


def _cost(
    exact: Sequence[float],
    runs: Mapping[int | float, Sequence[float]],
    points: Sequence[BudgetPoint],
    margin: float,
    majority: float,
) -> VarianceCost | None:
    """By the scores that training samples by; None where one seed or nothing learned tells nothing."""
    if len(exact) < 2 or nothing_learned(exact, majority):
        return None
    kinds = list(points[0].variance)
    kind = "row-norms" if "row-norms" in kinds else kinds[0]
    variances = {point.budget: point.variance[kind] for point in points}
    if not any(variances.values()):
        return None
    return variance_cost(exact, runs, variances, margin=margin, level=LEVEL, scores=kind)


def _written(result: BudgetsResult, out: Path) -> BudgetsResult:
    write_result(out / "budgets.json", result)
    draw_or_remove(partial(budgets_figure.draw, result), out / "budgets.png")
    return result


def scores_over_seeds(values: Sequence[float], dev_size: int | None) -> Scores:
    """Mean and standard errors of a metric over seeds; `dev_size` is None where its error is unknown or in the seeds'."""
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
