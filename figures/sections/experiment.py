"""Experiments over seeds in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import experiment as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Code, Flag, Named, Paragraph, Section, Table, number
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRow
from wtacrs.validation.statistics.equivalence import nothing_learned_warning


def section(results: Sequence[Named[ExperimentResult]]) -> Section:
    """Which estimators are equivalent to exact training in a sentence, the figure, and every label as a table."""
    section = Section("Beside exact training, over seeds")
    for _, result in section.each(results):
        section.add(Paragraph(_sentence(result)))
        if warning := nothing_learned_warning(result.values(result.rows[0].label), result.majority):
            section.add(Paragraph(f"{warning[0].upper()}{warning[1:]}."))
        section.draw(
            partial(figure.build, result),
            f"Runs of {result.config['name']}",
            f"Left: dev {result.metric} of every seed, and the mean. Right: difference from exact training with its "
            "interval; equivalent is what lies inside the band.",
            finding=partial(findings.of_experiment, result),
        )
        section.add(_rows(result))
    return section


def _sentence(result: ExperimentResult) -> str:
    verdicts: dict[str, list[str]] = {}
    for row in result.rows:
        if row.standing is not None:
            verdicts.setdefault(row.standing.verdict, []).append(row.label)
    told = "; ".join(f"{verdict}: {', '.join(labels)}" for verdict, labels in verdicts.items())
    seeds = len(result.config["seeds"])
    return (
        f"{result.config['name']}: {seeds} seeds, {result.dev_size:,} dev examples, margin "
        f"{result.config['margin']:g}, level {result.config['level']:g} (Holm). Beside exact training: {told or 'none'}."
    )


def _rows(result: ExperimentResult) -> Table:
    interval = f"{1 - 2 * float(result.config['level']):.0%} interval"
    head = [
        "run", "estimator", result.metric, "± SE", "− exact", interval, "p equivalent", "p different", "verdict",
        "seeds needed", "time",
    ]  # fmt: skip
    rows = [_row(row) for row in result.rows]
    numeric = [2, 3, 4, 5, 6, 7, 9, 10]
    if any(row.loss is not None for row in result.rows):
        head += ["dev loss", "− exact", interval, "verdict by loss"]
        rows = [[*cells, *_loss(row)] for cells, row in zip(rows, result.rows, strict=True)]
        numeric += [11, 12, 13]
    return Table(head, rows, numeric=numeric)


def _loss(row: ExperimentRow) -> list[Cell]:
    found = row.loss_standing
    mean = number(row.loss)
    if found is None:
        return [mean, "–", "–", "–"]
    return [mean, f"{found.difference:+.4f}", f"{found.low:+.4f} … {found.high:+.4f}", found.verdict]


def _row(row: ExperimentRow) -> list[Cell]:
    error = "–" if row.error is None else f"{row.error:.4f}"
    cells: list[Cell] = [row.label, Code(row.estimator), f"{row.mean:.4f}", error]
    found = row.standing
    if found is None:
        return [*cells, "–", "–", "–", "–", "–", "–", f"{row.seconds:.2f}×"]
    verdict: Cell = found.verdict
    if found.verdict in ("equivalent", "better", "worse"):
        verdict = Flag(found.verdict, good=found.verdict != "worse")
    needed = "> 10,000" if row.seeds_needed is None else f"{row.seeds_needed:,}"
    return [
        *cells, f"{found.difference:+.4f}", f"{found.low:+.4f} … {found.high:+.4f}", number(found.equivalent),
        number(found.different), verdict, needed, f"{row.seconds:.2f}×",
    ]  # fmt: skip
