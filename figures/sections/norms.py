"""Gradient norms over training in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import norms as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Paragraph, Section, Table
from wtacrs.validation.records.norms import NormsResult
from wtacrs.validation.summaries.norms import NormsQuarter, norms_quarters

_HEAD = ("steps", "‖Ĝ‖", "‖G‖", "‖G‖, exact run", "‖Ĝ‖ / ‖G‖", "expected / ‖G‖", "‖Ĝ‖² / expected²")


def section(results: Sequence[Named[NormsResult]]) -> Section:
    """Both runs in a sentence, norms over the steps, and medians by quarter of the training."""
    section = Section("Gradient norms over training")
    for _, result in section.each(results):
        section.add(
            Paragraph(
                f"{result.estimator} gives the dW of {result.layer} on {result.task}: dev {result.metric} is "
                f"{result.final:.3f} at the end, and {result.final_exact:.3f} after the same training with the exact dW."
            )
        )
        section.draw(
            partial(figure.build, result),
            "Gradient norms over training",
            "Norm of the layer's weight gradient before clipping: what the optimizer got, the exact one of the same "
            "step, what theory expects of the estimate, and that of the run that is exact throughout.",
            finding=partial(findings.of_norms, result),
        )
        section.add(
            Table(_HEAD, [_row(quarter) for quarter in norms_quarters(result)], numeric=range(7)),
            Paragraph(
                "Medians of steps, in quarters and over all. The last column is a mean over steps with its standard "
                "error: near 1 where theory holds.",
                soft=True,
            ),
        )
    return section


def _row(quarter: NormsQuarter) -> list[Cell]:
    squares = "–" if quarter.squares is None else "{:.3f} ± {:.3f}".format(*quarter.squares)
    numbers = (quarter.used, quarter.exact, quarter.beside, quarter.relative, quarter.expected)
    return [f"{quarter.first} – {quarter.last}", *numbers, squares]
