"""Estimators against the noise of the minibatch in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import noise as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import METHODS, Cell, Code, Details, Named, Paragraph, Section, Table
from wtacrs.validation.records.noise import LayerNoise, NoiseResult, in_percent


def section(results: Sequence[Named[NoiseResult]]) -> Section:
    """The figure, a sentence for every estimator, all layers folded away."""
    section = Section("Against the noise that is there anyway")
    for _, result in section.each(results):
        section.draw(
            partial(figure.build, result),
            "Estimators against the noise of the minibatch",
            "Squared error of an estimator over the variance that the gradient has between microbatches anyway, for one "
            "microbatch. Of an unbiased one it is the same for any number of averaged microbatches: both are divided by "
            "it. Of a biased one the persistent part of the bias², told below, is not. A dot is a layer, a line all "
            f"layers together, a bar its {result.level:.0%} interval (jackknife over microbatches).",
            finding=partial(findings.of_noise, result),
        )
        section.add(
            *(Paragraph(f"{model.verdict}.") for model in result.models),
            Details(f"All {len(result.layers)} rows, layer by layer", [_layers(result.layers)]),
        )
    return section


def _layers(rows: Sequence[LayerNoise]) -> Table:
    head = [
        "layer", "estimator", "scores", "batches", "squared error / minibatch variance", "of it bias²",
        "persistent bias²", "method",
    ]  # fmt: skip
    body: list[list[Cell]] = [
        [
            row.layer, Code(row.estimator), row.scores, f"{len(row.deviations)}", str(row.ratio),
            in_percent(row.bias_ratio), in_percent(row.persistent_ratio),
            METHODS[row.method] + (f", {row.draws:,} draws" if row.draws is not None else ""),
        ]
        for row in rows
    ]  # fmt: skip
    return Table(head, body, numeric=range(3, 7))
