"""Eight tasks of GLUE and SuperGLUE, from TSV files or the Hugging Face hub.

Every example carries its text-to-text form as T5 reads it, "rte sentence1: … sentence2: …" → "entailment", and the
bare sentences for models with a classification head.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.base import Example, TaskData, task_data
from wtacrs.integration.tasks.hub import load_splits
from wtacrs.integration.tasks.tsv import Row, read_tsv, require_columns


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

    @property
    def columns(self) -> list[tuple[str, ...]]:
        """The accepted names of every column that is needed."""
        return [*self.parts.values(), self.label_columns]


_HUB = "nyu-mll/glue"
_ONE = {"sentence": ("sentence1", "sentence")}
_TWO = {"sentence1": ("sentence1",), "sentence2": ("sentence2",)}
_QNLI = {"question": ("sentence1", "question"), "sentence": ("sentence2", "sentence")}
_BOOLQ = {"question": ("sentence1", "question"), "passage": ("sentence2", "passage")}
_ENTAILS, _EQUALS = ("entailment", "not_entailment"), ("not_equivalent", "equivalent")
_ACCEPTS, _CORRELATES = ("unacceptable", "acceptable"), ("pearson", "spearman")

_GLUE = {
    "sst2": _Glue("SST-2", (_HUB, "sst2"), _ONE, ("negative", "positive")),
    "rte": _Glue("RTE", (_HUB, "rte"), _TWO, _ENTAILS),
    "mrpc": _Glue("MRPC", (_HUB, "mrpc"), _TWO, _EQUALS, ("accuracy", "f1")),
    "cola": _Glue("CoLA", (_HUB, "cola"), _ONE, _ACCEPTS, ("matthews", "accuracy")),
    "stsb": _Glue("STS-B", (_HUB, "stsb"), _TWO, None, _CORRELATES),
    "qnli": _Glue("QNLI", (_HUB, "qnli"), _QNLI, _ENTAILS),
    "wnli": _Glue("WNLI", (_HUB, "wnli"), _TWO, _ENTAILS[::-1]),
    "boolq": _Glue("BoolQ", ("google/boolq",), _BOOLQ, ("False", "True"), label_columns=("label", "answer")),
}

GLUE_TASKS: tuple[str, ...] = tuple(_GLUE)
"""Names that `glue_task` takes."""

_OFFLINE_WAYS = "--data DIR with GLUE TSV files, or --task docstrings"


def glue_task(
    name: str,
    data: Path | None,
    train_limit: int | None,
    dev_limit: int | None,
    *,
    held_out: int | None = None,
    seed: int = 0,
) -> TaskData:
    """One of `GLUE_TASKS`; the arguments are those of `load_task`.

    Raises:
        InputError: for files that are missing or malformed, or no network.
    """
    glue = _GLUE[name]
    splits, source = _from_hub(name, glue) if data is None else _from_folder(name, glue, Path(data))
    train, dev = (tuple(_examples(name, glue, rows)) for rows in splits)
    if held_out is not None:
        train, dev = _split(train, held_out, seed)
        source = f"{source}; dev: {held_out:,} of its training examples"
    limited = _subset(train, train_limit, seed), _subset(dev, dev_limit, seed)
    return task_data(name, *limited, glue.labels, glue.metrics, source)


def _from_folder(name: str, glue: _Glue, data: Path) -> tuple[tuple[list[Row], list[Row]], str]:
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
    train, dev = (read_tsv(folder / split, glue.columns) for split in ("train.tsv", "dev.tsv"))
    return (train, dev), f"GLUE TSV files of the folder {folder}"


def _from_hub(name: str, glue: _Glue) -> tuple[tuple[list[Row], list[Row]], str]:
    title = f"data set {'/'.join(glue.hub)} of the Hugging Face hub"
    splits = load_splits(f"task={name!r}: {title}", glue.hub, _OFFLINE_WAYS)
    train, dev = (
        [Row(f"{'/'.join(glue.hub)}, {part}, row {i}", row) for i, row in enumerate(splits[part])]
        for part in ("train", "validation")
    )
    for row in (train[0], dev[0]):
        require_columns(list(row.fields), glue.columns, row.where)
    return (train, dev), title


def _examples(name: str, glue: _Glue, rows: Iterable[Row]) -> Iterator[Example]:
    for row in rows:
        parts = {title: row.text(columns) for title, columns in glue.parts.items()}
        label, target = _label(row.text(glue.label_columns), glue.labels, row.where)
        yield Example(glue_input(name, tuple(parts.values())), target, label, tuple(parts.values()))


def glue_input(name: str, parts: tuple[str, ...]) -> str:
    """What a text-to-text model reads of the one or two texts of a task, as in "rte sentence1: … sentence2: …".

    Raises:
        InputError: for another number of texts.
    """
    titles = tuple(_GLUE[name].parts)
    if len(parts) != len(titles):
        raise InputError(f"task {name!r} reads {len(titles)} texts ({', '.join(titles)}), not {len(parts)}")
    return " ".join([name, *(f"{title}: {part}" for title, part in zip(titles, parts, strict=True))])


def _label(raw: str, labels: Sequence[str] | None, where: str) -> tuple[int | float, str]:
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


def _split(
    examples: tuple[Example, ...], held_out: int, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples whose texts are not held out, and those that are, in a random order."""
    if not 1 <= held_out < len(examples):
        raise InputError(f"held_out={held_out}: an integer from 1 to {len(examples) - 1} is needed")
    drawn = tuple(random.Random(f"held out {seed}").sample(examples, held_out))
    texts = {example.text for example in drawn}
    left = tuple(example for example in examples if example.text not in texts)
    if not left:
        raise InputError(f"held_out={held_out} leaves no training examples")
    return left, drawn


def _subset(examples: tuple[Example, ...], limit: int | None, seed: int) -> tuple[Example, ...]:
    """At most ``limit`` examples, the first of a seeded random order."""
    if limit is None:
        return examples
    return tuple(random.Random(seed).sample(examples, len(examples))[:limit])
