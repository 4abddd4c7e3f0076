"""Does the order of the estimators on one model hold on another? Compared on two or more files of captures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import cast

from scipy import stats

from wtacrs.estimators import Estimator
from wtacrs.estimators.core.errors import InputError
from wtacrs.figures.plots import transfer
from wtacrs.integration.studies.budgets import at_budget
from wtacrs.integration.studies.layer_choice import chosen_entries
from wtacrs.integration.studies.output import draw_or_remove, source_of
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.layers.captures import Captures, load_captures
from wtacrs.validation.layers.compare import compare
from wtacrs.validation.layers.scores import SCORE_KINDS, default_scores
from wtacrs.validation.records.base import ScoreKind, Stamp, stamp
from wtacrs.validation.records.compare import ComparisonResult, ComparisonRow
from wtacrs.validation.records.results import load_result, write_result
from wtacrs.validation.records.transfer import Standing, TransferPair, TransferResult
from wtacrs.validation.runner import Report, Runner
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.summaries.compare import layer_medians
from wtacrs.validation.summaries.ratio import ratio

# unbiased, with closed forms that are cheap at the size of a layer
DEFAULT_ESTIMATORS = (
    "uniform",
    "crs",
    "wta_crs",
    'wta_crs(winners="optimal")',
    "bernoulli",
    'systematic(order="rows")',
    "gaussian_sketch",
    'control_variate(base="mean", rows=wta_crs(budget={budget}))',
    "control_variate(rank=4, rows=wta_crs(budget={budget}))",
)
DEFAULT_BUDGETS = (0.1, 0.3)

Skipped = Callable[[str, str], None]


def transfer_study(
    files: Sequence[Path],
    specs: Sequence[str],
    budgets: Sequence[int | float],
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] | None = None,
    draws: int = 200,
    seed: int = 0,
    overwrite: bool = False,
    report: Callable[[str], Report] | None = None,
    skipped: Skipped | None = None,
) -> TransferResult:
    """Compare the estimators on every file, and the files with each other.

    The folder receives `comparison-<file>.json` for every file, which is not made again while the file and the settings
    are the same, `transfer.json` and `transfer.png`.

    Args:
        files: written by `wtacrs capture`; their names without the ending name them in the result.
        specs: unbiased estimators whose budget is left out, or written `{budget}` where it lies inside.
        budgets: fractions of the rows (float) or numbers of rows (int).
        out: the folder.
        layers: patterns of the names of layers; each must fit in every file.
        scores: kinds of scores; default all that every file has.
        draws: Monte Carlo draws where there is no closed form.
        seed: of the draws.
        overwrite: compare anew whatever the folder holds.
        report: called with a file's name, gives what is called after each of its layers.
        skipped: called with the name and the reason of a layer that is left out.

    Raises:
        InputError: on fewer than two files or estimators, two files of one name, a biased estimator, or as `compare`.
    """
    seed = checked_seed(seed)
    chosen = _checked(specs, budgets)
    opened = _opened(files)
    entries = {name: chosen_entries(captures, layers) for name, captures in opened.items()}
    kinds = tuple(scores) if scores is not None else _common_scores(opened, entries)
    settings = {
        "estimators": "; ".join(specs),
        "budgets": ", ".join(map(repr, budgets)),
        "scores": ", ".join(kinds),
        "layers": "; ".join(layers or ["*"]),
        "draws": str(draws),
    }
    begin_work(
        f"{len(chosen)} estimators on {len(opened)} files",
        *(f"  {name}: {len(entries[name])} layers" for name in opened),
        f"writes {out / 'transfer.json'}",
    )
    standings: list[Standing] = []
    models = {}
    for name, captures in opened.items():
        made = stamp(seed=seed, inputs=source_of(captures) | settings | {"sha256": _digest(captures.path)})
        path = out / f"comparison-{name}.json"
        found = None if overwrite else _earlier(path, made)
        if found is None:
            rows = compare(
                captures,
                chosen,
                layers=entries[name],
                scores=kinds,
                draws=draws,
                seed=seed,
                runner=Runner(report=None if report is None else report(name), skipped=skipped),
            )
            if not rows:
                raise InputError(f"captures={captures.path}: the exact product is zero in every chosen layer")
            found = ComparisonResult(stamp=made, rows=rows)
            write_result(path, found)
        standings += _standings(name, found)
        models[name] = str(captures.metadata.get("model", name))
    result = TransferResult(
        stamp=stamp(seed=seed, inputs=settings),
        models=models,
        standings=standings,
        pairs=transfer_pairs(standings),
    )
    write_result(out / "transfer.json", result)
    draw_or_remove(partial(transfer.draw, result), out / "transfer.png")
    return result


def _checked(specs: Sequence[str], budgets: Sequence[int | float]) -> list[Estimator]:
    found: dict[Estimator, str] = {}
    for spec in specs:
        for budget in budgets:
            estimator = at_budget(spec, budget)
            if not estimator.traits.unbiased:
                raise InputError(f"estimator={spec!r} is biased: its variance alone says nothing about its error")
            found[estimator] = spec
    if len(set(found.values())) < 2:
        raise InputError(f"estimator: an order needs at least two that differ, got {', '.join(specs) or 'none'}")
    return list(found)


def _opened(files: Sequence[Path]) -> dict[str, Captures]:
    if len(files) < 2:
        raise InputError(f"captures: at least two files are needed, got {len(files)}")
    found: dict[str, Captures] = {}
    for path in files:
        if path.stem in found:
            raise InputError(f"captures={path}: another file is called {path.stem!r} too; rename one")
        found[path.stem] = load_captures(path)
    return found


def _common_scores(opened: dict[str, Captures], entries: dict[str, list[str]]) -> tuple[ScoreKind, ...]:
    each = [default_scores(captures, entries[name]) for name, captures in opened.items()]
    return min(each, key=len, default=SCORE_KINDS)  # the one kind that may be absent comes last


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _earlier(path: Path, made: Stamp) -> ComparisonResult | None:
    """The comparison that lies there, if it is the one that would be made."""
    try:
        found = load_result(path)
    except InputError:  # absent, of an older version, or no result: made anew
        return None
    return found if isinstance(found, ComparisonResult) and found.stamp == made else None


def _standings(name: str, result: ComparisonResult) -> list[Standing]:
    return [
        Standing(
            file=name,
            scores=cast(ScoreKind, m.scores),
            budget=m.budget,
            estimator=m.series,
            layers=m.layers,
            variance=m.variance,
        )
        for m in layer_medians(_under_every_kind(result))
        if m.budget is not None
    ]


def _under_every_kind(result: ComparisonResult) -> list[ComparisonRow]:
    """The rows, those of estimators that ignore scores repeated under the kinds they are not listed under."""
    kinds = list(dict.fromkeys(row.scores for row in result.rows))
    listed = {(row.layer, row.estimator, row.scores) for row in result.rows}
    more = [
        row.model_copy(update={"scores": kind})
        for row in result.rows
        for kind in kinds
        if row.scores == kinds[0] and (row.layer, row.estimator, kind) not in listed
    ]
    return [*result.rows, *more]


def transfer_pairs(standings: Sequence[Standing]) -> list[TransferPair]:
    """Every ordered pair of files, at every budget with every kind of scores."""
    groups: dict[tuple[ScoreKind, int | float], dict[str, dict[str, float]]] = {}
    for s in standings:
        groups.setdefault((s.scores, s.budget), {}).setdefault(s.file, {})[s.estimator] = s.variance
    return [
        _pair(source, target, kind, budget, files[source], files[target])
        for (kind, budget), files in groups.items()
        for source, target in permutations(files, 2)
    ]


def _pair(
    source: str,
    target: str,
    kind: ScoreKind,
    budget: int | float,
    ours: dict[str, float],
    theirs: dict[str, float],
) -> TransferPair:
    common = [name for name in ours if name in theirs]
    tau = float(stats.kendalltau([ours[n] for n in common], [theirs[n] for n in common]).statistic)
    chosen, best = min(common, key=ours.__getitem__), min(common, key=theirs.__getitem__)
    return TransferPair(
        source=source,
        target=target,
        scores=kind,
        budget=budget,
        tau=None if tau != tau else tau,
        chosen=chosen,
        best=best,
        regret=ratio(theirs[chosen], theirs[best]),
    )
