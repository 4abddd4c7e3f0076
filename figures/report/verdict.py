"""What results say together, in plain words: accuracy, memory, time, noise, and whether checkpointing does better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean, median, stdev
from typing import NamedTuple

from scipy import stats

from wtacrs.figures.sections.blocks import Named, percent
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRow
from wtacrs.validation.records.front import FrontResult, FrontRow
from wtacrs.validation.records.memory import MemoryResult, megabytes
from wtacrs.validation.records.noise import NoiseResult, in_percent
from wtacrs.validation.records.simulation import SimulationResult
from wtacrs.validation.records.training import TrainingResult

Results = Sequence[Named[Result]]
_SHOWN = 1


class Sentence(NamedTuple):
    """What is said about a topic, and the files that its numbers are from; without any it is unknown."""

    topic: str
    text: str
    files: Sequence[str] = ()


class Pair(NamedTuple):
    """An estimated run and the exact one of the same task, model, data size, steps and seed."""

    run: Named[TrainingResult]
    exact: Named[TrainingResult]


def verdict(results: Results) -> list[Sentence]:
    """Five sentences at most, one for each topic; what is not known is said."""
    return [_accuracy(results), _memory(results), _time(results), _noise(results), _checkpointing(results)]


def pairs(results: Results) -> list[Pair]:
    """Every training run that is not exact with stock neighbours, beside the first exact one alike in all else."""
    runs = list(_training(results))
    exact = {_setting(run.result): run for run in reversed(runs) if run.result.method == "exact"}
    return [
        Pair(run, exact[_setting(run.result)])
        for run in runs
        if run.result.method != "exact" and _setting(run.result) in exact
    ]


def _training(results: Results) -> Iterator[Named[TrainingResult]]:
    for file, result in results:
        if isinstance(result, TrainingResult):
            yield Named(file, result)


def _setting(run: TrainingResult) -> tuple[object, ...]:
    steps = run.history[-1].step if run.history else None
    return run.task, run.model, run.metric, run.train_size, run.dev_size, run.trainable, steps, run.stamp.seed


def _with(model: str, text: str) -> str:
    return f"with {model}, {text}"


def _told(topic: str, parts: Sequence[tuple[str, str]], missing: str) -> Sentence:
    """The first few parts as one sentence, and how many more there are."""
    if not parts:
        return Sentence(topic, missing)
    more = len(parts) - _SHOWN
    text = "; ".join(part for part, _ in parts[:_SHOWN])
    if text.startswith("with "):
        text = f"W{text[1:]}"
    files = list(dict.fromkeys(file for _, file in parts[:_SHOWN]))
    return Sentence(topic, f"{text}{f'; {more} more are in the evidence' if more > 0 else ''}.", files)


def _accuracy(results: Results) -> Sentence:
    parts = _experiments(results)
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs(results):
        run = pair.run.result
        group = groups.setdefault((run.method, *_setting(run)[:-1]), [])
        if all(other.run.result.stamp.seed != run.stamp.seed for other in group):  # a repetition is no other seed
            group.append(pair)
    for group in groups.values():
        files = ", ".join(dict.fromkeys(named.file for pair in group for named in pair))
        parts.append((_difference(group), files))
    runs = list(_training(results))
    every = _tally(results)
    if every and parts:
        parts[0] = (f"{parts[0][0]}; {every}", parts[0][1])
    if not runs:
        missing = "No training run is here: accuracy is not known (wtacrs finetune)."
    elif all(run.result.method == "exact" for run in runs):
        missing = "Only exact runs are here: there is nothing to compare their accuracy with."
    else:
        missing = "No exact run of the same task, model and seed is here: accuracy cannot be compared."
    return _told("Accuracy", parts, missing)


def _experiments(results: Results) -> list[tuple[str, str]]:
    """One part per experiment; those that decide most come first, those that learned nothing last."""
    found = [named for named in results if isinstance(named.result, ExperimentResult)]
    told = [(_telling(named.result), named.file) for named in found if isinstance(named.result, ExperimentResult)]
    ranked = sorted(
        (part for part in told if part[0] is not None), key=lambda part: part[0].rank if part[0] else 0
    )
    return [(telling.text, file) for telling, file in ranked if telling is not None]


def _tally(results: Results) -> str:
    """Verdicts over all experiments that learned something, so that the one that is told is no choice of the best."""
    found = [result for _, result in results if isinstance(result, ExperimentResult)]
    verdicts = [row.standing.verdict for one in found for row in one.rows if row.standing is not None]
    counts = Counter(verdict for verdict in verdicts if verdict != "nothing learned")
    if len(found) < 2 or not counts:
        return ""
    told = ", ".join(f"{many} {kind}" for kind, many in counts.most_common())
    return f"over all {len(found)} experiments the comparisons end {told}"


class _Telling(NamedTuple):
    rank: int
    text: str


def _telling(result: ExperimentResult) -> _Telling | None:
    """How many methods are worse, equivalent or undecided, and the one that is furthest from exact full training.

    Adapters are left out where a method trains all weights: their difference is also that of fewer weights.
    """
    rows = [row for row in result.rows if row.standing is not None and row.estimator != "exact"]
    full = [row for row in rows if not _adapters(result, row)]
    rows = full or rows
    if not rows:
        return None
    counts = Counter(row.standing.verdict for row in rows if row.standing is not None)
    row = max(rows, key=lambda one: abs(one.standing.difference) if one.standing is not None else 0.0)
    standing = row.standing
    assert standing is not None
    run = result.runs[0].result
    side = "above" if standing.difference > 0 else "below"
    count = ""
    if len(rows) > 1:
        count = (
            f"{len(rows)} methods: {', '.join(f'{many} {kind}' for kind, many in counts.items())}; the furthest, "
        )
    text = (
        f"On {run.task} with {run.model}, {count}{row.label}, ends {100 * abs(standing.difference):.1f} points of "
        f"{result.metric} {side} exact {'training of all weights' if not full else 'training'}, "
        f"{1 - 2 * standing.level:.0%} interval {_points(standing.low)} to {_points(standing.high)}: "
        f"{_decided(standing.verdict, float(result.config['margin']))} ({standing.seeds} seeds)"
    )
    if not count:
        text = text.replace(f"{row.label}, ends", f"{row.label} ends", 1)
    learned = "nothing learned" not in counts
    decided = sum(many for kind, many in counts.items() if kind != "undecided")
    return _Telling(-decided if learned else 1, text)


def _adapters(result: ExperimentResult, row: ExperimentRow) -> bool:
    run = next((run.result for run in result.runs if run.label == row.label), None)
    return run is not None and run.trainable is not None and run.trainable < run.parameters


def _decided(verdict: str, margin: float) -> str:
    return f"{verdict} within {100 * margin:g} points" if verdict in ("equivalent", "undecided") else verdict


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _difference(group: Sequence[Pair]) -> str:
    run, exact = group[0].run.result, group[0].exact.result
    mine = fmean(pair.run.result.final for pair in group)
    theirs = fmean(pair.exact.result.final for pair in group)
    text = (
        f"{run.method} ends at {run.metric} {mine:.3f} on {run.task}, exact at {theirs:.3f}: a difference of "
        f"{mine - theirs:+.3f}"
    )
    if len(group) > 1:
        found = [pair.run.result.final - pair.exact.result.final for pair in group]
        half = float(stats.t.ppf(0.975, len(found) - 1)) * stdev(found) / math.sqrt(len(found))
        kind = f"95% interval over {len(found)} paired seeds"
    elif run.metric == "accuracy":
        half = 1.96 * math.sqrt((mine * (1 - mine) + theirs * (1 - theirs)) / run.dev_size)
        kind = f"one seed; 95% interval from {run.dev_size:,} dev examples alone, seeds vary more"
    else:
        return f"{text} (one seed: no interval for {exact.metric})"
    return f"{text} ({kind}: {mine - theirs - half:+.3f} to {mine - theirs + half:+.3f})"


def _memory(results: Results) -> Sentence:
    parts: list[tuple[str, str]] = []
    for file, result in results:
        if isinstance(result, TrainingResult) and result.method != "exact":
            if result.kept_bytes is not None and result.exact_bytes:
                parts.append((_with(result.model, _kept_by(result, result.kept_bytes, result.exact_bytes)), file))
        elif isinstance(result, MemoryResult):
            first = result.steps[0]
            parts += [
                (
                    f"with {result.model}, {step.name} keeps {_share(step.total, first.total)} and peaks at "
                    f"{_share(step.peak, first.peak)} of {first.name}",
                    file,
                )
                for step in result.steps[1:]
                if not step.checkpointing
            ]
        elif isinstance(result, FrontResult):
            base = result.rows[0]
            parts += [
                (
                    f"with {result.model}, {row.way.name} keeps {_share(row.kept, base.kept)} and peaks at "
                    f"{_share(row.peak, base.peak)} of {base.way.name}",
                    file,
                )
                for row in _estimated(result)
            ]
    return _told("Memory", parts, "Memory was not measured: wtacrs memory shows kept bytes and peak beside exact.")


def _kept_by(run: TrainingResult, kept: int, exact: int) -> str:
    text = (
        f"{run.method} keeps {megabytes(kept)} MB for the backward pass, {kept / exact:.0%} of the "
        f"{megabytes(exact)} MB of exact"
    )
    mine = None if run.step is None else run.step.peak_bytes
    theirs = None if run.baseline is None else run.baseline.peak_bytes
    peak = f"the peak is {_share(mine, theirs)}" if mine and theirs else "the peak was not measured"
    return f"{text}, and {peak}"


def _share(size: int | None, exact: int | None) -> str:
    return "an unknown share" if size is None or not exact else f"{size / exact:.0%}"


def _time(results: Results) -> Sentence:
    caution = "measured on this machine as it was, other load included"
    parts: list[tuple[str, str]] = []
    paired = {pair.run.file: pair.exact for pair in pairs(results)}
    for file, result in results:
        if isinstance(result, TrainingResult) and result.method != "exact":
            if result.time_ratios:
                ratio = f"{median(result.time_ratios):.2f} times that of exact, by {len(result.time_ratios)} steps"
                parts.append((_with(result.model, f"a step of {result.method} takes {ratio}"), file))
            elif file in paired:
                mine, exact = _seconds(result), _seconds(paired[file].result)
                if mine and exact:
                    text = f"a step of {result.method} takes {mine:.3g} s, one of exact {exact:.3g} s"
                    parts.append(
                        (_with(result.model, f"{text} (runs one after the other)"), f"{file}, {paired[file].file}")
                    )
        elif isinstance(result, FrontResult):
            base = result.rows[0].way.name
            parts += [
                (f"with {result.model}, a step of {row.way.name} takes {row.ratio:.2f} times that of {base}", file)
                for row in _estimated(result)
            ]
    found = _told("Time", parts, "Time beside exact was not measured: wtacrs study front compares steps in turns.")
    return found._replace(text=f"{found.text[:-1]} ({caution}).") if parts else found


def _seconds(run: TrainingResult) -> float | None:
    """Mean seconds of a step."""
    last = run.history[-1] if run.history else None
    return None if last is None or not last.step else last.seconds / last.step


def _noise(results: Results) -> Sentence:
    parts = []
    for file, result in results:
        if isinstance(result, NoiseResult):
            parts += [
                (f"{one.estimator} adds {one.ratio} to the gradient noise of the batches", file)
                for one in result.models
                if one.ratio.value > 0 and not one.bias_ratio
            ]
            parts += [
                (
                    f"the squared error of {one.estimator} is {one.ratio} of the batches' noise, part of it bias",
                    file,
                )
                for one in result.models
                if one.bias_ratio
            ]
        elif isinstance(result, FrontResult):
            parts += [
                (
                    _with(
                        result.model, f"{row.way.name} adds {in_percent(row.noise)} to the batches' gradient noise"
                    ),
                    file,
                )
                for row in result.rows
                if row.noise
            ]
    return _told("Noise", parts, "What it cost in gradient noise was not measured: wtacrs noise.")


def _checkpointing(results: Results) -> Sentence:
    parts: list[tuple[str, str]] = []
    for file, result in results:
        if isinstance(result, FrontResult):
            parts += [(_with(result.model, text), file) for text in _front_checkpointing(result)]
        elif isinstance(result, MemoryResult):
            rows = [(step.name, step.checkpointing, step.estimator, step.total) for step in result.steps]
            parts += [
                (_with(result.model, text), file) for text in _bytes_checkpointing(rows, "time not measured")
            ]
        elif isinstance(result, SimulationResult):
            sims = [(s.choice.name, s.choice.checkpointing, s.choice.estimator, s.kept) for s in result.steps]
            told = _bytes_checkpointing(sims, "simulated, so no time")
            parts += [(_with(result.model, text), file) for text in told]
    return _told(
        "Checkpointing",
        parts,
        "Whether checkpointing would have been better was not measured: wtacrs memory shows its bytes, "
        "wtacrs study front its time too.",
    )


def _estimated(result: FrontResult) -> list[FrontRow]:
    """The ways of estimators on all weights; low-rank adapters have another exact way to stand beside."""
    return [
        row
        for row in result.rows
        if row.way.estimator != "exact" and not row.way.checkpointing and row.way.lora_rank is None
    ]


def _front_checkpointing(result: FrontResult) -> Iterator[str]:
    base = result.rows[0]
    others = _estimated(result)
    for row in result.rows:
        plain = row.way.estimator == "exact" and row.way.lean is None and row.way.lora_rank is None
        if row.way.checkpointing and plain and others:
            least = min(others, key=lambda other: other.kept)
            yield (
                f"{row.way.name} keeps {percent(row.kept / base.kept)} at {row.ratio:.2f} times the time and without "
                f"noise, {least.way.name} {percent(least.kept / base.kept)} at {least.ratio:.2f} times"
                f"{_added(least)}: {_better(row, least)}"
            )


def _added(row: FrontRow) -> str:
    return "" if row.noise is None else f" and {row.noise:.2g} of the minibatch's noise"


def _better(row: FrontRow, least: FrontRow) -> str:
    """Whether checkpointing does better than the way of an estimator that keeps least."""
    if row.kept <= least.kept:
        return "checkpointing keeps less" + (" and is faster" if row.ratio <= least.ratio else ", and is slower")
    if row.ratio >= least.ratio:
        return "checkpointing keeps more and is slower, but adds no noise"
    return "checkpointing keeps more, is faster and adds no noise"


def _bytes_checkpointing(rows: Sequence[tuple[str, bool, str, int]], time: str) -> Iterator[str]:
    others = [(kept, name) for name, again, estimator, kept in rows if not again and estimator != "exact"]
    for name, again, estimator, kept in rows:
        if again and estimator == "exact" and others:
            least, other = min(others)
            better = "less" if kept < least else "more"
            yield f"{name} keeps {megabytes(kept)} MB, {better} than the {megabytes(least)} MB of {other} ({time})"
