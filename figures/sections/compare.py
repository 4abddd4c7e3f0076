"""Comparisons of estimators in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import comparison, oracle_ratio
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import (
    METHODS,
    SCORES,
    Cell,
    Code,
    Details,
    Named,
    Paragraph,
    Section,
    Table,
    number,
    percent,
)
from wtacrs.validation.records.compare import ComparisonResult, ComparisonRow
from wtacrs.validation.summaries.compare import LayerMedian, layer_medians, oracle_ratios, standard_error


def section(results: Sequence[Named[ComparisonResult]]) -> Section:
    """One figure against budget, bytes and MACs, medians over layers, and all layers folded away."""
    section = Section("Error of the estimators")
    for file, result in section.each(results):
        medians = layer_medians(result.rows)
        if not medians:
            section.add(Paragraph(f"The comparison {file} has no rows.", soft=True))
            continue
        section.draw(
            partial(comparison.build, result),
            "Mean squared error against budget, stored bytes and MACs",
            "Error of one gradient estimate, relative to ‖G‖², against what it costs; lower is better. Lines are "
            "medians over layers, bands their middle half; a dashed line is mostly bias², which does not average out.",
            finding=partial(findings.of_comparison, medians),
        )
        if ratios := oracle_ratios(result.rows):
            section.draw(
                partial(oracle_ratio.build, result),
                "Variance ratio to the oracle",
                "Variance with the scores at hand over the variance with the oracle's, the same estimator and budget: "
                "what better scores would be worth. A dot is a layer.",
                finding=partial(findings.of_oracle_ratios, ratios),
            )
        section.add(
            *_medians(medians),
            Details(f"All {len(result.rows)} rows, layer by layer", [_rows(result.rows)]),
        )
    return section


def _medians(medians: Sequence[LayerMedian]) -> tuple[Table, Paragraph]:
    """One line per estimator and budget; the moments under each kind of scores."""
    kinds = [kind for kind in SCORES if any(e.scores == kind for e in medians)]
    lines: dict[tuple[str, float | None, float | None, float | None], dict[str, LayerMedian]] = {}
    for e in medians:
        lines.setdefault((e.series, e.budget, e.share, e.row_fraction if e.share is None else None), {})[
            e.scores
        ] = e
    rows = []
    for (name, budget, share, _), found in lines.items():
        any_one = next(iter(found.values()))
        size = number(budget) if share is None else f"{share:.0%} of bytes"
        row: list[Cell] = [Code(name), size, percent(any_one.byte_fraction), _macs(any_one)]
        for kind in kinds:
            at = found.get(kind)
            moments: list[Cell] = (
                [number(at.bias_squared, at.bias_error), at.variance, number(at.mse, at.error), at.mse_of_mean]
                if at
                else []
            )
            row += moments or [None, None, "–", None]
        methods = sorted({method for e in found.values() for method in e.methods})
        rows.append([*row, ", ".join(METHODS[m] for m in methods), str(max(e.layers for e in found.values()))])
    steps = medians[0].steps
    columns = [
        *("estimator", "size", "bytes", "MACs"),
        *("bias²", "variance", "MSE", f"MSE of {steps} steps") * len(kinds),
        *("method", "layers"),
    ]
    groups = [("", 4), *[(SCORES[kind], 4) for kind in kinds], ("", 2)]
    note = Paragraph(
        "Medians over layers, each column by itself, relative to ‖G‖². “Closed form” is exact up to rounding "
        "(a bias² near 1e-30 is rounding); Monte Carlo is measured, ± one standard error. The MSE of "
        f"{steps} steps is that of their mean: bias² stays in it, variance is divided by {steps}. A size in bytes is the "
        "largest that fits this share of the bytes of bf16 rows, padding left out.",
        soft=True,
    )
    numeric = [place for place, title in enumerate(columns) if place > 0 and title != "method"]
    return Table(columns, rows, groups=groups, numeric=numeric), note


def _macs(entry: LayerMedian) -> str:
    return "–" if entry.mac_fraction is None else percent(entry.mac_fraction)


def _rows(rows: Sequence[ComparisonRow]) -> Table:
    head = [
        "layer", "estimator", "scores", "n", "d", "m", "bias²", "variance", "MSE", "cosine", "stored bytes",
        "exact bytes", "MACs", "exact MACs", "method",
    ]  # fmt: skip
    body: list[list[Cell]] = [
        [
            row.layer, Code(row.estimator), row.scores, f"{row.n}", f"{row.d}", f"{row.m}",
            number(row.bias_squared, row.bias_squared_error), number(row.variance, row.variance_error),
            number(row.mse, standard_error(row)), number(row.cosine, row.cosine_error),
            f"{row.saved_bytes:,}", f"{row.exact_bytes:,}",
            "–" if row.macs is None else f"{row.macs:,}", f"{row.exact_macs:,}",
            METHODS[row.method] + (f", {row.draws:,} draws" if row.draws is not None else ""),
        ]
        for row in rows
    ]  # fmt: skip
    return Table(head, body, numeric=range(3, 14))
