"""A run that is killed by SIGKILL, at a step or while it writes, ends after `resume` as one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.killed import KilledAt, kill, wide
from support.runs import CONFIG, TASK, same_weights, without_times
from torch import nn
from transformers import PreTrainedTokenizerBase

from wtacrs.integration.cli import main
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import finetune
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.training import TrainingResult

tensorboard = pytest.importorskip("tensorboard", reason="tensorboard is not installed")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, to be killed")


@pytest.fixture(scope="module")
def config() -> FinetuneConfig:
    """Dropout, an estimator, accumulation, a short last batch, bf16, and everything that is written."""
    return CONFIG.but(
        steps=7,
        batch_size=12,
        accumulation=2,
        eval_every=2,
        save_every=3,
        clip=0.5,
        schedule="cosine",
        precision="bf16",
        estimator="wta_crs(budget=0.2)",
    )


@pytest.fixture(scope="module")
def whole(
    config: FinetuneConfig, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainingResult, nn.Module]:
    """The run that was not killed."""
    out, model = tmp_path_factory.mktemp("whole"), wide(tokenizer)
    return out, finetune(config.but(out=out, tensorboard=True), TASK, model, tokenizer), model


def killed(work: Callable[[], Any]) -> None:
    """Run something in a process of its own, which must be killed by itself."""

    def earlier() -> None:
        now = time.time
        time.time = lambda: (
            now() - 10
        )  # event files are read in the order of the seconds in which they were opened
        work()

    child = multiprocessing.get_context("fork").Process(target=earlier)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def check_equal(whole: tuple[Path, TrainingResult, nn.Module], out: Path, tokenizer: Any, config: Any) -> None:
    """Resume, and compare everything that the two runs have left."""
    folder, expected, trained = whole
    torch.manual_seed(99)
    model = wide(tokenizer)
    with torch.no_grad():
        model.shared.weight.zero_()  # what it was before does not matter
    result = finetune(config.but(out=out, resume=True, tensorboard=True), TASK, model, tokenizer)
    assert without_times(result) == without_times(expected)
    assert same_weights(trained, model)
    for name in ("best/model.safetensors", "last/model.safetensors"):
        assert (folder / name).read_bytes() == (out / name).read_bytes()
    assert lines(folder) == lines(out)
    assert events(folder) == events(out)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    first, second = (torch.load(path / "state.pt", weights_only=True) for path in (folder, out))
    assert torch.equal(first["random"]["cpu"], second["random"]["cpu"])
    for one, two in zip(first["optimizer"]["state"].values(), second["optimizer"]["state"].values(), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert first["scheduler"] == second["scheduler"]


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "examples_per_second", "peak_memory_bytes")
    return [{key: value for key, value in line.items() if key not in timed} for line in found]


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name → (step, value) as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


@pytest.mark.parametrize("step", [1, 3, 4, 6, 7])
def test_killed_in_the_middle_of_a_step(
    whole: Any, config: FinetuneConfig, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, step: int
) -> None:
    part = config.but(out=tmp_path, tensorboard=True)
    killed(lambda: finetune(part, TASK, wide(tokenizer), tokenizer, observer=KilledAt(step)))
    check_equal(whole, tmp_path, tokenizer, config)


def die_at_call(monkeypatch: pytest.MonkeyPatch, method: str, call: int) -> None:
    """Kill the process instead of the nth call of a method of `Path`."""
    honest, count = getattr(Path, method), iter(range(1, 100))

    def fatal(self: Path, target: Path) -> Path:
        if next(count) == call:
            kill()
        return honest(self, target)

    monkeypatch.setattr(Path, method, fatal)


@pytest.mark.parametrize(
    ("method", "call"),
    [
        # between the renames of a checkpoint
        *(("rename", call) for call in (1, 2, 3, 4)),
        # before a file takes its place
        *(("replace", call) for call in (4, 6, 9)),
    ],
)
def test_killed_while_files_change_places(
    whole: Any,
    config: FinetuneConfig,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    call: int,
) -> None:
    def work() -> None:
        die_at_call(monkeypatch, method, call)
        finetune(config.but(out=tmp_path, tensorboard=True), TASK, wide(tokenizer), tokenizer)

    killed(work)
    check_equal(whole, tmp_path, tokenizer, config)


def test_a_generator_that_is_not_put_back_is_found(
    whole: Any,
    config: FinetuneConfig,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = config.but(out=tmp_path, tensorboard=True)
    killed(lambda: finetune(part, TASK, wide(tokenizer), tokenizer, observer=KilledAt(5)))
    monkeypatch.setattr("wtacrs.integration.training.checkpoints.set_random_states", lambda states: None)
    with pytest.raises(AssertionError):
        check_equal(whole, tmp_path, tokenizer, config)


def test_tensorboard_has_every_step_and_evaluation(whole: Any) -> None:
    folder, result, _ = whole
    found = events(folder)
    assert set(found) == {"train/loss", "train/learning_rate", "train/gradient_norm", "dev/accuracy"}
    assert [step for step, _ in found["train/loss"]] == list(range(1, 8))
    assert found["dev/accuracy"] == [(p.step, pytest.approx(p.dev["accuracy"])) for p in result.history]
    losses = [loss for _, loss in found["train/loss"]]
    assert result.history[1].train_loss == pytest.approx(sum(losses[:2]) / 2)
    rates = [rate for _, rate in found["train/learning_rate"]]
    assert rates == sorted(rates, reverse=True)
    assert all(norm > 0 for _, norm in found["train/gradient_norm"])
    assert [line["gradient_norm"] for line in lines(folder)[1:]] == pytest.approx(
        [dict(found["train/gradient_norm"])[p.step] for p in result.history[1:]]
    )


@pytest.mark.slow
def test_the_command_killed_from_outside_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two interpreters: the one that is killed, and this one."""
    (tmp_path / "SST-2").mkdir()
    rows = [f"{'good' if i % 2 else 'bad'} film number {i}\t{i % 2}" for i in range(24)]
    for name in ("train", "dev"):
        (tmp_path / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence1\tlabel", *rows]) + "\n")
    options = ["finetune", "--task", "sst2", "--data", str(tmp_path), "--steps", "24", "--batch-size", "8"]
    options += ["--eval-every", "8", "--save-every", "3", "--out"]
    part, entire = tmp_path / "part", tmp_path / "whole"
    running = subprocess.Popen(
        [sys.executable, "-m", "wtacrs.integration.cli", *options, str(part)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ends = time.monotonic() + 60
    while not (part / "best").exists() and running.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (part / "result.json").exists()
    assert main([*options, str(part), "--resume"]) == 0
    assert main([*options, str(entire)]) == 0
    one, two = load_result(part / "result.json"), load_result(entire / "result.json")
    assert isinstance(one, TrainingResult)
    assert isinstance(two, TrainingResult)
    assert without_times(one) == without_times(two)
    assert (part / "last/model.safetensors").read_bytes() == (entire / "last/model.safetensors").read_bytes()
    assert lines(part) == lines(entire)
