"""A comparison as tables for the terminal: at equal rows and bytes, ratios to the oracle, ratios at equal bytes."""

from __future__ import annotations

from statistics import median

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from wtacrs.estimators.core.sizing import SIZES
from wtacrs.validation.layers.equal_bytes import BASELINE, LeftOut, byte_ratios, left_out
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.summaries.compare import LayerMedian, OracleRatio, layer_medians, oracle_ratios
from wtacrs.validation.summaries.series import series

_TEXTS = ("estimator", "size", "found by")


def comparison_table(result: ComparisonResult) -> Table:
    """Medians over layers: moments relative to ‖G‖², bytes and MACs relative to exact."""
    steps = result.rows[0].steps
    mean = f"MSE of {steps} steps"
    columns = ["estimator", "size", "bias²", "variance", "MSE", mean, "cosine", "bytes", "MACs", "found by"]
    timed = any(row.time is not None for row in result.rows)
    if timed:
        columns.insert(columns.index("MACs"), "time")
    table = Table(
        title=f"Median over {_cases(result)}, relative to ‖G‖². Bytes: of x as it was captured; at equal bytes: of bf16 "
        "rows without padding. What ignores scores is listed once.",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="left" if column in _TEXTS else "right", overflow="fold")
    before = None
    for entry in layer_medians(result.rows):
        group = f"[bold]equal {'rows' if entry.share is None else 'bytes'}, {entry.scores}[/bold]"
        if group != before:
            table.add_section()
            table.add_row(group)
        before = group
        cells = {
            "estimator": escape(entry.series),
            "size": _size(entry),
            "bias²": _bias(entry),
            "variance": f"{entry.variance:.3g}",
            "MSE": f"{entry.mse:.3g}",
            mean: f"{entry.mse_of_mean:.3g}",
            "cosine": f"{entry.cosine:.3f}",
            "bytes": f"{entry.byte_fraction:.1%}",
            "MACs": _percent(entry.mac_fraction),
            "time": "–" if entry.time is None else f"{entry.time:.2g}×",
            "found by": _method(entry),
        }
        table.add_row(*(cells[column] for column in columns))
    told = []
    if any(entry.error is not None for entry in layer_medians(result.rows)):
        told.append("a sampled bias² has its own noise taken off, and may be below zero where there is none")
    if timed:
        told.append(
            "time: of both verbs or of a product's call over the exact product, of a layer over a step of nn.Linear; "
            "a product needs x whole, its call comes in the backward pass; bytes of a layer are measured"
        )
    table.caption, table.caption_justify = "\n".join(told) or None, "left"
    return table


def _cases(result: ComparisonResult) -> str:
    """Layers, and batches if there are several."""
    entries = {row.layer for row in result.rows}
    layers = {entry.rpartition("#")[0] or entry for entry in entries}
    told = f"{len(layers)} layers" if len(layers) > 1 else "one layer"
    return told if len(entries) == len(layers) else f"{told} in several batches ({len(entries)} captures)"


def oracle_ratio_table(result: ComparisonResult) -> Table:
    """Variance over that with the oracle's scores."""
    table = Table(
        title="Variance ratio to the oracle: variance / variance with the oracle's scores, over layers",
        title_justify="left",
    )
    for column in ("estimator", "size", "scores", "layers", "least", "median", "largest"):
        table.add_column(column, justify="left" if column in ("estimator", "size", "scores") else "right")
    for entry in oracle_ratios(result.rows):
        size = f"{entry.share:.0%} of bytes" if entry.share is not None else _budget(entry.budget)
        values = [min(entry.ratios), median(entry.ratios), max(entry.ratios)]
        table.add_row(entry.series, size, entry.scores, _counted(entry), *(f"{value:.3g}×" for value in values))
    if any(entry.left_out for entry in oracle_ratios(result.rows)):
        table.caption, table.caption_justify = (
            "of all layers, those where the oracle's scores leave a variance: where they leave none, there is no ratio",
            "left",
        )
    return table


def _counted(entry: OracleRatio) -> str:
    counted = len(entry.ratios)
    return f"{counted} of {counted + entry.left_out}" if entry.left_out else str(counted)


def ratio_table(result: ComparisonResult) -> Table:
    """Variance over that of the paper's WTA-CRS at equal bytes, and the MACs of both."""
    table = Table(
        title=f"Variance over that of {BASELINE} at equal bytes; MACs relative to exact",
        title_justify="left",
    )
    left = ("estimator", "scores")
    columns = ("bytes", *left[::-1], "layers", "median ratio", "worst ratio", "MACs", "MACs, wta_crs")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for entry in byte_ratios(result.rows):
        table.add_row(
            f"{entry.share:.0%}",
            entry.scores,
            series(entry.estimator, SIZES),
            str(entry.layers),
            f"{entry.median:.4f}",
            f"{entry.worst:.4f}",
            _percent(entry.macs),
            _percent(entry.baseline_macs),
        )
    told = [_left_out(found) for found in left_out(result.rows)]
    table.caption, table.caption_justify = "\n".join(told) or None, "left"
    return table


def _left_out(found: LeftOut) -> str:
    reasons = [
        f"{found.small} too small for two rows of wta_crs in these bytes" if found.small else "",
        f"{found.exact} where wta_crs has no variance" if found.exact else "",
    ]
    told = " and ".join(reason for reason in reasons if reason)
    return f"{found.share:.0%} of the bytes, {found.scores}: of {found.layers} layers left out are {told}"


def _size(entry: LayerMedian) -> str:
    return f"{entry.share:.0%} bytes" if entry.share is not None else _budget(entry.budget)


def _bias(entry: LayerMedian) -> str:
    noise = f" ±{entry.bias_error:.1g}" if entry.bias_error else ""
    return f"{entry.bias_squared:.2g}{noise}"


def _budget(budget: float | None) -> str:
    return "–" if budget is None else f"{budget:g}"


def _method(entry: LayerMedian) -> str:
    if entry.error is None or not entry.mse:
        return "closed form"
    return f"sampled, MSE ±{entry.error / entry.mse:.1%}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
