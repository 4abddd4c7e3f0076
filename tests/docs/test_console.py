"""What console blocks show runs, with `--dry-run` where a command has it, beside the files that their pages name."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from support import figure_examples as examples
from support.captures import capture
from support.pages import DOCS, PAGES, blocks, console_lines, name
from support.result_examples import plan as example_plan

from wtacrs.integration.cli import main
from wtacrs.integration.studies.experiment import ExperimentConfig
from wtacrs.integration.studies.experiment_config import read_config
from wtacrs.integration.studies.factorial import FactorialConfig
from wtacrs.validation.layers.captures import write_captures
from wtacrs.validation.records.results import write_result

WITH_COMMANDS = [page for page in PAGES if console_lines(page)]
KINDS = {"methods": ExperimentConfig, "factors": FactorialConfig}
WITH_TOML = [page for page in PAGES if blocks(page, "toml")]
DRY = (
    "capture",
    "compare",
    "test",
    "noise",
    "sweep",
    "finetune",
    "memory",
    "plan",
    "bench",
    "pretrain",
    "theory",
    "demo",
    "study",
)
QUICK: dict[str, list[str]] = {"check": ["--limit", "0.2"]}
"""Options that keep a command short which has no dry run."""
ENDS = {"check": {0, 3}}
"""Exit codes: what a check cannot decide in so short a time is undecided."""
ROWS = [
    (f"{'fine' if i % 2 else 'dull'} film {i}", ("good", "bad")[i % 2], f"{i / 3:.2f}", f"Film {i}.")
    for i in range(40)
]
COLUMNS = ("review", "verdict", "score", "summary")
MINE = '''
from dataclasses import dataclass

from wtacrs.estimators.rows.crs import CRS


@dataclass(frozen=True, repr=False)
class Mine(CRS):
    """Draws as CRS does."""

    budget: float | int = 0.3


@dataclass(frozen=True, repr=False)
class Sampled(CRS):
    """Likewise."""
'''


def rows(*names: str) -> list[dict[str, str]]:
    """Rows under column names: text columns first, then what the name is of."""
    place = dict(zip(COLUMNS, range(4), strict=True)) | {"question": 0, "answer": 3, "article": 0}
    return [{one: row[place[one]] for one in names} for row in ROWS]


def write_table(path: Path, *names: str) -> None:
    found = rows(*names)
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in found), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(found)


@pytest.fixture(scope="module", autouse=True)
def _as_a_user_runs_it(unchecked_module: None) -> None:
    """Signatures are checked where they are written, in the tests of estimators and validation."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file and folder that pages name, with one small trained run."""
    folder = tmp_path_factory.mktemp("shelf")
    for file in ("reviews.csv", "held-out.csv", "another.csv", "new.csv", "reviews.parquet"):
        write_table(folder / file, "review", "verdict")
    write_table(folder / "pairs.tsv", "question", "answer", "score")
    for file in ("articles.jsonl", "dev.jsonl"):
        write_table(folder / file, "article", "summary")
    for task, pair in (("SST-2", False), ("RTE", True), ("MRPC", True)):
        (folder / "GLUE" / task).mkdir(parents=True)
        head = "sentence1\tsentence2\tlabel\n" if pair else "sentence1\tlabel\n"
        body = "".join(f"a film {i}\t{f'film {i}' + chr(9) if pair else ''}{i % 2}\n" for i in range(40))
        for split in ("train", "dev"):
            (folder / "GLUE" / task / f"{split}.tsv").write_text(head + body, encoding="utf-8")
    (folder / "mine.py").write_text(MINE, encoding="utf-8")
    write_captures(
        folder / "captures.safetensors", {"a#0": capture(0, 40, 6, 5), "b#0": capture(1, 40, 6, 5)}, {"model": "m"}
    )
    write_result(folder / "comparison.json", examples.comparison(examples.LAYERS[:2]))
    write_result(folder / "plan.json", example_plan())
    write_result(folder / "sweep.json", examples.sweep(examples.LAYERS[:2]))
    write_result(folder / "figures" / "gallery" / "check.json", examples.check())
    tables = [
        f"--train={folder / 'reviews.csv'}",
        f"--dev={folder / 'held-out.csv'}",
        "--text=review",
        "--label=verdict",
    ]
    small = ["--model=new:bert", "--steps=1", "--batch-size=4", "--max-length=16", "--baseline-steps=0"]
    assert main(["finetune", *tables, *small, "--out", str(folder / "trained")]) == 0
    shutil.copytree(folder / "trained" / "best", folder / "DIR")
    return folder


@pytest.fixture
def run(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], None]:
    """Runs one line in a folder of its own that holds what is on the shelf."""
    for each in shelf.iterdir():
        if each.name != "trained":
            (tmp_path / each.name).symlink_to(each)
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> None:
        command, *words = shlex.split(line)[1:]
        reads = [
            word for word in words if word.startswith("runs") and command in ("evaluate", "predict", "report")
        ]
        for folder in [*reads, *([words[words.index("--out") + 1]] if "--resume" in words else [])]:
            if not Path(folder).exists():
                shutil.copytree(shelf / "trained", folder)
        more = ["--dry-run"] if command in DRY and "--resume" not in words else QUICK.get(command, [])
        assert main([command, *words, *more]) in ENDS.get(command, {0}), f"{line}\n{capsys.readouterr().err}"

    return run


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
def test_commands_run(page: Path, run: Callable[[str], None]) -> None:
    for line in console_lines(page):
        run(line)


@pytest.mark.parametrize("page", WITH_TOML, ids=name)
def test_what_an_experiment_takes_is_read_by_it(page: Path, run: Callable[[str], None]) -> None:
    """A block with a name is a whole file; to a part of one is added what every experiment has."""
    for block in blocks(page, "toml"):
        file, whole = Path("experiment.toml"), block.startswith("name =")
        rest = "" if whole else '\n[methods]\n"CRS" = "crs(budget=0.1)"\n'
        file.write_text(block if whole else f'name = "shown"\n{block}{rest}', encoding="utf-8")
        assert (read_config(file, KINDS).data is None) == whole


def test_the_page_of_experiments_shows_all_keys() -> None:
    whole, _ = (block for block in blocks(DOCS / "how-to" / "experiment.md", "toml") if block.startswith("name ="))
    missing = set(ExperimentConfig.model_fields) - set(tomllib.loads(whole)) - {"data", "tokenizer"}
    assert not missing


def test_what_a_command_tells_of_own_files_is_what_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, count in (("train.csv", 40), ("dev.csv", 16)):
        lines = [f"{file} film {i},{('very good', 'bad')[i % 2]}" for i in range(count)]
        Path(file).write_text("\n".join(["review,verdict", *lines]) + "\n", encoding="utf-8")
    arguments = ["--train=train.csv", "--dev=dev.csv", "--text=review", "--label=verdict", "--model=new:bert"]
    assert main(["finetune", *arguments, "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    shown = [" ".join(block.split()) for page in PAGES for block in blocks(page, "text")]
    assert shown
    assert all(block in told for block in shown), told
