"""The claims of the theory: result file and figures."""

from __future__ import annotations

from pathlib import Path

from wtacrs.figures.plots import theory as theory_figures
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.theory import TheoryResult
from wtacrs.validation.runner import Report
from wtacrs.validation.theory.claims import theory


def theory_study(out: Path, *, seed: int = 0, report: Report | None = None) -> TheoryResult:
    """Every claim of the theory in exact numbers; writes `theory.json` and `theory_<claim>.png` for each.

    Raises:
        InputError: on an unusable seed.
    """
    begin_work("every claim of the theory in exact numbers", f"writes {out / 'theory.json'} and its figures")
    result = theory(seed=seed, progress=report)
    write_result(out / "theory.json", result)
    theory_figures.draw(result, out)
    return result
