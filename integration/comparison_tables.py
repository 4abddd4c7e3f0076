"""A comparison as tables for the terminal: at equal rows and bytes, the price of the scores, ratios at equal bytes."""

from __future__ import annotations

from statistics import median

from rich.table import Table

from wtacrs.figures.style import series
from wtacrs.figures.summary import LayerMedian, layer_medians, score_prices
from wtacrs.validation.equal_bytes import BASELINE, byte_ratios
from wtacrs.validation.results import ComparisonResult
from wtacrs.validation.sizes import sizeless


def comparison_table(result: ComparisonResult) -> Table:
    """Medians over layers: moments relative to ‖G‖², bytes and multiplications relative to exact."""
    layers = len({row.layer for row in result.rows})
    steps = result.rows[0].steps
    table = Table(
        title=f"Median over {layers} layers, relative to ‖G‖²; bytes and multiplications relative to exact",
        title_justify="left",
    )
    numeric = ("bias²", "variance", "MSE", f"MSE of {steps} steps", "cosine", "bytes", "mults")
    for column in ("estimator", "size", *numeric, "found by"):
        table.add_column(
            column,
            justify="right" if column in numeric else "left",
            no_wrap=column not in ("estimator", f"MSE of {steps} steps"),
            min_width=27 if column == "estimator" else None,
            overflow="fold",
        )
    before = None
    for entry in layer_medians(result.rows):
        group = f"[bold]equal {'rows' if entry.share is None else 'bytes'}, {entry.scores}[/bold]"
        if group != before:
            table.add_section()
            table.add_row(group)
        before = group
        table.add_row(
            entry.series,
            _size(entry),
            f"{entry.bias_squared:.2g}",
            f"{entry.variance:.3g}",
            f"{entry.mse:.3g}",
            f"{entry.mse_of_mean:.3g}",
            f"{entry.cosine:.3f}",
            f"{entry.byte_fraction:.1%}",
            _percent(entry.multiplication_fraction),
            _method(entry),
        )
    return table


def price_table(result: ComparisonResult) -> Table:
    """What it costs not to know dY: variance over that with the oracle's scores."""
    table = Table(
        title="The price of not knowing dY: variance / variance with the oracle's scores, over layers",
        title_justify="left",
    )
    for column in ("estimator", "size", "scores", "layers", "least", "median", "largest"):
        table.add_column(column, justify="left" if column in ("estimator", "size", "scores") else "right")
    for price in score_prices(result.rows):
        size = f"{price.share:.0%} of bytes" if price.share is not None else _budget(price.budget)
        values = [min(price.prices), median(price.prices), max(price.prices)]
        table.add_row(
            price.series, size, price.scores, str(len(price.prices)), *(f"{value:.3g}×" for value in values)
        )
    return table


def ratio_table(result: ComparisonResult) -> Table:
    """Variance over that of the paper's WTA-CRS at equal bytes, and what both multiply."""
    table = Table(
        title=f"Variance over that of {BASELINE} at equal bytes; multiplications relative to exact",
        title_justify="left",
    )
    left = ("estimator", "scores")
    columns = ("bytes", *left[::-1], "layers", "median ratio", "worst ratio", "mults", "mults, wta_crs")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    for entry in byte_ratios(result.rows):
        table.add_row(
            f"{entry.share:.0%}",
            entry.scores,
            series(sizeless(entry.estimator)),
            str(entry.layers),
            f"{entry.median:.4f}",
            f"{entry.worst:.4f}",
            _percent(entry.multiplications),
            _percent(entry.baseline_multiplications),
        )
    return table


def _size(entry: LayerMedian) -> str:
    return f"{entry.share:.0%} bytes" if entry.share is not None else _budget(entry.budget)


def _budget(budget: float | None) -> str:
    return "–" if budget is None else f"{budget:g}"


def _method(entry: LayerMedian) -> str:
    if entry.error is None or not entry.mse:
        return "closed form"
    return f"sampled ±{entry.error / entry.mse:.1%}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
