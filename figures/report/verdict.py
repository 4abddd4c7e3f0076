"""What results say together, in plain words: accuracy, memory, time, noise, and whether checkpointing does better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from statistics import fmean, median, stdev
from typing import NamedTuple

from scipy import stats

from wtacrs.figures.report.evidence import (
    Evidence,
    Results,
    adapters,
    compared_rows,
    evidence,
    experiments_of,
    runs_of,
    samples,
    steps_of,
)
from wtacrs.figures.sections.blocks import Named, percent
from wtacrs.validation.records.base import counted
from wtacrs.validation.records.experiment import Equivalence, ExperimentResult, ExperimentRow
from wtacrs.validation.records.factorial import FactorialResult
from wtacrs.validation.records.front import FrontResult, FrontRow
from wtacrs.validation.records.memory import MemoryResult, megabytes
from wtacrs.validation.records.noise import NoiseResult, in_percent
from wtacrs.validation.records.simulation import SimulationResult
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.records.units import model_name

_SHOWN = 1


class Sentence(NamedTuple):
    """What is said about a topic, and the files that its numbers are from; without any it is unknown."""

    topic: str
    text: str
    files: Sequence[str] = ()


Part = tuple[str, Sequence[str]]
"""Something to tell, and the files that it is from."""


class Pair(NamedTuple):
    """An estimated run and the exact one of the same task, model, data size, steps and seed."""

    run: Named[TrainingResult]
    exact: Named[TrainingResult]


def verdict(results: Results) -> list[Sentence]:
    """Five sentences at most, one for each topic; what is not known is said."""
    return [_accuracy(results), _memory(results), _time(results), _noise(results), _checkpointing(results)]


def pairs(results: Results) -> list[Pair]:
    """Every training run that is not exact with stock neighbours, beside the first exact one alike in all else."""
    runs = list(runs_of(results))
    exact = {_setting(run.result): run for run in reversed(runs) if run.result.method == "exact"}
    return [
        Pair(run, exact[_setting(run.result)])
        for run in runs
        if run.result.method != "exact" and _setting(run.result) in exact
    ]


def _setting(run: TrainingResult) -> tuple[object, ...]:
    steps = run.history[-1].step if run.history else None
    return run.task, run.model, run.metric, run.train_size, run.dev_size, run.trainable, steps, run.stamp.seed


def _with(model: str, text: str) -> str:
    return f"with {model_name(model)}, {text}"


def _told(topic: str, parts: Sequence[Part], missing: str) -> Sentence:
    """The first few parts as one sentence, and how many more there are."""
    if not parts:
        return Sentence(topic, missing)
    more = len(parts) - _SHOWN
    text = "; ".join(part for part, _ in parts[:_SHOWN])
    text = f"{text[0].upper()}{text[1:]}" if text.startswith(("with ", "on ")) else text
    files = list(dict.fromkeys(file for _, names in parts[:_SHOWN] for file in names))
    rest = f"; {more} more {'is' if more == 1 else 'are'} in the sections below" if more > 0 else ""
    return Sentence(topic, f"{text}{rest}.", files)


def _ends(found: Sequence[tuple[float, Part]], best: str, worst: str) -> Part:
    """One method by itself; of several the first and the last by their values, and how many there are."""
    ranked = sorted(found, key=lambda one: one[0])
    (text, files), (last, others) = ranked[0][1], ranked[-1][1]
    if len(ranked) == 1:
        return text, files
    return f"{len(ranked)} methods; {best}: {text}; {worst}: {last}", [*files, *others]


def _accuracy(results: Results) -> Sentence:
    learned, idle = _experiments(results)
    parts = [*learned, *_crossed(results), *_paired(results), *idle]
    runs = list(runs_of(results))
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


def _paired(results: Results) -> Iterator[Part]:
    """One part per setting of runs that have an exact one beside them: those that sample first, then the longest."""
    settings: dict[tuple[object, ...], dict[str, list[Pair]]] = {}
    for pair in pairs(results):
        run = pair.run.result
        group = settings.setdefault(_setting(run)[:-1], {}).setdefault(run.method, [])
        if all(other.run.result.stamp.seed != run.stamp.seed for other in group):  # a repetition is no other seed
            group.append(pair)
    ranked = []
    for found in settings.values():
        sampled = {method: group for method, group in found.items() if samples(group[0].run.result)}
        methods = sampled or found
        groups = list(methods.values())
        rank = (not sampled, -steps_of(groups[0][0].run.result), -max(map(len, groups)))
        ranked.append((rank, _differences(methods)))
    yield from (part for _, part in sorted(ranked, key=lambda one: one[0]))


def _experiments(results: Results) -> tuple[list[Part], list[Part]]:
    """One part per experiment, those that decide most first; then those that learned nothing."""
    told = [(_telling(named.result), named.file) for named in experiments_of(results)]
    ranked = sorted(((part, file) for part, file in told if part is not None), key=lambda one: one[0].rank)
    parts: tuple[list[Part], list[Part]] = ([], [])
    for part, file in ranked:
        parts[part.rank > 0].append((part.text, [file]))
    return parts


def _crossed(results: Results) -> Iterator[Part]:
    """What every treatment of crossed factors does over all of them, and whether that depends on a factor."""
    for file, result in results:
        if isinstance(result, FactorialResult):
            run = result.runs[0].result
            margin, level = (float(result.config[name]) for name in ("margin", "level"))
            others = " and ".join(list(result.factors)[1:]) or "nothing else"
            effects = [
                f"{one.treatment} changes {result.metric} by {_points(one.difference)} points, {1 - 2 * level:.0%} "
                f"interval {_points(one.low)} to {_points(one.high)}: {_within(one.verdict, margin)}"
                for one in result.contrasts
                if one.factor is None
            ]
            differ = sum(one.kind == "interaction" and one.verdict == "differs" for one in result.contrasts)
            depends = f"{counted(differ, 'interaction')} seen" if differ else "no interaction is seen"
            told = "; ".join(effects)
            yield f"on {run.task} with {model_name(run.model)}, over every {others}, {told}; {depends}", [file]


def _within(verdict: str, margin: float) -> str:
    return f"within {_margin(margin)}" if verdict == "within the margin" else verdict


def _tally(results: Results) -> str:
    """Verdicts over all experiments that learned something, so that the one that is told is no choice of the best."""
    found = [named.result for named in experiments_of(results)]
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
    """How many methods are worse, equivalent or undecided, and where the best and the worst end."""
    rows = sorted(compared_rows(result), key=lambda row: -_standing(row).difference)
    if not rows:
        return None
    counts = Counter(_standing(row).verdict for row in rows)
    run = result.runs[0].result
    where = f"on {run.task} with {model_name(run.model)}"
    if len(rows) == 1:
        text = f"{where}, {rows[0].label} {_beside_exact(result, rows[0])}"
    else:
        told = ", ".join(f"{many} {kind}" for kind, many in counts.items())
        text = (
            f"{where}, {len(rows)} methods: {told}; the best, {rows[0].label}, {_beside_exact(result, rows[0])}; the "
            f"worst, {rows[-1].label}, {_beside_exact(result, rows[-1])}"
        )
    decided = sum(many for kind, many in counts.items() if kind != "undecided")
    return _Telling(1 if "nothing learned" in counts else -decided, text)


def _standing(row: ExperimentRow) -> Equivalence:
    assert row.standing is not None  # compared rows have one
    return row.standing


def _beside_exact(result: ExperimentResult, row: ExperimentRow) -> str:
    standing = _standing(row)
    side = "above" if standing.difference > 0 else "below"
    exact = "training of all weights" if adapters(result, row) else "training"
    return (
        f"ends {100 * abs(standing.difference):.1f} points of {result.metric} {side} exact {exact}, "
        f"{1 - 2 * standing.level:.0%} interval {_points(standing.low)} to {_points(standing.high)}: "
        f"{_decided(standing.verdict, float(result.config['margin']))} ({standing.seeds} seeds)"
    )


def _decided(verdict: str, margin: float) -> str:
    return f"{verdict} within {_margin(margin)}" if verdict in ("equivalent", "undecided") else verdict


def _margin(margin: float) -> str:
    return "1 point" if math.isclose(margin, 0.01) else f"{100 * margin:g} points"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _differences(methods: Mapping[str, Sequence[Pair]]) -> Part:
    """Where exact training ends, and the best and the worst method beside it."""
    every = [pair for group in methods.values() for pair in group]
    exact = {pair.exact.file: pair.exact.result for pair in every}
    first = next(iter(exact.values()))
    theirs = fmean(run.final for run in exact.values())
    found = [
        (
            -fmean(pair.run.result.final - pair.exact.result.final for pair in group),
            f"{method} {_difference(group)}",
            group,
        )
        for method, group in methods.items()
    ]
    told, _ = _ends([(value, (text, ())) for value, text, _ in found], "the best", "the worst")
    ends = (min(found, key=lambda one: one[0]), max(found, key=lambda one: one[0]))
    files = [named.file for _, _, group in ends for pair in group for named in pair]
    where = f"with {model_name(first.model)} on {first.task}"
    return f"{where}, exact ends at {first.metric} {theirs:.3f}; {told}", files


def _difference(group: Sequence[Pair]) -> str:
    run = group[0].run.result
    mine = fmean(pair.run.result.final for pair in group)
    theirs = fmean(pair.exact.result.final for pair in group)
    text = f"at {mine:.3f}, a difference of {mine - theirs:+.3f}"
    if len(group) > 1:
        found = [pair.run.result.final - pair.exact.result.final for pair in group]
        half = float(stats.t.ppf(0.975, len(found) - 1)) * stdev(found) / math.sqrt(len(found))
        kind = f"95% interval over {len(found)} paired seeds"
    elif run.metric == "accuracy":
        half = 1.96 * math.sqrt((mine * (1 - mine) + theirs * (1 - theirs)) / run.dev_size)
        kind = f"one seed; 95% interval from {run.dev_size:,} dev examples alone, seeds vary more"
    else:
        return f"{text} (one seed: no interval for {run.metric})"
    return f"{text} ({kind}: {mine - theirs - half:+.3f} to {mine - theirs + half:+.3f})"


def _memory(results: Results) -> Sentence:
    parts, weak = list[Part](), list[Part]()
    for group in evidence(results):
        kept = [
            (float(run.result.kept_bytes or 0), (_kept_by(method, run.result), [run.file]))
            for method, run in _first_measured(group)
        ]
        if kept:
            told, files = _ends(kept, "the least", "the most")
            (parts if _sampling(group) else weak).append((_of(group, told), files))
    for file, result in results:
        if isinstance(result, MemoryResult):
            base = result.steps[0]
            told = "; ".join(
                f"{step.name} keeps {_share(step.total, base.total)} and peaks at {_share(step.peak, base.peak)}"
                for step in result.steps[1:]
                if not step.checkpointing
            )
            if told:
                parts.append((_with(result.model, f"of {base.name}'s bytes {told}"), [file]))
        elif isinstance(result, FrontResult):
            first = result.rows[0]
            ways = [(float(row.kept), (_kept_beside(row, first), [file])) for row in _estimated(result)]
            if ways:
                parts.append((_with(result.model, _ends(ways, "the least", "the most")[0]), [file]))
    missing = "Memory was not measured: wtacrs memory shows kept bytes and peak beside exact."
    return _told("Memory", [*parts, *weak], missing)


def _kept_beside(row: FrontRow, first: FrontRow) -> str:
    return (
        f"{row.way.name} keeps {_share(row.kept, first.kept)} and peaks at {_share(row.peak, first.peak)} of "
        f"{first.way.name}"
    )


def _sampling(group: Evidence) -> bool:
    return any(samples(run.result) for runs in group.methods.values() for run in runs)


def _of(group: Evidence, told: str) -> str:
    return f"with {model_name(group.model)} on {group.task}, {told}"


def _first_measured(group: Evidence) -> Iterator[tuple[str, Named[TrainingResult]]]:
    """Of every method the first run whose bytes were measured."""
    for method, runs in group.methods.items():
        measured = (run for run in runs if run.result.kept_bytes is not None and run.result.exact_bytes)
        for run in islice(measured, 1):
            yield method, run


def _kept_by(method: str, run: TrainingResult) -> str:
    kept, exact = run.kept_bytes or 0, run.exact_bytes or 0
    reference = "exact" if run.lean is None else "stock linear layers beside the same lean neighbours"
    text = (
        f"{method} keeps {megabytes(kept)} MB for the backward pass, {kept / exact:.0%} of the "
        f"{megabytes(exact)} MB of {reference}"
    )
    mine = None if run.step is None else run.step.peak_bytes
    theirs = None if run.baseline is None else run.baseline.peak_bytes
    peak = f"the peak is {_share(mine, theirs)} of exact's" if mine and theirs else "the peak was not measured"
    return f"{text}, and {peak}"


def _share(size: int | None, exact: int | None) -> str:
    return "an unknown share" if size is None or not exact else f"{size / exact:.0%}"


def _time(results: Results) -> Sentence:
    caution = "measured on this machine as it was, other load included"
    parts, weak = list[Part](), list[Part]()
    exact = {pair.run.file: pair.exact for pair in pairs(results)}
    for group in evidence(results):
        timed = _whole_times(group) if group.experiment else _step_times(group, exact)
        if timed:
            told, files = _ends(timed, "the fastest", "the slowest")
            (parts if _sampling(group) else weak).append((_of(group, told), files))
    for file, result in results:
        if isinstance(result, FrontResult):
            base = result.rows[0].way.name
            ways = [
                (row.ratio, (f"a step of {row.way.name} takes {row.ratio:.2f} times that of {base}", [file]))
                for row in _estimated(result)
            ]
            if ways:
                parts.append((_with(result.model, _ends(ways, "the fastest", "the slowest")[0]), [file]))
    missing = "Time beside exact was not measured: wtacrs study front compares steps in turns."
    found = _told("Time", [*parts, *weak], missing)
    return found._replace(text=f"{found.text[:-1]}; {caution}.") if found.files else found


def _whole_times(group: Evidence) -> list[tuple[float, Part]]:
    """Seconds of all runs of a method in an experiment over those of exact ones."""
    assert group.experiment is not None
    file, result = group.experiment
    rows = [row for row in result.rows if row.label in group.methods]
    return [
        (
            row.seconds,
            (f"training with {row.label} takes {row.seconds:.2f} times as long as exact training", [file]),
        )
        for row in rows
    ]


def _step_times(group: Evidence, exact: Mapping[str, Named[TrainingResult]]) -> list[tuple[float, Part]]:
    found = [_times(method, runs, exact) for method, runs in group.methods.items()]
    return [one for one in found if one is not None]


def _times(
    method: str, runs: Sequence[Named[TrainingResult]], exact: Mapping[str, Named[TrainingResult]]
) -> tuple[float, Part] | None:
    """The steps of a method beside exact ones: of the same run where it has some, else of the run beside it."""
    ratios = [ratio for run in runs for ratio in run.result.time_ratios or ()]
    if ratios:
        text = f"a step of {method} takes {median(ratios):.2f} times that of exact, by {len(ratios)} steps"
        return median(ratios), (text, [run.file for run in runs if run.result.time_ratios])
    for run in runs:
        beside = exact.get(run.file)
        mine, theirs = _seconds(run.result), _seconds(beside.result) if beside else None
        if beside is not None and mine and theirs:
            text = f"a step of {method} takes {mine:.3g} s, one of exact {theirs:.3g} s in a run of its own"
            return mine / theirs, (text, [run.file, beside.file])
    return None


def _seconds(run: TrainingResult) -> float | None:
    """Mean seconds of a step."""
    last = run.history[-1] if run.history else None
    return None if last is None or not last.step else last.seconds / last.step


def _noise(results: Results) -> Sentence:
    parts: list[Part] = []
    for file, result in results:
        if isinstance(result, NoiseResult):
            parts += [
                (f"{one.estimator} adds {one.ratio} to the gradient noise of the batches", [file])
                for one in result.models
                if one.ratio.value > 0 and not one.bias_ratio
            ]
            parts += [
                (
                    f"the squared error of {one.estimator} is {one.ratio} of the batches' noise, part of it bias",
                    [file],
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
                    [file],
                )
                for row in result.rows
                if row.noise
            ]
    return _told("Noise", parts, "What it cost in gradient noise was not measured: wtacrs noise.")


def _checkpointing(results: Results) -> Sentence:
    parts: list[Part] = []
    for file, result in results:
        if isinstance(result, FrontResult):
            parts += [(_with(result.model, text), [file]) for text in _front_checkpointing(result)]
        elif isinstance(result, MemoryResult):
            rows = [(step.name, step.checkpointing, step.estimator, step.total) for step in result.steps]
            parts += [
                (_with(result.model, text), [file]) for text in _bytes_checkpointing(rows, "time not measured")
            ]
        elif isinstance(result, SimulationResult):
            sims = [(s.choice.name, s.choice.checkpointing, s.choice.estimator, s.kept) for s in result.steps]
            told = _bytes_checkpointing(sims, "simulated, so no time")
            parts += [(_with(result.model, text), [file]) for text in told]
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
