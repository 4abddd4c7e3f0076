"""Several gloo processes on this machine, forked from the test, each running the same function."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wtacrs.integration.parallel.processes import Processes

LIMIT = 120.0
"""Seconds after which processes that wait for each other are given up."""


def in_processes(work: Callable[[], Any], folder: Path, *, count: int = 2, killed: bool = False) -> list[Any]:
    """What `work` returns in every process, by rank; `killed` if the processes are to end themselves by a signal."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_run, args=(work, folder / f"{rank}.pt", rank, count, port))
        for rank in range(count)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(LIMIT)
    for child in children:
        child.kill()  # those that still wait for one that has failed
        child.join()
    if killed:
        assert all(child.exitcode not in (0, 1) for child in children), [child.exitcode for child in children]
        return []
    outcomes = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]
    for error, _ in outcomes:
        assert error is None, error
    return [result for _, result in outcomes]


def _run(work: Callable[[], Any], out: Path, rank: int, count: int, port: int) -> None:
    from accelerate.state import AcceleratorState

    started = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in started.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    AcceleratorState._reset_state(True)  # what the test itself has trained in one process
    outcome: tuple[str | None, Any]
    try:
        processes = Processes.started()
        outcome = None, work()
        processes.end()
    except BaseException:
        outcome = traceback.format_exc(), None
    torch.save(outcome, out)
    os._exit(
        0 if outcome[0] is None else 1
    )  # what the parent has registered to be done at the end is the parent's
