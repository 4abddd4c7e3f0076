"""Tasks: the offline ``docstrings`` and eight of GLUE and SuperGLUE, from TSV files or the Hugging Face hub.

Every example carries its text-to-text form as T5 reads it, "rte sentence1: … sentence2: …" → "entailment", and the
bare sentences for models with a classification head.
"""

from __future__ import annotations

import difflib
import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.docstrings import LIBRARIES, Sentence, load_sentences
from wtacrs.integration.tasks.hub import hub_problem, one_line, quiet, refuse


@dataclass(frozen=True)
class Example:
    """`text` → `target` is the text-to-text form; `parts` are the one or two bare sentences.

    `label` is the index of the class, or the number in regression.
    """

    text: str
    target: str
    label: int | float
    parts: tuple[str, ...]


@dataclass(frozen=True)
class TaskData:
    """A task with its examples.

    `labels` holds the target words by class index, None for regression. `metrics[0]` is the main metric;
    `majority` is what it gives on dev to the most frequent training label, or in regression to the training mean
    (a constant: its correlation is 0). `source` says in one line where the examples came from.
    """

    name: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    majority: float
    source: str

    @property
    def description(self) -> str:
        """Size, labels and baseline in one line."""
        kind = "numbers from 0 to 5" if self.labels is None else f"{len(self.labels)} labels"
        return (
            f"{self.name}: {len(self.train):,} train and {len(self.dev):,} dev examples, {kind}; "
            f"the majority baseline has a dev {self.metrics[0]} of {self.majority:.3f}"
        )


@dataclass(frozen=True)
class _Glue:
    """How one task is written.

    `parts` maps the title of each part of the text to the accepted names of its column: of the TSV files, then
    of the hub. `labels` are in the order of the integer labels 0 and 1.
    """

    folder: str
    hub: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...] = ("accuracy",)
    label_columns: tuple[str, ...] = ("label",)


@dataclass(frozen=True)
class _Row:
    """One row of a file or of the hub, and where it is, for messages."""

    where: str
    fields: Mapping[str, object]


_GLUE_HUB = "nyu-mll/glue"
_ONE = {"sentence": ("sentence1", "sentence")}
_TWO = {"sentence1": ("sentence1",), "sentence2": ("sentence2",)}
_QNLI = {"question": ("sentence1", "question"), "sentence": ("sentence2", "sentence")}
_BOOLQ = {"question": ("sentence1", "question"), "passage": ("sentence2", "passage")}
_ENTAILS, _EQUALS = ("entailment", "not_entailment"), ("not_equivalent", "equivalent")
_ACCEPTS, _CORRELATES = ("unacceptable", "acceptable"), ("pearson", "spearman")

_GLUE = {
    "sst2": _Glue("SST-2", (_GLUE_HUB, "sst2"), _ONE, ("negative", "positive")),
    "rte": _Glue("RTE", (_GLUE_HUB, "rte"), _TWO, _ENTAILS),
    "mrpc": _Glue("MRPC", (_GLUE_HUB, "mrpc"), _TWO, _EQUALS, ("accuracy", "f1")),
    "cola": _Glue("CoLA", (_GLUE_HUB, "cola"), _ONE, _ACCEPTS, ("matthews", "accuracy")),
    "stsb": _Glue("STS-B", (_GLUE_HUB, "stsb"), _TWO, None, _CORRELATES),
    "qnli": _Glue("QNLI", (_GLUE_HUB, "qnli"), _QNLI, _ENTAILS),
    "wnli": _Glue("WNLI", (_GLUE_HUB, "wnli"), _TWO, _ENTAILS[::-1]),
    "boolq": _Glue("BoolQ", ("google/boolq",), _BOOLQ, ("False", "True"), label_columns=("label", "answer")),
}

TASKS: tuple[str, ...] = ("docstrings", *_GLUE)
"""Names that `load_task` takes."""

_OFFLINE_WAYS = "--data DIR with GLUE TSV files, or --task docstrings"


def load_task(
    name: str,
    *,
    data: Path | None = None,
    train_limit: int | None = None,
    dev_limit: int | None = None,
    seed: int = 0,
) -> TaskData:
    """Load a task.

    Args:
        name: one of `TASKS`.
        data: folder with SST-2/, RTE/, … that hold train.tsv and dev.tsv (UTF-8, a header, tab separated, no
            quoting, columns ``sentence1 [sentence2] label``), or such a task's own folder; None takes the hub.
            ``docstrings`` reads the installed libraries and takes no folder.
        train_limit: keep at most so many training examples, a random subset that grows with the limit (for
            ``docstrings`` a prefix, which is balanced); None keeps all, in their order.
        dev_limit: the same for dev.
        seed: of the random subsets.

    Raises:
        InputError: for an unknown task, a limit below 1, files that are missing or malformed, or no network.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(str(name).casefold(), TASKS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"task={name!r} is unknown; {hint}Tasks: {', '.join(TASKS)}")
    for argument, limit in (("train_limit", train_limit), ("dev_limit", dev_limit)):
        if limit is not None and limit < 1:
            raise InputError(f"{argument}={limit}: an integer from 1, or none for all examples, is needed")
    if name == "docstrings":
        return _docstrings(data, train_limit, dev_limit)
    glue = _GLUE[name]
    splits, source = _from_folder(name, Path(data)) if data is not None else _from_hub(name)
    train, dev = (tuple(_examples(name, rows)) for rows in splits)
    return _task(
        name, _subset(train, train_limit, seed), _subset(dev, dev_limit, seed), glue.labels, glue.metrics, source
    )


def _task(
    name: str,
    train: tuple[Example, ...],
    dev: tuple[Example, ...],
    labels: tuple[str, ...] | None,
    metrics: tuple[str, ...],
    source: str,
) -> TaskData:
    from wtacrs.integration.tasks.metrics import score

    values = [example.label for example in train]
    if labels is None:
        constant = sum(values) / len(values)
    else:
        counts = Counter(values)
        constant = min(counts, key=lambda label: (-counts[label], label))
    main = score(metrics[:1], [constant] * len(dev), [example.label for example in dev])
    return TaskData(name, train, dev, labels, metrics, main[metrics[0]], source)


def _docstrings(data: Path | None, train_limit: int | None, dev_limit: int | None) -> TaskData:
    if data is not None:
        raise InputError(
            f"data={str(data)!r}: task 'docstrings' reads the installed libraries, it takes no folder"
        )

    def example(sentence: Sentence) -> Example:
        label = LIBRARIES.index(sentence.library)
        return Example(f"docstrings sentence: {sentence.text}", sentence.library, label, (sentence.text,))

    train, dev = load_sentences()
    versions = [f"{library} {version(library)}" for library in LIBRARIES if library != "python"]
    source = f"docstrings of {', '.join(versions)} and Python {'.'.join(map(str, sys.version_info[:3]))}"
    train_examples = tuple(map(example, train[:train_limit]))
    dev_examples = tuple(map(example, dev[:dev_limit]))
    return _task("docstrings", train_examples, dev_examples, LIBRARIES, ("accuracy",), source)


def _from_folder(name: str, data: Path) -> tuple[tuple[list[_Row], list[_Row]], str]:
    glue = _GLUE[name]
    if not data.is_dir():
        raise InputError(
            f"data={str(data)!r} is no folder; a folder that holds {glue.folder}/, or that one itself, is needed"
        )
    folder = data / glue.folder if (data / glue.folder).is_dir() else data
    missing = [split for split in ("train.tsv", "dev.tsv") if not (folder / split).is_file()]
    if missing:
        raise InputError(
            f"data={str(data)!r}: {' and '.join(missing)} missing in {folder}; "
            f"task {name!r} needs train.tsv and dev.tsv there, or in {glue.folder}/ below"
        )
    train, dev = (_read_tsv(folder / split, glue) for split in ("train.tsv", "dev.tsv"))
    return (train, dev), f"GLUE TSV files of the folder {folder}"


def _read_tsv(path: Path, glue: _Glue) -> list[_Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read_text would turn carriage returns into line ends
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({one_line(error)})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    # not by csv either: a carriage return inside a field would end the row there, and shift line numbers
    lines = ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1))
    rows = [(number, line.split("\t")) for number, line in lines if line]
    if len(rows) < 2:
        raise InputError(f"{path}: no examples; a header ({_wanted(glue)}) and at least one row are needed")
    header = rows[0][1]
    _check_columns(header, glue, f"{path}, line {rows[0][0]}")
    for number, fields in rows[1:]:
        if len(fields) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(fields)} fields, the header has {len(header)} ({', '.join(header)})"
            )
    return [_Row(f"{path}, line {number}", dict(zip(header, row, strict=True))) for number, row in rows[1:]]


def _wanted(glue: _Glue) -> str:
    return ", ".join(names[0] for names in (*glue.parts.values(), glue.label_columns))


def _check_columns(columns: Sequence[str], glue: _Glue, where: str) -> None:
    if any(set(names).isdisjoint(columns) for names in (*glue.parts.values(), glue.label_columns)):
        raise InputError(
            f"{where}: needed are the tab-separated columns {_wanted(glue)}; found: {', '.join(columns)}"
        )


def _from_hub(name: str) -> tuple[tuple[list[_Row], list[_Row]], str]:
    glue = _GLUE[name]
    title = "/".join(glue.hub)
    problem = hub_problem("dataset", glue.hub[0])
    offline = problem == "HF_HUB_OFFLINE is set"  # an earlier download may still be in the cache
    if problem is not None and not offline:
        raise refuse(f"task={name!r}: data set {title} of the Hugging Face hub", problem, _OFFLINE_WAYS)
    try:
        with _quiet_datasets():
            from datasets import load_dataset

            splits = load_dataset(*glue.hub)
    except Exception as error:  # whatever the libraries make of a broken download or an empty cache
        reason = f"{problem} and it is not in the cache" if offline else one_line(error)
        raise refuse(f"task={name!r}: data set {title} of the Hugging Face hub", reason, _OFFLINE_WAYS) from error
    train, dev = (
        [_Row(f"{title}, {part}, row {i}", row) for i, row in enumerate(splits[part])] for part in _SPLITS
    )
    for row in (train[0], dev[0]):
        _check_columns(list(row.fields), glue, row.where)
    return (train, dev), f"data set {title} of the Hugging Face hub"


def digest(task: TaskData) -> str:
    """What tells two sets of examples apart: a hash of all texts, targets and labels, in their order."""
    found = hashlib.sha256()
    for example in (*task.train, *task.dev):
        found.update(repr((example.text, example.target, example.label, example.parts)).encode())
    return found.hexdigest()[:16]


_SPLITS = ("train", "validation")


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with quiet():
            yield
    finally:
        if shown:
            enable_progress_bars()


def _examples(name: str, rows: Iterable[_Row]) -> Iterator[Example]:
    glue = _GLUE[name]
    for row in rows:
        parts = {title: _field(row, columns) for title, columns in glue.parts.items()}
        label, target = _label(_field(row, glue.label_columns), glue.labels, row.where)
        text = " ".join([name, *(f"{title}: {part}" for title, part in parts.items())])
        yield Example(text, target, label, tuple(parts.values()))


def _field(row: _Row, columns: Sequence[str]) -> str:
    return str(next(row.fields[column] for column in columns if column in row.fields)).strip()


def _label(raw: str, labels: tuple[str, ...] | None, where: str) -> tuple[int | float, str]:
    """Label and target; numbers are spelled to the nearest fifth, so that there are few of them, as for T5."""
    if labels is None:
        try:
            value = float(raw)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 5:
            raise InputError(f"{where}: label {raw!r}; a number from 0 to 5 is needed")
        return value, f"{round(value * 5) / 5:.1f}"
    spellings = {label: i for i, label in enumerate(labels)} | {str(i): i for i in range(len(labels))}
    if raw not in spellings:
        raise InputError(f"{where}: label {raw!r}; one of {', '.join(spellings)} is needed")
    return spellings[raw], labels[spellings[raw]]


def _subset(examples: tuple[Example, ...], limit: int | None, seed: int) -> tuple[Example, ...]:
    """At most ``limit`` examples, the first of a seeded random order."""
    if limit is None:
        return examples
    return tuple(random.Random(seed).sample(examples, len(examples))[:limit])
