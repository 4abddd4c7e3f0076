"""A task from somebody's own files: which columns are the text, its label or its target.

Labels are classes or numbers: where nobody says which, whole numbers and names are classes, and numbers of which one has
a fraction are regression. What was decided is in `TaskData.source`.
"""

from __future__ import annotations

import difflib
import math
import random
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from wtacrs.estimators.core.errors import InputError, WtacrsWarning
from wtacrs.integration.tasks.base import Example, TaskData, digest, task_data
from wtacrs.integration.tasks.metrics import TEXT_METRICS
from wtacrs.integration.tasks.own_rows import OwnRows, check_path, read_rows
from wtacrs.integration.tasks.tsv import Row

LabelKind = Literal["classes", "numbers"]
"""What labels may be said to be."""

_LEVELS = 20
"""Numbers are spelled for text-to-text models so that a scale has from 20 to 200 of them, as few as that allows."""


@dataclass(frozen=True)
class OwnFiles:
    """Names of files and columns, as the command line takes them.

    Attributes:
        train: file of training examples (`wtacrs.integration.tasks.own_rows`).
        dev: file of dev examples; None where nothing is evaluated, or with `dev_share`.
        text: column of the text.
        text2: column of a second text, for pairs.
        label: column of classes or numbers.
        target: column of texts that a text-to-text model is to write, in place of `label`.
        label_kind: "classes" or "numbers"; None to tell from the labels.
        dev_share: share of the rows of `train` that become dev examples, drawn by a fixed seed.
        encoding: of text files; None for UTF-8, or what a byte order mark says.
        max_target_length: tokens of a target that are kept; None for all.
    """

    train: Path
    dev: Path | None = None
    text: str | None = None
    text2: str | None = None
    label: str | None = None
    target: str | None = None
    label_kind: str | None = None
    dev_share: float | None = None
    encoding: str | None = None
    max_target_length: int | None = None

    def check(self, *, needs_dev: bool = True) -> None:
        """Refuse what can be told without reading a file.

        Raises:
            InputError: naming the option.
        """
        if self.text is None:
            raise InputError(f"--train {self.train} needs --text COLUMN: the column of the text")
        if (self.label is None) == (self.target is None):
            raise InputError(
                "--train needs --label COLUMN for classes or numbers, or else --target COLUMN for texts"
            )
        if self.label_kind is not None and self.label_kind not in get_args(LabelKind):
            raise InputError(f"--label-kind {self.label_kind!r} must be {' or '.join(get_args(LabelKind))}")
        for name in ("label_kind",) if self.target else ("max_target_length",):
            if getattr(self, name) is not None:
                other = "--label" if self.target else "--target"
                raise InputError(f"--{name.replace('_', '-')} goes with {other}")
        self._check_dev(needs_dev)
        for argument, path in (("train", self.train), ("dev", self.dev)):
            if path is not None:
                check_path(f"--{argument}", path, self.encoding)

    def _check_dev(self, needs_dev: bool) -> None:
        if self.dev_share is not None and not 0 < self.dev_share < 1:
            raise InputError(f"--dev-share {self.dev_share} must lie between 0 and 1")
        if self.dev is not None and self.dev_share is not None:
            raise InputError("--dev, --dev-share: one of them says where dev examples come from")
        if needs_dev and self.dev is None and self.dev_share is None:
            raise InputError(
                "--train needs --dev FILE, or --dev-share 0.1 to take a share of its rows as dev examples"
            )
        if self.dev is not None and self.dev.resolve() == self.train.resolve():
            raise InputError(
                f"--train and --dev are the same file, {self.train}: dev examples must be others, as --dev-share 0.1 "
                "makes them"
            )

    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(name for name in (self.text, self.text2, self.label, self.target) if name is not None)

    @property
    def described(self) -> dict[str, str]:
        """What a stamp says: files without where on a machine they lie, and columns."""
        told = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: placeless(value) if isinstance(value, Path) else str(value) for key, value in told.items()}

    @property
    def name(self) -> str:
        """What results call the task."""
        return placeless(self.train) if self.train.is_dir() else self.train.name


def placeless(path: Path) -> str:
    """The last two parts of an absolute path or a folder; another path as it is."""
    return "/".join(path.parts[-2:]) if path.is_absolute() or path.is_dir() else str(path)


def own_task(
    files: OwnFiles,
    *,
    train_limit: int | None = None,
    dev_limit: int | None = None,
    seed: int = 0,
    needs_dev: bool = True,
) -> TaskData:
    """Read the files.

    Args:
        files: names of files and columns.
        train_limit: keep at most so many training examples, a random subset that grows with the limit.
        dev_limit: the same for dev.
        seed: of these subsets. The rows that `dev_share` takes do not depend on it.
        needs_dev: whether dev examples are needed.

    Returns:
        The task, named by its training file. A pair reads "COLUMN: … COLUMN: …" as one text. Metrics are accuracy and
        macro_f1, or pearson and spearman, or `TEXT_METRICS`.

    Raises:
        InputError: naming option, file and line, for what cannot be used.
    """
    files.check(needs_dev=needs_dev)
    read = {
        part: _checked(files, part, path)
        for part, path in (("train", files.train), ("dev", files.dev))
        if path is not None
    }
    labels = _labels_of(files, read)
    train = tuple(_examples(files, labels, read["train"]))
    dev = tuple(_examples(files, labels, read["dev"])) if "dev" in read else ()
    if files.dev_share is not None:
        train, dev = _split(train, files.dev_share)
    _warn_of_shared(files, train, dev)
    train, dev = _limited(train, train_limit, seed), _limited(dev, dev_limit, seed)
    task = task_data(
        files.name,
        train,
        dev,
        labels.names,
        labels.metrics,
        _source(files, labels),
        scale=labels.scale,
        free_text=labels.free_text,
        target_limit=files.max_target_length,
        given=files.described,
    )
    return TaskData(**{**task.__dict__, "given": {**files.described, "examples": digest(task)}})


@dataclass(frozen=True)
class _Labels:
    """What the labels are: `names` of classes; None for numbers within `scale`, spelled to `digits`, or for texts."""

    read: Callable[[Row, OwnRows], tuple[int | float | str, str]]
    metrics: tuple[str, ...]
    told: str
    names: tuple[str, ...] | None = None
    scale: tuple[float, float] = (0.0, 5.0)
    free_text: bool = False


def _checked(files: OwnFiles, part: str, path: Path) -> OwnRows:
    rows = read_rows(f"--{part}", path, files.encoding, files.columns())
    for option, column in (
        ("text", files.text),
        ("text2", files.text2),
        ("label", files.label),
        ("target", files.target),
    ):
        if column is not None:
            require_column(f"--{option}", column, rows, path)
    return rows


def require_column(option: str, column: str, rows: OwnRows, path: Path) -> None:
    """Refuse a column that a file does not have.

    Raises:
        InputError: naming option, column and file, the nearest names, and all that there are.
    """
    if column in rows.columns:
        return
    near = difflib.get_close_matches(column, rows.columns, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    found = ", ".join(map(repr, rows.columns))
    raise InputError(f"{option} {column!r} is no column of {path}; {hint}it has {found}")


def text_of(row: Row, column: str) -> str:
    """The text of a column, as it is.

    Raises:
        InputError: naming the place, for what is no text, or an empty one.
    """
    if column not in row.fields:
        raise InputError(f"{row.where}: there is no {column!r}")
    value = row.fields[column]
    if not isinstance(value, str):
        raise InputError(f"{row.where}: {column!r} holds {_shown(value)}; a text is needed")
    if not value.strip():
        raise InputError(f"{row.where}: {column!r} is empty; a text is needed")
    return _encodable(row, column, value, "text")


def _encodable(row: Row, column: str, value: str, what: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{row.where}: {column!r} holds half of a surrogate pair, which is no {what}") from None
    return value


def input_of(row: Row, text: str, text2: str | None) -> tuple[str, tuple[str, ...]]:
    """What a text-to-text model reads of a row, and the bare texts.

    Raises:
        InputError: as `text_of`.
    """
    columns = [column for column in (text, text2) if column is not None]
    parts = tuple(text_of(row, column) for column in columns)
    if len(parts) == 1:
        return parts[0], parts
    return " ".join(f"{column}: {part}" for column, part in zip(columns, parts, strict=True)), parts


def _examples(files: OwnFiles, labels: _Labels, rows: OwnRows) -> list[Example]:
    assert files.text is not None
    found = []
    for row in rows.rows:
        text, parts = input_of(row, files.text, files.text2)
        label, target = labels.read(row, rows)
        found.append(Example(text, target, label, parts))
    return found


def _labels_of(files: OwnFiles, read: dict[str, OwnRows]) -> _Labels:
    if files.target is not None:
        column = files.target

        def target(row: Row, _rows: OwnRows) -> tuple[str, str]:
            text = text_of(row, column)
            return text, text

        return _Labels(target, TEXT_METRICS, f"{column!r} holds targets, which a model writes", free_text=True)
    assert files.label is not None
    values = [_plain_label(row, files.label, read["train"]) for row in read["train"].rows]
    if files.label_kind is None:
        _refuse_strays(files.label, values, read["train"])
    named = files.label in read["train"].class_names or any(_number(value) is None for value in values)
    if (files.label_kind or ("classes" if named or all(map(_is_whole, values)) else "numbers")) == "numbers":
        return _numbers(files, read["train"])
    return _classes(files, values, read["train"])


def _refuse_strays(column: str, values: Sequence[str], rows: OwnRows) -> None:
    """Refuse a name among labels most of which are numbers: more likely a mistake than a class."""
    strays = [i for i, value in enumerate(values) if _number(value) is None]
    if 0 < len(strays) <= len(values) / 2 and column not in rows.class_names:
        first = strays[0]
        raise InputError(
            f"{rows.rows[first].where}: label {values[first]!r} is no number, as most of {column!r} are; "
            "--label-kind classes takes it as a class"
        )


def _plain_label(row: Row, column: str, rows: OwnRows) -> str:
    """A label as text, outer spaces aside; of a column of classes its name."""
    if column not in row.fields:
        raise InputError(f"{row.where}: there is no {column!r}")
    value = row.fields[column]
    names = rows.class_names.get(column)
    if names is not None and isinstance(value, int):
        if not 0 <= value < len(names):
            raise InputError(f"{row.where}: label {value} is no class; the column has {len(names)}, from 0")
        return names[value]
    if not isinstance(value, str | int | float):
        raise InputError(f"{row.where}: {column!r} holds {_shown(value)}; a name or a number is needed")
    label = str(value).strip()
    if not label or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{row.where}: {column!r} holds {_shown(value)}; a label is needed")
    return _encodable(row, column, label, "label")


def _is_whole(label: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", label) is not None


def _number(label: str) -> float | None:
    """The finite number that a label spells in ASCII, without underscores."""
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", label):
        return None
    value = float(label)
    return value if math.isfinite(value) else None


def _classes(files: OwnFiles, values: Sequence[str], rows: OwnRows) -> _Labels:
    column = files.label
    assert column is not None
    named = rows.class_names.get(column)
    found = set(values)
    whole = all(map(_is_whole, found))
    names = named or tuple(sorted(found, key=lambda name: (int(name), name) if whole else (0, name)))
    if len(names) < 2:
        raise InputError(f"{files.train}: every {column!r} is {names[0]!r}; at least two classes are needed")
    if len(values) >= 20 and len(found) > len(values) / 2:
        warnings.warn(
            f"--label {column!r}: {len(found)} classes in {len(values)} rows; texts to be written are --target",
            WtacrsWarning,
            stacklevel=2,
        )
    index = {name: i for i, name in enumerate(names)}

    def label(row: Row, rows: OwnRows) -> tuple[int, str]:
        name = _plain_label(row, column, rows)
        if name not in index:
            raise InputError(f"{row.where}: label {name!r} does not occur in {files.train}: {_listed(names)}")
        return index[name], name

    told = f"{column!r} holds {len(names)} classes: {_listed(names)}"
    if whole and named is None and files.label_kind is None:
        told += "; whole numbers are classes unless --label-kind numbers says otherwise"
    return _Labels(label, ("accuracy", "macro_f1"), told, names=names)


def _numbers(files: OwnFiles, rows: OwnRows) -> _Labels:
    column = files.label
    assert column is not None
    if column in rows.class_names:
        raise InputError(f"--label-kind numbers: {column!r} of {files.train} is a column of classes")

    def number(row: Row, rows: OwnRows) -> float:
        value = _number(_plain_label(row, column, rows))
        if value is None:
            raise InputError(
                f"{row.where}: label {_shown(row.fields[column])} is no number; --label-kind classes takes names"
            )
        return value

    numbers = [number(row, rows) for row in rows.rows]
    low, high = min(numbers), max(numbers)
    if low == high:
        raise InputError(f"{files.train}: every {column!r} is {low:g}; numbers that differ are needed")
    if not 1e-100 < high - low < 1e100:
        raise InputError(f"{files.train}: {column!r} ranges over {high - low:g}; from 1e-100 to 1e100 is accepted")
    digits = -math.floor(math.log10((high - low) / _LEVELS))
    step = 10.0**-digits
    scale = (round(math.floor(low / step) * step, digits), round(math.ceil(high / step) * step, digits))

    def label(row: Row, rows: OwnRows) -> tuple[float, str]:
        value = number(row, rows)
        return value, f"{round(value, digits):.{max(digits, 0)}f}"

    told = f"{column!r} holds numbers from {low:g} to {high:g}: regression"
    if files.label_kind is None:
        told += "; --label-kind classes takes them as classes"
    return _Labels(label, ("pearson", "spearman"), told, scale=scale)


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" … ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _shown(value: object) -> str:
    text = "nothing" if value is None or value == "" else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _split(examples: tuple[Example, ...], share: float) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Training and dev examples, each in their order; at least one of both."""
    if len(examples) < 2:
        raise InputError(f"--dev-share {share}: {len(examples)} row cannot be split")
    count = min(max(round(len(examples) * share), 1), len(examples) - 1)
    taken = set(random.Random(0).sample(range(len(examples)), count))
    train = tuple(e for i, e in enumerate(examples) if i not in taken)
    return train, tuple(e for i, e in enumerate(examples) if i in taken)


def _warn_of_shared(files: OwnFiles, train: Sequence[Example], dev: Sequence[Example]) -> None:
    seen = {example.parts for example in train}
    shared = sum(example.parts in seen for example in dev)
    if shared:
        warnings.warn(
            f"{shared} of {len(dev)} dev texts of {files.dev or files.train} are training texts too",
            WtacrsWarning,
            stacklevel=2,
        )


def _limited(examples: tuple[Example, ...], limit: int | None, seed: int) -> tuple[Example, ...]:
    if limit is None:
        return examples
    return tuple(random.Random(seed).sample(examples, len(examples))[:limit])


def _source(files: OwnFiles, labels: _Labels) -> str:
    if files.dev_share is not None:
        dev = f"a share of {files.dev_share:g} of the same rows is dev"
    else:
        dev = "no dev examples" if files.dev is None else f"dev {files.dev}"
    return f"train {files.train}, {dev}; {labels.told}"
