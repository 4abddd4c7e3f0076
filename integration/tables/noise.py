"""Noise of estimators as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from wtacrs.validation.records.noise import ModelNoise, NoiseResult, in_percent


def noise_table(result: NoiseResult) -> Table:
    """The whole model: what every estimator adds to the minibatch's noise, and what of it is bias² and persists."""
    first = result.models[0]
    table = Table(
        title=f"Squared error over minibatch variance, {first.layers_told}, {first.batches} batches; "
        f"{result.level:.0%} intervals",
        title_justify="left",
        caption="adds: one microbatch; bias²: of it; persists: bias² that no number of microbatches averages out, "
        "estimated without bias, so that it may be below 0; batch: of exact gradients that is as noisy; step: of Adam "
        "along the gradient, over that with exact ones (best rate of gradient descent over that with exact ones, by "
        "theory)",
        caption_justify="left",
    )
    for column in ("scores", "estimator", "adds", "bias²", "persists", "batch", "step", "worst", "found by"):
        numeric = column in ("adds", "bias²", "persists", "batch", "step", "worst")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=column == "adds")
    for entry in result.models:
        table.add_row(
            entry.scores,
            entry.estimator,
            str(entry.ratio),
            in_percent(entry.bias_ratio) if entry.bias_ratio else "–",
            in_percent(entry.persistent_ratio) if entry.bias_ratio else "–",
            "–" if entry.bias_ratio else f"{entry.equivalent_batch:.3g}×",
            _step(entry),
            in_percent(entry.worst_ratio.value),
            entry.method,
        )
    return table


def _step(entry: ModelNoise) -> str:
    if entry.bias_ratio or entry.adam_step is None or entry.descent_rate is None:
        return "–"
    return f"{entry.adam_step:.2g}× ({entry.descent_rate:.2g}×)"
