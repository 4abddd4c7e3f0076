"""Training runs by how much they say: those of experiments first, then those that sample, then the longest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from wtacrs.figures.sections.blocks import Named
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRow
from wtacrs.validation.records.training import TrainingResult

Results = Sequence[Named[Result]]


class Evidence(NamedTuple):
    """The runs of one task, model, batch size and length by method; of an experiment by label."""

    task: str
    model: str
    methods: Mapping[str, Sequence[Named[TrainingResult]]]
    experiment: Named[ExperimentResult] | None = None


def evidence(results: Results) -> list[Evidence]:
    """All groups of runs that are not exact with stock neighbours, those that say most first."""
    groups = [*_of_experiments(results), *_of_runs(results)]
    return sorted(groups, key=_rank)


def runs_of(results: Results) -> Iterator[Named[TrainingResult]]:
    """The training runs that have a file of their own."""
    for file, result in results:
        if isinstance(result, TrainingResult):
            yield Named(file, result)


def experiments_of(results: Results) -> Iterator[Named[ExperimentResult]]:
    """The experiments."""
    for file, result in results:
        if isinstance(result, ExperimentResult):
            yield Named(file, result)


def samples(run: TrainingResult) -> bool:
    """Whether an estimator trained layers and kept less than their inputs."""
    return run.estimator != "exact" and not keeps_all(run)


def keeps_all(run: TrainingResult) -> bool:
    """Whether the receipt says that the estimator keeps as much as the inputs, as with a budget beyond the rows."""
    receipt = run.receipt
    return receipt is not None and receipt.layers > 0 and receipt.copies >= receipt.inputs


def steps_of(run: TrainingResult) -> int:
    """How many steps it had; 0 where that is not known."""
    return run.history[-1].step if run.history else 0


def compared_rows(result: ExperimentResult) -> list[ExperimentRow]:
    """The rows of estimators.

    Adapters are left out where a method trains all weights: their difference is also that of fewer weights.
    """
    rows = [row for row in result.rows if row.standing is not None and row.estimator != "exact"]
    return [row for row in rows if not adapters(result, row)] or rows


def adapters(result: ExperimentResult, row: ExperimentRow) -> bool:
    """Whether the runs of a row train fewer weights than the model has."""
    run = next((run.result for run in result.runs if run.label == row.label), None)
    return run is not None and run.trainable is not None and run.trainable < run.parameters


def _of_experiments(results: Results) -> Iterator[Evidence]:
    for named in experiments_of(results):
        labels = [row.label for row in compared_rows(named.result)]
        methods = {
            label: [Named(named.file, run.result) for run in named.result.runs if run.label == label]
            for label in labels
        }
        if labels and all(methods.values()):
            first = named.result.runs[0].result
            yield Evidence(first.task, first.model, methods, named)


def _of_runs(results: Results) -> Iterator[Evidence]:
    found: dict[tuple[object, ...], dict[str, list[Named[TrainingResult]]]] = {}
    for named in runs_of(results):
        run = named.result
        if run.method != "exact":
            key = (run.task, run.model, _batch_size(run), steps_of(run))
            found.setdefault(key, {}).setdefault(run.method, []).append(named)
    for methods in found.values():
        first = next(iter(methods.values()))[0].result
        yield Evidence(first.task, first.model, told_of(methods))


def told_of(methods: Mapping[str, list[Named[TrainingResult]]]) -> dict[str, list[Named[TrainingResult]]]:
    """The methods that sample; where none does, all."""
    sampled = {method: runs for method, runs in methods.items() if samples(runs[0].result)}
    return sampled or dict(methods)


def _batch_size(run: TrainingResult) -> int:
    last = run.history[-1] if run.history else None
    return 0 if last is None or not last.step else round(run.train_size * last.epoch / last.step)


def _rank(group: Evidence) -> tuple[bool, bool, int, int]:
    runs = [run.result for found in group.methods.values() for run in found]
    return group.experiment is None, not samples(runs[0]), -max(map(steps_of, runs)), -len(runs)
