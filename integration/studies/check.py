"""The list of properties, and the test of the mean on captured layers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from wtacrs.estimators import Estimator, InputError, make, spec
from wtacrs.integration.studies.layer_choice import chosen_entries
from wtacrs.integration.studies.output import source_of
from wtacrs.validation.benchmarks.bench import registered_entries
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.layers.scores import layer_scores
from wtacrs.validation.properties.checks import check_estimator, check_rows, properties
from wtacrs.validation.properties.external_estimators import LEAST
from wtacrs.validation.properties.external_kinds import file_stem
from wtacrs.validation.properties.property import DEFAULT_SIZES, Sizes
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.check import CheckResult
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.statistics.staged_means import DEFAULT_DEMAND, Demand


def check_study(
    estimator: Estimator,
    file: Path | None,
    *,
    captures: Captures | None = None,
    layers: Sequence[str] | None = None,
    demand: Demand = DEFAULT_DEMAND,
    sizes: Sizes = DEFAULT_SIZES,
    only: Sequence[str] | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> CheckResult:
    """The list of properties, and on captured layers a test of the mean at their real size.

    An external product or linear layer is checked against the properties of its kind.

    With captures, each half of the verdicts gets half of the level and of the time; the layers share theirs evenly.

    Args:
        estimator: registered or not, or an external product or layer.
        file: where the result is written; None writes nothing.
        captures: captured layers.
        layers: entries of the captures; all if None.
        demand: level, bias to rule out, power and seconds of the whole.
        sizes: of the problems that means are tested on.
        only: patterns of the names of the properties to check (`*`, `?`, `[]`); all if None.
        seed: of all problems and draws.
        report: is told what is checked, its place and how many there are.

    Raises:
        InputError: on an unusable number, seed or layer.
    """
    seed = checked_seed(seed)
    entries = [] if captures is None else chosen_entries(captures, layers)
    half, started = 2 if entries else 1, time.monotonic()
    verdicts = check_estimator(
        estimator,
        raises=False,
        level=demand.level / half,
        bias=demand.bias,
        power=demand.power,
        limit=demand.limit / half,
        sizes=sizes,
        seed=seed,
        only=None if only is None else chosen_properties(estimator, only),
        report=report,
    )
    generator = torch.Generator().manual_seed(seed)
    for done, entry in enumerate(entries):
        assert captures is not None
        if report is not None:
            report(entry, done, len(entries))
        parts = 2 * len(entries)
        share = Demand(demand.level / parts, demand.bias, demand.power, demand.limit / parts, demand.draws)
        layer = captures[entry]
        scores = layer_scores("row-norms", layer.x, layer.dy, layer.mask)
        verdicts.append(
            check_rows(estimator, f"mean on {entry}", layer.x, layer.dy, share, scores=scores, generator=generator)
        )
    inputs = {
        "level": str(demand.level),
        "bias": str(demand.bias),
        "power": str(demand.power),
        "limit": str(demand.limit),
        "sizes": " × ".join(map(str, sizes)),
    } | ({} if captures is None else source_of(captures))
    result = CheckResult(
        stamp=stamp(seed=seed, inputs=inputs),
        estimator=spec(estimator),
        verdicts=verdicts,
        seconds=time.monotonic() - started,
    )
    if file is not None:
        write_result(file, result)
    return result


def chosen_properties(estimator: Estimator, patterns: Sequence[str]) -> list[str]:
    """Names of the properties of its kind that any of the patterns fits.

    Raises:
        InputError: on a pattern that fits none.
    """
    names = [name for name, _ in properties(estimator)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"--only {pattern!r} fits no property of {estimator!r}; they are: {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def registered_estimators() -> list[Estimator]:
    """Every registered estimator, at three tenths of the rows or bytes of the problems that it is checked on."""
    n, d, _ = DEFAULT_SIZES
    found = (entry.at(n, d, torch.bfloat16) for entry in registered_entries())
    return [_narrow(estimator) for estimator in found if estimator is not None]


def _narrow(estimator: Estimator) -> Estimator:
    """With no more groups of columns than there are columns where form is checked."""
    groups = getattr(estimator, "groups", None)
    if not isinstance(groups, int) or groups <= LEAST.d:
        return estimator
    return make(spec(estimator), groups=LEAST.d)


def result_files(out: Path | None, estimators: Sequence[Estimator]) -> list[Path | None]:
    """`check-<name>.json` in a folder for each estimator, numbered from the second of a name on; else None."""
    files: list[Path | None] = []
    seen: Counter[str] = Counter()
    for stem in map(file_stem, estimators):
        seen[stem] += 1
        number = "" if seen[stem] == 1 else f"-{seen[stem]}"
        files.append(None if out is None else out / f"check-{stem}{number}.json")
    return files
