"""The table of runs: what a step keeps, and a line where a conversion saves nothing."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from support import figure_examples as examples

from wtacrs.integration.tables.training import training_table
from wtacrs.validation.records.training import TrainingResult

SPEC = "crs(budget=0.3)"


def shown(*runs: TrainingResult) -> str:
    console = Console(width=240)
    with console.capture() as captured:
        console.print(training_table(runs))
    return " ".join(captured.get().split())


def run(spec: str = SPEC, **changes: Any) -> TrainingResult:
    return examples.training(spec).model_copy(update=changes)


def test_kept_bytes_stand_beside_the_estimator() -> None:
    text = shown(run(kept_bytes=3_000_000, exact_bytes=10_000_000))
    assert f"{SPEC} │ 3.00 │ 10.0 │" in text
    assert "nothing" not in text


def test_a_result_from_before_there_were_any_loads_and_is_shown() -> None:
    older = run().model_dump(exclude={"kept_bytes", "exact_bytes", "receipt"})
    assert f"{SPEC} │ – │ – │" in shown(TrainingResult(**older))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"kept_bytes": 3_000_000, "exact_bytes": 2_000_000},
            "sampling saves nothing; a step keeps 1.00 MB more than with stock",
        ),
        (
            {"kept_bytes": 2_000_000, "exact_bytes": 2_000_000, "converted": 0},
            "no converted layer trains by estimates",
        ),
    ],
)
def test_a_run_that_saves_nothing_says_so(changes: dict[str, int], told: str) -> None:
    assert f"{SPEC}: {told}" in shown(run("exact", kept_bytes=10, exact_bytes=10), run(**changes))
