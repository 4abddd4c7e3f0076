"""What training steps of a model need, from its config alone. Result file and figure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wtacrs.estimators import make
from wtacrs.figures.plots import simulation as simulation_figure
from wtacrs.integration.measure.simulation.largest_batch import largest_batch
from wtacrs.integration.measure.simulation.step import simulate_step
from wtacrs.integration.models.loading import without_place
from wtacrs.integration.models.published_sizes import config_of
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.studies.step_ways import simulated_ways
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import stamp, with_lean
from wtacrs.validation.records.front import Way
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.simulation import Largest, SimulatedStep, SimulationResult
from wtacrs.validation.runner import Report


def simulate_steps(
    model: str,
    estimators: Sequence[str],
    out: Path,
    *,
    batch_size: int,
    all_ways: bool = False,
    budget: int | None = None,
    report: Report | None = None,
    **options: Any,
) -> SimulationResult:
    """Simulate the stock step, and one for each estimator with the options; write `simulation.json` and its figure.

    Args:
        model: as in `simulate_step`.
        estimators: specs; "exact" for stock layers.
        out: folder.
        batch_size: examples; with a budget the largest batch takes its place.
        all_ways: whether all of `simulated_ways` are simulated, instead of what estimators and options say.
        budget: bytes of a device that the batch is to fill.
        report: called with every step.
        **options: of `simulate_step`; the stock step has those that say what is computed (lengths, precision, optimizer).

    Raises:
        InputError: as `simulate_step`.
    """
    config = config_of(model)
    check_folder("out", out)
    specs = ["exact" if spec == "exact" else repr(make(spec)) for spec in estimators]
    stock: dict[str, Any] = {
        name: options[name] for name in ("length", "target_length", "precision", "optimizer") if name in options
    }
    ways: list[dict[str, Any]] = [{**stock, "estimator": "exact"}]
    ways += [way for spec in dict.fromkeys(specs) if (way := {**options, "estimator": spec}) not in ways]
    ways = [way for place, way in enumerate(ways) if place == 0 or _differs(way, ways[0])]
    if all_ways:
        ways = [{**stock, **_options(way)} for way in simulated_ways()]
    steps: list[SimulatedStep] = []
    found: list[Largest] = []
    for done, way in enumerate(ways):
        if report is not None:
            report(with_lean(way["estimator"], way.get("lean") or None), done, len(ways))
        if budget is None:
            steps.append(simulate_step(config, batch_size=batch_size, **way).step)
            continue
        step, largest = largest_batch(partial(_step, config, way), budget)
        steps.append(step)
        found.append(largest)
    inputs = {name: str(value) for name, value in options.items() if _is_given(value)}
    result = SimulationResult(
        stamp=stamp(seed=None, inputs=inputs), model=without_place(str(model)), steps=steps, largest=found
    )
    write_result(out / "simulation.json", result)
    draw_or_remove(partial(simulation_figure.draw, result), out / "simulation.png")
    return result


def _options(way: Way) -> dict[str, Any]:
    """Of `simulate_step`, without what all ways have in common."""
    found = way.model_dump(include={"estimator", "lean", "lora_rank", "checkpointing", "offload"})
    return {**found, "lean": found["lean"] or False}


def _step(config: Any, way: dict[str, Any], batch_size: int) -> SimulatedStep:
    return simulate_step(config, batch_size=batch_size, **way).step


def _differs(way: dict[str, Any], stock: dict[str, Any]) -> bool:
    return any(_is_given(value) and stock.get(name) != value for name, value in way.items())


def _is_given(value: object) -> bool:
    return value is not None and value is not False  # 0 is a value, which is refused where it is none
