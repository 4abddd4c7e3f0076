"""An estimator from a file, and one of an installed package, in every command that takes estimators."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support.cli import refused
from support.installed import install
from support.paths import TESTS
from transformers import BertConfig

from wtacrs.estimators import available, make
from wtacrs.estimators.core import entry_points, registry
from wtacrs.integration.cli import main

EXPERIMENT = """
name = "tiny"
seeds = [3, 5]
margin = 0.2
train_limit = 8
dev_limit = 8
task = "sst2"
model = "new:bert"
[training]
steps = 1
batch_size = 4
max_length = 8
[methods]
"theirs" = '{whole}'
"""
SMALL = ["--task", "sst2", "--data", ".", "--model", "new:bert", "--max-length", "8", "--batch-size", "4"]
# {bare}: its budget left out; {whole}: with its budget
COMMANDS = {
    "compare": ["compare", "{batches}", "--estimator", "{bare}", "--budget", "0.5", "--bytes", "0.5"],
    "test": ["test", "{batches}", "--estimator", "{bare}", "--budget", "0.5", "--draws", "30"],
    "test --against": ["test", "{batches}", "--estimator", "crs(budget=0.5)", "--against", "{bare}", "--draws", "30"],
    "noise": ["noise", "{batches}", "--estimator", "{bare}", "--budget", "0.5", "--min-elements", "0"],
    "bench": ["bench", "--estimator", "{whole}", "--estimator", "{bare} at 0.5", "--sizes", "32x8x8", "--rounds", "1"],
    "simulate": ["simulate", "--estimator", "{whole}", "--model", "config.json", "--length", "8", "--batch-size", "2"],
    "memory": ["memory", "--estimator", "{whole}", *SMALL],
    "finetune": ["finetune", "--estimator", "{whole}", *SMALL, "--steps", "1"],
    "plan": ["plan", "--memory", "1GB", "--estimator", "{whole}", "--lean", "neighbours", "--captured", "2", *SMALL],
    "study masks": ["study", "masks", "--estimator", "{zoo}", "--architecture", "bert"],
    "study budgets": [
        *("study", "budgets", "--estimator", "{bare}", "--budget", "0.5", "--seeds", "1", "--steps", "1"),
        *SMALL,
    ],
    "study norms": ["study", "norms", "--estimator", "{whole}", "--steps", "1", *SMALL],
    "experiment": ["experiment", "tiny.toml", "--data", "."],
}  # fmt: skip
WRONG = {
    "missing.py:Stratified": "missing.py: no such file in ",
    "mine.py:Stratifeid": "mine.py has no 'Stratifeid'; did you mean 'Stratified'?",
    "acmee": "unknown estimator 'acmee' (did you mean acme",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder: a file with an estimator, a small task, a config; and a package that is installed."""
    folder, site = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("site")
    source = (TESTS / "support" / "third_party.py").read_text()
    (folder / "mine.py").write_text(source.replace('@register("stratified")\n', ""))
    (site / "acme_own_rows.py").write_text(source.replace('@register("stratified")\n', ""))
    install(site, "acme-estimators", {"acme": "acme_own_rows:Stratified"})
    rows = [f"{'good' if i % 2 else 'bad'} film number {i}\t{i % 2}" for i in range(24)]
    (folder / "SST-2").mkdir()
    for name in ("train", "dev"):
        (folder / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence1\tlabel", *rows]) + "\n")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "vocab_size": 64}
    config = BertConfig(**sizes, num_hidden_layers=1, architectures=["BertForSequenceClassification"])
    config.to_json_file(folder / "config.json", use_diff=False)
    with pytest.MonkeyPatch.context() as patch:
        entry_points._loaded.cache_clear()
        available()  # a room is imported once, and must stay entered
        patch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
        patch.syspath_prepend(str(site))
        patch.setattr(Figure, "savefig", lambda self, file, **given: None)  # figures have tests of their own
        patch.chdir(folder)
        yield folder
    sys.modules.pop("acme_own_rows", None)
    entry_points._loaded.cache_clear()


def run(command: str, head: str, batches: Path, out: Path) -> list[str]:
    """The arguments of a command for this estimator."""
    whole = f"{head}(budget=0.5)"
    Path("tiny.toml").write_text(EXPERIMENT.format(whole=whole))
    words = {"bare": head, "whole": whole, "zoo": whole, "batches": batches}
    return [*(part.format(**words) for part in COMMANDS[command]), "--out", str(out)]


BY_NAME = [
    pytest.param(command, "acme", marks=[] if command in ("finetune", "test") else pytest.mark.slow)
    for command in COMMANDS
]


BY_REFERENCE = [
    pytest.param(command, "mine.py:Stratified", marks=pytest.mark.slow if command == "study budgets" else [])
    for command in COMMANDS
]


@pytest.mark.parametrize(("command", "head"), BY_REFERENCE + BY_NAME)
def test_an_own_estimator_works_like_one_of_the_zoo(
    command: str, head: str, place: Path, batches: Path, tmp_path: Path
) -> None:
    assert main(run(command, head, batches, tmp_path)) == 0
    written = "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    assert f"{head}(budget=0.5)" in written


@pytest.mark.parametrize(
    ("command", "head"),
    [(c, "missing.py:Stratified") for c in COMMANDS] + [("compare", head) for head in WRONG][1:],
)
def test_a_wrong_one_is_refused_in_one_line(
    command: str, head: str, place: Path, batches: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert WRONG[head] in refused(capsys, *run(command, head, batches, tmp_path))
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.slow  # processes; what they get is pickled in the tests of references
def test_workers_and_resumed_runs_find_the_file(place: Path, batches: Path, tmp_path: Path) -> None:
    arguments = run("compare", "mine.py:Stratified", batches, tmp_path / "one")
    assert main([*arguments, "--layers", "wi", "--jobs", "2"]) == 0
    alone = run("compare", "mine.py:Stratified", batches, tmp_path / "two")
    assert main([*alone, "--layers", "wi"]) == 0
    assert (tmp_path / "one/comparison.json").read_bytes() == (tmp_path / "two/comparison.json").read_bytes()


def test_a_run_goes_on_with_its_estimator_and_says_if_its_file_is_gone(
    place: Path, batches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = run("finetune", "mine.py:Stratified", batches, tmp_path / "run")
    assert main(arguments) == 0
    assert main([*arguments, "--resume"]) == 0
    data = [str(place) if word == "." else word for word in arguments]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    told = refused(capsys, *data, "--resume")
    assert f"mine.py: no such file in {tmp_path}" in told
    assert make(f"{place}/mine.py:Stratified(budget=0.5)").traits.unbiased
