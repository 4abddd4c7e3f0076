"""The runner: one answer in any order, number of processes and kind of machine; what is done is kept."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wtacrs.estimators import InputError
from wtacrs.validation.layers.candidates import candidates_from
from wtacrs.validation.layers.captures import LayerCapture, load_captures, write_captures
from wtacrs.validation.layers.compare import compare
from wtacrs.validation.problems import make_problem
from wtacrs.validation.records.base import Record
from wtacrs.validation.runner import Runner, Task, TaskOutput, generator_for, task_seed


class Number(Record):
    key: str
    value: float


def drawn(key: str, seed: int) -> TaskOutput[Number]:
    return TaskOutput((Number(key=key, value=float(torch.rand((), generator=generator_for(seed, key)))),))


def counted(key: str, log: str) -> TaskOutput[Number]:
    with open(log, "a") as file:
        file.write(f"{key}\n")
    return TaskOutput((Number(key=key, value=math.inf),))


def refusing(key: str, log: str) -> TaskOutput[Number]:
    if key == "bad":
        raise InputError("layer bad: x or dy holds NaN or infinite values")
    return counted(key, log)


def idle(key: str) -> TaskOutput[Number]:
    return TaskOutput(skipped=f"{key} has nothing")


def tasks(names, work, *arguments) -> list[Task[Number]]:
    return [Task(name, work, (name, *arguments)) for name in names]


def test_the_order_of_the_tasks_is_kept_and_the_numbers_depend_on_key_and_seed_alone() -> None:
    names = list("dacb")
    found = Runner().run(Number, tasks(names, drawn, 3))
    assert [one.key for one in found] == names
    assert found[1:2] == Runner().run(Number, tasks("a", drawn, 3))
    assert found != Runner().run(Number, tasks(names, drawn, 4))
    assert len({task_seed(seed, key) for seed in range(20) for key in names}) == 80


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = {}
    for seed, name in enumerate(("first", "second", "third")):
        x, dy = make_problem("heavy_tailed", 40, 6, 5, generator=torch.Generator().manual_seed(seed))
        layers[name] = LayerCapture(x.float(), dy.float(), torch.ones(40, dtype=torch.bool))
    return write_captures(tmp_path_factory.mktemp("runner") / "c.safetensors", layers, {"model": "m"})


CANDIDATES = candidates_from(["crs", "systematic"], (0.2, 0.5))


def compared(path: Path, runner: Runner) -> list[Record]:
    return list(compare(load_captures(path), CANDIDATES, draws=8, seed=5, runner=runner))


@pytest.mark.usefixtures("unchecked")
def test_processes_give_what_one_process_gives(captures: Path) -> None:
    assert compared(captures, Runner(jobs=2)) == compared(captures, Runner())


@pytest.fixture
def cluster() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", processes=True
    ) as started:
        yield started.scheduler_address


@pytest.mark.usefixtures("unchecked")
def test_a_cluster_gives_what_one_process_gives(captures: Path, cluster: str) -> None:
    assert compared(captures, Runner(scheduler=cluster)) == compared(captures, Runner())


def test_a_scheduler_that_does_not_answer_is_refused() -> None:
    pytest.importorskip("distributed", reason="needs the extra `cluster`")
    with pytest.raises(InputError, match="scheduler='nonsense://x' does not answer"):
        Runner(scheduler="nonsense://x").run(Number, tasks("a", drawn, 1))


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    log, runner = tmp_path / "log", Runner(folder=tmp_path / "out")
    first = runner.run(Number, tasks("ab", counted, str(log)))
    again = runner.run(Number, tasks("abc", counted, str(log)))
    assert [one.value for one in first] == [math.inf, math.inf]
    assert again[:2] == first
    assert log.read_text().split() == ["a", "b", "c"]
    runner.forget()
    runner.run(Number, tasks("a", counted, str(log)))
    assert log.read_text().split() == ["a", "b", "c", "a"]


def test_a_refusal_names_what_is_kept_and_a_new_run_goes_on(tmp_path: Path) -> None:
    log, runner = tmp_path / "log", Runner(folder=tmp_path / "out")
    with pytest.raises(InputError, match=r"layer bad: .* \(2 of 4 pieces are done and kept"):
        runner.run(Number, tasks(["a", "b", "bad", "c"], refusing, str(log)))
    found = runner.run(Number, tasks(["a", "b", "c"], refusing, str(log)))
    assert [one.key for one in found] == ["a", "b", "c"]
    assert log.read_text().split() == ["a", "b", "c"]


def test_a_damaged_piece_is_done_anew(tmp_path: Path) -> None:
    log, runner = tmp_path / "log", Runner(folder=tmp_path / "out")
    runner.run(Number, tasks("a", counted, str(log)))
    (piece,) = (tmp_path / "out" / ".parts").iterdir()
    piece.write_text(piece.read_text()[:20])
    assert runner.run(Number, tasks("a", counted, str(log)))[0].value == math.inf
    assert log.read_text().split() == ["a", "a"]


def test_a_changed_file_is_another_study(captures: Path, tmp_path: Path) -> None:
    runner = Runner(folder=tmp_path / "out")
    before = compared(captures, runner)
    pieces = len(os.listdir(tmp_path / "out" / ".parts"))
    assert compared(captures, runner) == before
    assert len(os.listdir(tmp_path / "out" / ".parts")) == pieces
    os.utime(captures, ns=(1, 1))
    compared(captures, runner)
    assert len(os.listdir(tmp_path / "out" / ".parts")) == 2 * pieces


def test_skipped_tasks_are_told_and_counted() -> None:
    told, seen = [], []
    runner = Runner(report=lambda *done: seen.append(done), skipped=lambda *why: told.append(why))
    assert runner.run(Number, tasks("ab", idle)) == []
    assert told == [("a", "a has nothing"), ("b", "b has nothing")]
    assert seen == [("a", 1, 2), ("b", 2, 2)]


def test_misuse_names_the_argument() -> None:
    with pytest.raises(InputError, match="jobs=0 must be an integer"):
        Runner(jobs=0)
    with pytest.raises(InputError, match="the key 'a' stands twice"):
        Runner().run(Number, tasks("aa", idle))
