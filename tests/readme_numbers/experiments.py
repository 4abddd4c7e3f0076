"""From results of experiments to README and docs: tables of those that lie in `integration/experiments/`.

    python -m readme_numbers.experiments runs/minilm-sst2 runs/minilm-mrpc …

takes over the results and figures of these folders, and fills README and docs.
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
    confounder_numbers,
    front_numbers,
    growth_numbers,
    interval_text,
    masks_numbers,
    mean_text,
    scores_numbers,
    simulation_numbers,
    some_front_numbers,
    winner_rule_numbers,
    winner_share_numbers,
)
from wtacrs.estimators import InputError
from wtacrs.figures.plots import experiment as experiment_figure
from wtacrs.figures.plots import factorial as factorial_figure
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.budgets import BudgetsResult
from wtacrs.validation.records.experiment import Equivalence, ExperimentResult, ExperimentRow
from wtacrs.validation.records.factorial import CellMean, Contrast, FactorialResult
from wtacrs.validation.records.front import FrontResult
from wtacrs.validation.records.growth import GrowthResult
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
BUDGETS = {
    "budgets": GALLERY / "budgets_t5-base.json",
    "budgets-trained": GALLERY / "budgets_t5-sst2.json",
}
GROWTH = GALLERY / "growth.json"
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


def own_numbers(result: ExperimentResult) -> NumberTable:
    """A row per method of one experiment: its mean, its difference from exact training, and of the dev loss."""
    losses = any(row.loss_standing is not None for row in result.rows)
    head = ["", f"{result.metric}, {_title_seeds(result)}", "beside exact, points"]

    def told(row: ExperimentRow) -> list[str]:
        cells = [row.label, mean_text(row.mean, row.error), _difference(row.standing, 100.0, 1)]
        if not losses:
            return cells
        exact = row.loss_standing is None and row.loss is not None
        return [*cells, f"{row.loss:.3f}" if exact else _difference(row.loss_standing, 1.0, 3)]

    return NumberTable(
        name=result.config["name"],
        commands=[_command(result)],
        head=[*head, "dev loss beside exact, nats"] if losses else head,
        rows=[told(row) for row in result.rows],
    )


def cell_numbers(result: FactorialResult) -> NumberTable:
    """A row per combination of the other factors, a column per level of the first: mean ± standard error, in points."""
    first, *others = result.factors
    by_rest: dict[str, dict[str, CellMean]] = {}
    for cell in result.cells:
        by_rest.setdefault(", ".join(cell.levels[name] for name in others), {})[cell.levels[first]] = cell
    levels = list(result.factors[first])
    return NumberTable(
        name=f"{result.config['name']}-cells",
        commands=[_command(result)],
        head=[", ".join(others), *levels],
        rows=[
            [rest, *(mean_text(cells[level].mean, cells[level].error) for level in levels)]
            for rest, cells in by_rest.items()
        ],
    )


def contrast_numbers(result: FactorialResult) -> NumberTable:
    """A row per effect and interaction of the first factor, in points."""

    def told(one: Contrast) -> list[str]:
        where = "over all" if one.factor is None else f"{one.factor} {one.at}"
        if one.kind == "interaction" and one.factor is not None:
            where += f" − {result.factors[one.factor][0]}"
        return [
            f"{one.treatment}, {where}",
            one.kind,
            f"{interval_text(one.difference, one.low, one.high, 100.0, 1)} {one.verdict}",
        ]

    return NumberTable(
        name=result.config["name"],
        commands=[_command(result)],
        head=["", "kind", f"beside {next(iter(result.factors.values()))[0]}, points"],
        rows=[told(one) for one in result.contrasts],
    )


def _command(result: ExperimentResult | FactorialResult) -> str:
    return f"wtacrs experiment {result.config['name']}"


def _learned(result: ExperimentResult) -> bool:
    return any(row.standing is not None and row.standing.verdict != "nothing learned" for row in result.rows)


def _title(result: ExperimentResult) -> str:
    return f"{result.config['name']}, {result.metric}, {_title_seeds(result)}"


def _title_seeds(result: ExperimentResult) -> str:
    return f"{len(result.config['seeds'])} seeds"


def _cell(result: ExperimentResult, label: str) -> str:
    row = next((row for row in result.rows if row.label == label), None)
    return "–" if row is None else _told(row)


def _told(row: ExperimentRow) -> str:
    return mean_text(row.mean, row.error) if row.standing is None else _difference(row.standing, 100.0, 1)


def _difference(found: Equivalence | None, scale: float, digits: int) -> str:
    if found is None:
        return "–"
    return f"{interval_text(found.difference, found.low, found.high, scale, digits)} {found.verdict}"


def committed(folder: Path = FOLDER) -> list[Result]:
    """The results that lie beside the files of the experiments, by name.

    Raises:
        InputError: if one cannot be read.
    """
    return [load_result(path) for path in sorted(folder.glob("*.json"))]


def committed_tables(root: Path = Path()) -> list[NumberTable]:
    """Tables of results that lie in the repository, beside those of `NUMBERS`.

    Raises:
        InputError: if one cannot be read.
    """
    simulated = [load_result(path) for path in sorted((root / GALLERY).glob(SIMULATED))]
    scores = [load_result(path) for path in sorted((root / GALLERY).glob(SCORES))]
    results = committed(root / FOLDER)
    experiments = [result for result in results if isinstance(result, ExperimentResult)]
    small = [result for result in experiments if result.config.get("held_out") is None]
    own = [own_numbers(result) for result in experiments if result not in small]
    crossed = [result for result in results if isinstance(result, FactorialResult)]
    front = cast(FrontResult, load_result(root / FRONT))
    winners = cast(WinnersResult, load_result(root / WINNERS))
    growth = cast(GrowthResult, load_result(root / GROWTH))
    return [
        experiment_numbers(small),
        *own,
        *(make(result) for result in crossed for make in (contrast_numbers, cell_numbers)),
        lora_numbers(experiments),
        masks_numbers(cast(MasksResult, load_result(root / MASKS))),
        front_numbers(front),
        some_front_numbers(front, "front-short", SHORT_FRONT),
        some_front_numbers(front, "front-lora", LORA_FRONT),
        simulation_numbers([cast(SimulationResult, result) for result in simulated]),
        scores_numbers([cast(TrainingScoresResult, result) for result in scores]),
        winner_rule_numbers(winners),
        winner_share_numbers(winners),
        growth_numbers(growth),
        confounder_numbers(growth),
        *(budget_numbers(cast(BudgetsResult, load_result(root / path)), name) for name, path in BUDGETS.items()),
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
    path = run / ("experiment.json" if (run / "experiment.json").exists() else "factorial.json")
    result = load_result(path)
    if not isinstance(result, ExperimentResult | FactorialResult):
        raise InputError(f"runs={run}: {path.name} is not the result of an experiment")
    name = result.config["name"]
    if not (root / FOLDER / f"{name}.toml").exists():
        raise InputError(f"runs={run}: there is no experiment {name!r} in {root / FOLDER}")
    write_result(root / FOLDER / f"{name}.json", result)
    picture = root / GALLERY / f"experiment_{name}.png"
    if isinstance(result, ExperimentResult):
        experiment_figure.draw(result, picture)
    else:
        factorial_figure.draw(result, picture)


if __name__ == "__main__":
    sys.exit(main())
