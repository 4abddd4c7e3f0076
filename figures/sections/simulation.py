"""Simulated training steps in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wtacrs.figures.plots import simulation as figure
from wtacrs.figures.sections import findings
from wtacrs.figures.sections.blocks import Cell, Named, Paragraph, Section, Table, percent
from wtacrs.validation.records.simulation import PARTS, SimulationResult, simulation_sentences
from wtacrs.validation.records.units import gigabytes, model_name


def section(results: Sequence[Named[SimulationResult]]) -> Section:
    """What the steps need and what limits them, in sentences, a figure and a table."""
    section = Section("What a training step needs, simulated")
    for _, result in section.each(results):
        section.add(
            Paragraph(f"Steps of {model_name(result.model)}, from shapes alone."),
            *(Paragraph(f"{sentence}.") for sentence in simulation_sentences(result)),
        )
        section.draw(
            partial(figure.build, result),
            "Alive at the peak",
            "All that is alive on the device at the moment of a step when most is: what is there before and after, and "
            "what the step makes.",
            finding=partial(findings.of_simulation, result),
        )
        section.add(_bytes(result))
    return section


def _bytes(result: SimulationResult) -> Table:
    rows: list[list[Cell]] = [[part, *(gigabytes(step.parts[part]) for step in result.steps)] for part in PARTS]
    rows += [
        ["peak", *(gigabytes(step.peak) for step in result.steps)],
        ["of the first", *(percent(step.peak / result.steps[0].peak) for step in result.steps)],
    ]
    head = ["GB alive at the peak", *(step.choice.name for step in result.steps)]
    return Table(head, rows, numeric=range(1, len(head)))
