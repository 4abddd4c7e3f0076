"""From results of experiments to the README: one table of all that lie beside their files in `integration/experiments/`.

    python -m readme_numbers.experiments runs/minilm-sst2 runs/minilm-mrpc …

takes over the results and figures of these folders, and fills the README.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from readme_numbers.readme import fill, pages
from readme_numbers.records import NumbersResult, NumberTable
from readme_numbers.tables import (
    LORA_FRONT,
    SHORT_FRONT,
    budget_numbers,
    front_numbers,
    masks_numbers,
    scores_numbers,
    simulation_numbers,
    some_front_numbers,
    winner_rule_numbers,
    winner_share_numbers,
)
from wtacrs.estimators import InputError
from wtacrs.figures.plots import experiment as figure
from wtacrs.validation.records.budgets import BudgetsResult
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRow
from wtacrs.validation.records.front import FrontResult
from wtacrs.validation.records.masks import MasksResult
from wtacrs.validation.records.results import load_result, write_result
from wtacrs.validation.records.scores import TrainingScoresResult
from wtacrs.validation.records.simulation import SimulationResult
from wtacrs.validation.records.winners import WinnersResult

FOLDER = Path("integration/experiments")
GALLERY = Path("figures/gallery")
NUMBERS = GALLERY / "numbers.json"
MASKS = GALLERY / "masks.json"
FRONT = GALLERY / "front.json"
"""Of `make memory`: 8 × 128 / 128 tokens, measured."""
WINNERS = GALLERY / "winners.json"
BUDGETS = GALLERY / "budgets_t5-base.json"
SCORES = "scores_*.json"
SIMULATED = "simulation_*.json"
"""Of `make memory`: larger models, simulated."""


def experiment_numbers(results: Sequence[ExperimentResult]) -> NumberTable:
    """A row per method, a column per experiment: mean of the exact runs, else the difference from it, in points.

    A cell is the difference, its interval and the verdict; "–" where an experiment has no such method. Experiments where
    exact training learned nothing have no column.
    """
    results = [result for result in results if _learned(result)]
    labels = list(dict.fromkeys(row.label for result in results for row in result.rows))
    rows = [[label, *(_cell(result, label) for result in results)] for label in labels]
    majority = ["most frequent class", *(f"{100 * result.majority:.1f}" for result in results)]
    return NumberTable(
        name="experiments",
        commands=[f"wtacrs experiment {FOLDER}/{result.config['name']}.toml" for result in results],
        head=["", *(_title(result) for result in results)],
        rows=[majority, *rows],
    )


def lora_numbers(results: Sequence[ExperimentResult]) -> NumberTable:
    """The rows of `experiment_numbers` for adapters, and the columns of experiments that have some."""
    with_adapters = [result for result in results if any(row.label.startswith("LoRA") for row in result.rows)]
    whole = experiment_numbers(with_adapters)
    rows = [row for row in whole.rows if row[0].startswith(("exact", "LoRA"))]
    return whole.model_copy(update={"name": "experiments-lora", "rows": rows})


def _learned(result: ExperimentResult) -> bool:
    return any(row.standing is not None and row.standing.verdict != "nothing learned" for row in result.rows)


def _title(result: ExperimentResult) -> str:
    return f"{result.config['name']}, {result.metric}, {len(result.config['seeds'])} seeds"


def _cell(result: ExperimentResult, label: str) -> str:
    row = next((row for row in result.rows if row.label == label), None)
    return "–" if row is None else _told(row)


def _told(row: ExperimentRow) -> str:
    if row.standing is None:
        return f"{100 * row.mean:.1f}" + ("" if row.error is None else f" ± {100 * row.error:.1f}")
    found = row.standing
    return (
        f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] {found.verdict}".replace(
            "-", "−"
        )
    )


def committed(folder: Path = FOLDER) -> list[ExperimentResult]:
    """The results that lie beside the files of the experiments, by name.

    Raises:
        InputError: if one cannot be read.
    """
    found = [load_result(path) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if isinstance(result, ExperimentResult)]


def committed_tables(root: Path = Path()) -> list[NumberTable]:
    """Tables of results that lie in the repository, beside those of `NUMBERS`.

    Raises:
        InputError: if one cannot be read.
    """
    simulated = [load_result(path) for path in sorted((root / GALLERY).glob(SIMULATED))]
    scores = [load_result(path) for path in sorted((root / GALLERY).glob(SCORES))]
    experiments = committed(root / FOLDER)
    front = cast(FrontResult, load_result(root / FRONT))
    winners = cast(WinnersResult, load_result(root / WINNERS))
    return [
        experiment_numbers(experiments),
        lora_numbers(experiments),
        masks_numbers(cast(MasksResult, load_result(root / MASKS))),
        front_numbers(front),
        some_front_numbers(front, "front-short", SHORT_FRONT),
        some_front_numbers(front, "front-lora", LORA_FRONT),
        simulation_numbers([cast(SimulationResult, result) for result in simulated]),
        scores_numbers([cast(TrainingScoresResult, result) for result in scores]),
        winner_rule_numbers(winners),
        winner_share_numbers(winners),
        budget_numbers(cast(BudgetsResult, load_result(root / BUDGETS))),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Take results over, draw them, fill the README; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m readme_numbers.experiments", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("runs", type=Path, nargs="*", help="folders of `wtacrs experiment`")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository")
    given = parser.parse_args(arguments)
    try:
        for run in given.runs:
            _take_over(run, given.root)
        numbers = load_result(given.root / NUMBERS)
        assert isinstance(numbers, NumbersResult)
        fill(pages(given.root), [*numbers.tables, *committed_tables(given.root)])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _take_over(run: Path, root: Path) -> None:
    result = load_result(run / "experiment.json")
    if not isinstance(result, ExperimentResult):
        raise InputError(f"runs={run}: experiment.json is not the result of an experiment")
    name = result.config["name"]
    if not (root / FOLDER / f"{name}.toml").exists():
        raise InputError(f"runs={run}: there is no experiment {name!r} in {root / FOLDER}")
    write_result(root / FOLDER / f"{name}.json", result)
    figure.draw(result, root / GALLERY / f"experiment_{name}.png")


if __name__ == "__main__":
    sys.exit(main())
