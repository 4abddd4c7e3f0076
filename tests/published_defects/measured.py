"""The checks behind the audit, each a task of its own."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from published_defects.pieces import DEEP, MEAN_LAWS, POOLED, STALE, Piece, all_pieces
from published_defects.results import Alarms, Found, Power, Silent
from wtacrs.estimators import Estimator
from wtacrs.validation.properties.checks import Examination, check_estimator
from wtacrs.validation.properties.external import EXTERNAL_PROPERTIES
from wtacrs.validation.properties.means import LAYER_MEAN_PROPERTIES, MEAN_PROPERTIES
from wtacrs.validation.records.base import Record
from wtacrs.validation.records.check import DirectionRecord, Verdict
from wtacrs.validation.runner import Task, TaskOutput
from wtacrs.validation.statistics.staged_means import FIRST_STAGE, Demand

SEEDS, MANY_SEEDS = 20, 200
# repeated checks stop early: what is asked of them is whether they say "broken"
COARSE, FINE = 0.5, 0.1
LEVEL, SEEN_LEVEL = 1e-6, 0.05
STAGES = (1, 2)
PLANTED = {
    "mean: heavy-tailed rows": "scaled_by_nine_tenths",
    "mean: equal rows": "unweighted_without_winners",
    "mean: zero rows": "weights_count_the_padding",
    "mean: rows that cancel": "orthonormal_sketch_unscaled",
    "mean: unequal columns": "smallest_entries_dropped",
    "mean: tiny gradients": "norms_kept_from_zero",
    "mean: after another batch": "drawn_by_the_last_batch",
    "mean: one dominating row": "adds_epsilon",
    DEEP: "counts_the_first_axis",
    STALE: "ForgetsRowsWithoutGradient",
}


def tasks(seeds: int = SEEDS, many: int = MANY_SEEDS) -> list[Task]:
    """Every piece and every law; a task whose code has changed is another one."""
    found = [
        _task(_found if piece.law else _silent, piece.name, seeds, source=_source(piece))
        for piece in all_pieces().values()
    ]
    products = tuple(law for law in MEAN_LAWS if law not in (DEEP, STALE))
    found += [
        _task(_alarms, name, laws, many, source=_source(all_pieces()[name]))
        for name, laws in (("sound_transposed", (*products, POOLED)), ("SoundCRSLinear", (DEEP, STALE)))
    ]
    return found + [
        _task(_power, name, law, many, source=_source(all_pieces()[name])) for law, name in PLANTED.items()
    ]


def _task(work, *arguments, source: str) -> Task:  # type: ignore[no-untyped-def]
    label = " ".join([work.__name__.strip("_"), *(str(part) for part in arguments)])
    return Task(f"{label} {source}", work, arguments, label)


def _source(piece: Piece) -> str:
    file = Path(__file__).parent / f"{piece.group}.py"
    return hashlib.sha256(file.read_bytes() + repr(piece).encode()).hexdigest()[:16]


def _found(name: str, seeds: int) -> TaskOutput[Record]:
    piece = all_pieces()[name]
    verdicts, seconds = [], []
    for seed in range(seeds):
        start = time.monotonic()
        verdicts.append(found_by_its_law(piece, seed))
        seconds.append(time.monotonic() - start)
    start = time.monotonic()
    whole = check_estimator(piece.load(), raises=False, bias=COARSE)
    broken = [v for v in verdicts if v.status == "broken"]
    sizes = [v for v in broken if v.bias is not None]
    draws = [v.draws for v in broken if v.draws is not None]
    return TaskOutput((
        Found(
            name=name,
            seeds=seeds,
            found=len(broken),
            bias=statistics.median(v.bias for v in sizes if v.bias is not None) if sizes else None,
            error=statistics.median(_error(v) for v in sizes) if sizes else None,
            draws=int(statistics.median(draws)) if draws else None,
            seconds=statistics.median(seconds),
            broken=[v.name for v in whole if v.status == "broken"],
            whole_seconds=time.monotonic() - start,
        ),
    ))  # fmt: skip


def found_by_its_law(piece: Piece, seed: int, level: float = LEVEL) -> Verdict:
    """The verdict of the law that must find a defect."""
    (verdict,) = check_estimator(
        piece.load(), only=[piece.law], raises=False, seed=seed, level=level, bias=piece.ruled_out
    )
    return verdict


def _error(verdict: Verdict) -> float:
    """Of the direction whose deviation is the bias of the verdict."""
    bias = verdict.bias or 0.0
    nearest: DirectionRecord = min(verdict.directions, key=lambda each: abs(abs(each.share - 1.0) - bias))
    return nearest.error


def _silent(name: str, seeds: int) -> TaskOutput[Record]:
    piece = all_pieces()[name]
    verdicts: list[Verdict] = []
    seconds = []
    for seed in range(seeds):
        start = time.monotonic()
        verdicts += check_estimator(piece.load(), raises=False, bias=COARSE, seed=seed)
        seconds.append(time.monotonic() - start)
    start = time.monotonic()
    closer = check_estimator(piece.load(), raises=False, bias=FINE)
    took = time.monotonic() - start
    statuses = {v.status for v in closer}
    return TaskOutput((
        Silent(
            name=name,
            seeds=seeds,
            alarms=sum(v.status == "broken" for v in verdicts),
            undecided=sum(v.status == "undecided" for v in verdicts),
            ruled_out=_largest(verdicts),
            seconds=statistics.median(seconds),
            outcome=next((s for s in ("broken", "undecided") if s in statuses), "holds"),
            closer=_largest(closer),
            whole_seconds=took,
        ),
    ))  # fmt: skip


def _largest(verdicts: Sequence[Verdict]) -> float:
    return max((v.ruled_out for v in verdicts if v.ruled_out is not None), default=0.0)


def statistical_laws() -> int:
    """Laws of external code that divide the level."""
    return sum(name in {*MEAN_PROPERTIES, *LAYER_MEAN_PROPERTIES} for name in EXTERNAL_PROPERTIES)


def _alarms(name: str, laws: tuple[str, ...], seeds: int) -> TaskOutput[Record]:
    estimator = all_pieces()[name].load()
    alarms = [v for seed in range(seeds) for v in alarms_of(estimator, laws, seed)]
    return TaskOutput(tuple(
        Alarms(
            law=law,
            name=name,
            level=SEEN_LEVEL,
            stages=stages,
            seeds=seeds,
            alarms=sum(v.name == law and (v.draws or 0) <= FIRST_STAGE << (stages - 1) for v in alarms),
        )
        for law in laws
        # what all problems say together is known after the last stage alone
        for stages in (STAGES if law != POOLED else STAGES[-1:])
    ))  # fmt: skip


def alarms_of(estimator: Estimator, laws: Sequence[str], seed: int) -> list[Verdict]:
    """What a check at `SEEN_LEVEL` per law calls broken, after as many stages as are counted."""
    demand = Demand(
        level=SEEN_LEVEL * statistical_laws(),
        # so small that no other stage is the last one
        bias=1e-4,
        draws=FIRST_STAGE << (STAGES[-1] - 1),
    )
    run = Examination(estimator, demand, only=laws, seed=seed)
    return [v for v in map(run.verdict, run.names) if v.status == "broken"]


def _power(name: str, law: str, seeds: int) -> TaskOutput[Record]:
    estimator = all_pieces()[name].load()
    verdicts: list[Verdict] = []
    for seed in range(seeds):
        verdicts += check_estimator(estimator, only=[law], raises=False, seed=seed, level=LEVEL)
    broken = [v for v in verdicts if v.status == "broken"]
    draws = [v.draws for v in broken if v.draws is not None]
    return TaskOutput((
        Power(
            law=law,
            name=name,
            level=LEVEL,
            seeds=seeds,
            found=len(broken),
            draws=int(statistics.median(draws)) if draws else None,
        ),
    ))  # fmt: skip
