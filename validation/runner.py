"""Long studies in pieces: over processes or machines, resumable, with one answer however they are distributed.

A study is a list of `Task`s, each a module-level function of picklable arguments that returns records. A finished task
is written to a file of its own at once; a study that was interrupted, or stopped at a bad layer, finds these files and
goes on. A task draws from `task_seed(seed, key)`, so that its numbers depend on neither the order nor the company.

Processes come from joblib; with a `scheduler` the same call goes to the workers of a Dask cluster.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import joblib
import torch

from wtacrs.estimators import InputError
from wtacrs.estimators.core.references import split_reference
from wtacrs.estimators.core.specs import parse, references_in
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.files import replacing
from wtacrs.validation.records.base import SCHEMA_VERSION, Record
from wtacrs.validation.seeds import checked_seed

RecordT = TypeVar("RecordT", bound=Record)
Report = Callable[[str, int, int], None]
"""Called with what was just done, how many are done, and how many there are."""

_PARTS = ".parts"


@dataclass(frozen=True)
class TaskOutput(Generic[RecordT]):
    """What one task found; `skipped` says why there was nothing to find, as for a layer whose product is zero."""

    records: tuple[RecordT, ...] = ()
    skipped: str | None = None


@dataclass(frozen=True)
class Task(Generic[RecordT]):
    """One piece of a study.

    Attributes:
        key: its name, unique in the study; it must tell everything that the result depends on.
        work: module-level function; called with the arguments, in another process perhaps.
        arguments: picklable.
        label: what the progress shows; the key if empty.
    """

    key: str
    work: Callable[..., TaskOutput[RecordT]]
    arguments: tuple[Any, ...]
    label: str = ""


@dataclass(frozen=True)
class Runner:
    """How and where the tasks of a study run.

    Attributes:
        jobs: processes (with a scheduler: tasks in flight, all of its workers if 1).
        scheduler: address of a Dask scheduler such as "tcp://host:8786"; its workers must see the captured files under
            the same path. Needs the extra `cluster`.
        folder: where finished tasks are kept until the study is whole; nothing is kept if None.
        report: called after every task.
        skipped: called with the label of a task and why it found nothing.
    """

    jobs: int = 1
    scheduler: str | None = None
    folder: Path | None = None
    report: Report | None = field(default=None, compare=False)
    skipped: Callable[[str, str], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.jobs, bool) or not isinstance(self.jobs, int) or self.jobs < 1:
            raise InputError(f"jobs={self.jobs!r} must be an integer ≥ 1")

    def run(self, record: type[RecordT], tasks: Sequence[Task[RecordT]]) -> list[RecordT]:
        """The records of all tasks, in the order of the tasks.

        Args:
            record: the class of the records.
            tasks: with distinct keys.

        Raises:
            InputError: what a task raised, with how many others are kept; on a scheduler that does not answer.
        """
        keys = [task.key for task in tasks]
        if len(set(keys)) < len(keys):
            raise InputError(f"tasks: the key {next(k for k in keys if keys.count(k) > 1)!r} stands twice")
        found = {task.key: part for task in tasks if (part := self._kept(record, task.key)) is not None}
        waiting = [task for task in tasks if task.key not in found]
        begin_work(
            f"{len(tasks)} pieces: {len(found)} are done and kept, {len(waiting)} would be computed",
            *(f"  {task.label or task.key}" for task in waiting),
        )
        for done, task in enumerate([t for t in tasks if t.key in found], start=1):
            self._tell(task, found[task.key], done, len(tasks))
        try:
            for task, part in self._outcomes(waiting):
                found[task.key] = part
                self._keep(task.key, part)
                self._tell(task, part, len(found), len(tasks))
        except InputError as error:
            raise InputError(f"{error}{self._progress(len(found), len(tasks))}") from None
        records = [one for task in tasks for one in found[task.key].records]
        if not records:  # nothing that could be gone on with
            self.forget()
        return records

    def forget(self) -> None:
        """Remove the finished tasks, once the whole result is written, or where none of them has found anything."""
        if self.folder is not None:
            shutil.rmtree(self.folder / _PARTS, ignore_errors=True)

    def _outcomes(self, tasks: Sequence[Task[RecordT]]) -> Iterator[tuple[Task[RecordT], TaskOutput[RecordT]]]:
        threads = max(torch.get_num_threads() // self.jobs, 1) if self.jobs > 1 or self.scheduler else None
        calls = [joblib.delayed(_call)(index, task, threads) for index, task in enumerate(tasks)]
        with ExitStack() as stack:
            jobs = self.jobs
            if self.scheduler is not None:
                stack.enter_context(_on_cluster(self.scheduler))
                jobs = jobs if jobs > 1 else -1
            parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
            for index, outcome in parallel(calls):
                if isinstance(outcome, InputError):
                    raise InputError(_named(tasks[index], str(outcome)))
                yield tasks[index], outcome

    def _tell(self, task: Task[RecordT], part: TaskOutput[RecordT], done: int, total: int) -> None:
        label = task.label or task.key
        if part.skipped is not None and self.skipped is not None:
            self.skipped(label, part.skipped)
        if self.report is not None:
            self.report(label, done, total)

    def _progress(self, done: int, total: int) -> str:
        if not done or self.folder is None:
            return ""
        return f" ({done} of {total} pieces are done and kept: a new run goes on from there)"

    def _path(self, key: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / _PARTS / f"{hashlib.sha256(f'{SCHEMA_VERSION} {key}'.encode()).hexdigest()}.json"

    def _kept(self, record: type[RecordT], key: str) -> TaskOutput[RecordT] | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            stored = json.loads(path.read_bytes())
            return TaskOutput(tuple(record.model_validate(one) for one in stored["records"]), stored["skipped"])
        except (ValueError, KeyError, TypeError, OSError):  # of an older version, or damaged: done anew
            return None

    def _keep(self, key: str, part: TaskOutput[RecordT]) -> None:
        path = self._path(key)
        if path is not None:
            with replacing(path) as partial:
                # by the records' own serialisation, which knows NaN and infinity
                records = [json.loads(one.model_dump_json()) for one in part.records]
                partial.write_text(json.dumps({"records": records, "skipped": part.skipped}), encoding="utf-8")


def task_seed(seed: int, key: str) -> int:
    """A seed for one task: depends on the study's seed and the task's key, and on nothing else.

    Raises:
        InputError: on an unusable seed.
    """
    seed = checked_seed(seed)
    digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


def generator_for(seed: int, key: str, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator of `task_seed` on a device."""
    return torch.Generator(device=device).manual_seed(task_seed(seed, key))


def file_mark(path: Path) -> str:
    """Name, size and time of change of a file: part of the key of a task that reads it."""
    found = path.stat()
    return f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"


def code_mark(estimators: Iterable[object]) -> str:
    """The state of the files that estimators by reference and external code come from, with a space before it.

    Part of the key of a task that runs them: a changed file is another task. Empty for what is registered.
    """
    found: set[str] = set()
    for estimator in estimators:
        text = (getattr(estimator, "origin", None) or {}).get("reference", str(estimator))
        try:
            sources = [split_reference(reference)[0] for reference in references_in(parse(text))]
        except InputError:  # no spec
            continue
        found |= {file_mark(Path(source)) for source in sources if source.endswith(".py")}
    return "".join(f" {mark}" for mark in sorted(found))


def _call(index: int, task: Task[RecordT], threads: int | None) -> tuple[int, TaskOutput[RecordT] | InputError]:
    """Run one task; a refusal comes back as a value, for the others to be finished and kept."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return index, task.work(*task.arguments)
    except InputError as error:
        return index, error


def _named(task: Task[RecordT], message: str) -> str:
    """The message of a refusal, which must say what it was about."""
    label = task.label or task.key
    return message if label in message else f"{label}: {message}"


def _on_cluster(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise InputError(f"scheduler={scheduler!r} needs Dask: pip install 'wtacrs[cluster]'") from None
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"scheduler={scheduler!r} does not answer: {error}") from None
    stack = ExitStack()
    stack.callback(client.close)
    stack.enter_context(joblib.parallel_config(backend="dask", client=client))
    return stack
