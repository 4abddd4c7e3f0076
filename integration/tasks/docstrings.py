"""The offline default task: which library does this sentence of a docstring come from?

Sentences are read with `ast` from the source files of the installed libraries; nothing is imported or run.
The answer is not written in the text (names of the libraries are masked), no sentence occurs twice, and train
and dev share no documented object: a method documented alike in many classes lies wholly on one side.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import math
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.base import Example, TaskData, task_data
from wtacrs.integration.tasks.docstring_text import normalised, plain_sentences

LIBRARIES = ("torch", "numpy", "scipy", "matplotlib", "python")
"""The five labels; ``python`` is the standard library."""

TRAIN_PER_LIBRARY = 2000
DEV_PER_LIBRARY = 120

_DEV_SHARE = 0.08
_SPARE = 1.2
"""Gathered beyond the quota: sentences that two libraries or train and dev share are thrown out afterwards."""
_NEAR = 0.7
"""Two sentences are near-duplicates from this Jaccard similarity of their sets of words upwards."""
_MAX_FILE_BYTES = 600_000

_SKIPPED_FOLDERS = frozenset(
    {
        *("test", "tests", "testing", "_testing", "__pycache__", "site-packages", "dist-packages"),
        *("vendor", "_vendor", "vendored", "_vendored", "extern", "external", "externals", "_external"),
        *("third_party", "array_api_compat", "array_api_extra"),  # carried by SciPy
        *("_numpy",),  # PyTorch's imitation of NumPy, docstrings and all
        *("idlelib", "lib2to3", "turtledemo"),
    }
)
_DOC_CALLS = frozenset({"add_docstr", "add_newdoc", "add_newdoc_for_scalar_type"})


@dataclass(frozen=True)
class Sentence:
    """One sentence, the library it comes from and the unqualified name of the object it documents."""

    text: str
    library: str
    name: str


def docstrings_task(data: Path | None, train_limit: int | None, dev_limit: int | None) -> TaskData:
    """The task; the arguments are those of `load_task`.

    Raises:
        InputError: for a folder, which the task does not take, or as `load_sentences`.
    """
    if data is not None:
        raise InputError(
            f"data={str(data)!r}: task 'docstrings' reads the installed libraries, it takes no folder"
        )
    train, dev = load_sentences()
    versions = [f"{library} {version(library)}" for library in LIBRARIES if library != "python"]
    source = f"docstrings of {', '.join(versions)} and Python {'.'.join(map(str, sys.version_info[:3]))}"
    train_examples = tuple(map(_example, train[:train_limit]))
    dev_examples = tuple(map(_example, dev[:dev_limit]))
    return task_data("docstrings", train_examples, dev_examples, LIBRARIES, ("accuracy",), source)


def _example(sentence: Sentence) -> Example:
    label = LIBRARIES.index(sentence.library)
    return Example(f"docstrings sentence: {sentence.text}", sentence.library, label, (sentence.text,))


def load_sentences(
    train_per_library: int = TRAIN_PER_LIBRARY, dev_per_library: int = DEV_PER_LIBRARY
) -> tuple[list[Sentence], list[Sentence]]:
    """Extract ``(train, dev)``: as many sentences of every library as asked for, in a fixed order.

    The libraries take turns in both lists, so that a prefix is balanced too. The same installed versions give
    the same lists. Raises `InputError` if a library is absent or has too few sentences.
    """
    for name, value in (("train_per_library", train_per_library), ("dev_per_library", dev_per_library)):
        if value < 1:
            raise InputError(f"{name}={value}: at least one sentence per library is needed")
    train, dev = _load(train_per_library, dev_per_library)
    return list(train), list(dev)


def in_dev(name: str) -> bool:
    """Whether sentences about objects of this unqualified name belong to dev (a hash of the name decides)."""
    return _unit_hash(name.strip("_").casefold()) < _DEV_SHARE


def docstrings(source: str, module: str) -> Iterator[tuple[str, str]]:
    """Yield ``(unqualified name, docstring)`` for all that a source text documents, in the order of the text.

    Docstrings attached by a call such as ``add_docstr(f, "…")``, as extension modules need it, count as well.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's source are not our news
        tree = ast.parse(source)
    attached = any(call in source for call in _DOC_CALLS)
    for node in ast.walk(tree) if attached else _definitions(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield getattr(node, "name", module), text
        elif isinstance(node, ast.Call):
            yield from _documenting_call(node)


@lru_cache(maxsize=4)
def _load(train_quota: int, dev_quota: int) -> tuple[tuple[Sentence, ...], tuple[Sentence, ...]]:
    gathered = [_gather(library, train_quota, dev_quota) for library in LIBRARIES]
    owners: dict[str, set[str]] = {}
    for sentence in (s for library in gathered for s in library):
        for key in _keys(sentence.text):
            owners.setdefault(key, set()).add(sentence.library)
    own = [[s for s in found if all(len(owners[key]) == 1 for key in _keys(s.text))] for found in gathered]
    train = _quota("train", [[s for s in found if not in_dev(s.name)] for found in own], train_quota)
    near = _NearDuplicates(s.text for s in train)
    dev = _quota("dev", [[s for s in found if in_dev(s.name) and s.text not in near] for found in own], dev_quota)
    return tuple(train), tuple(dev)


def _quota(side: str, found: list[list[Sentence]], quota: int) -> list[Sentence]:
    """The first ``quota`` sentences of every library, the libraries taking turns."""
    for library, own in zip(LIBRARIES, found, strict=True):
        if len(own) < quota:
            raise InputError(
                f"{side}_per_library={quota}: the docstrings of {library} give {len(own)} {side} sentences"
            )
    return [sentence for turn in zip(*(own[:quota] for own in found), strict=True) for sentence in turn]


class _NearDuplicates:
    """Exact search for texts whose word sets have a Jaccard similarity of at least ``_NEAR``.

    Two such sets A and B share at least ⌈0.7 |A|⌉ words, so any |A| − ⌈0.7 |A|⌉ + 1 words of A have one in B:
    it is enough to look up the rarest.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._sets = [frozenset(normalised(text).split()) for text in texts]
        self._holders: dict[str, list[int]] = {}
        for index, words in enumerate(self._sets):
            for word in words:
                self._holders.setdefault(word, []).append(index)

    def __contains__(self, text: object) -> bool:
        words = frozenset(normalised(str(text)).split())
        rarest = sorted(words, key=lambda word: (len(self._holders.get(word, ())), word))
        looked_up = rarest[: len(words) - math.ceil(_NEAR * len(words)) + 1]
        others = {index for word in looked_up for index in self._holders.get(word, ())}
        return any(len(words & self._sets[i]) >= _NEAR * len(words | self._sets[i]) for i in others)


def _gather(library: str, train_quota: int, dev_quota: int) -> list[Sentence]:
    """Read files of one library until both quotas are filled with some to spare, or the files run out."""
    need = {False: int(_SPARE * train_quota) + 1, True: int(_SPARE * dev_quota) + 1}
    seen: set[str] = set()
    found: list[Sentence] = []
    for path in _source_files(library):
        for name, text in _read(path):
            side = in_dev(name)
            for sentence in plain_sentences(text) if need[side] > 0 else ():
                keys = _keys(sentence)
                if need[side] <= 0 or not seen.isdisjoint(keys):
                    continue
                seen.update(keys)
                need[side] -= 1
                found.append(Sentence(sentence, library, name))
        if max(need.values()) <= 0:
            break
    return found


def _keys(text: str) -> tuple[str, ...]:
    """What makes two sentences the same: all their words, or a long common opening or ending (templates)."""
    words = normalised(text).split()
    return " ".join(words), "^" + " ".join(words[:7]), "$" + " ".join(words[-7:])


def _source_files(library: str) -> list[Path]:
    """Source files of a library in an order fixed by a hash of their relative path."""
    root = _root(library)
    files = [(path.relative_to(root), path) for path in root.rglob("*.py")]
    kept = [
        (relative, path)
        for relative, path in files
        if _SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1])
        and not relative.name.startswith(("test_", "conftest"))
        and path.stat().st_size <= _MAX_FILE_BYTES
    ]
    if not kept:
        raise InputError(f"task 'docstrings': no source files of {library} under {root}")
    return [path for _, path in sorted(kept, key=lambda pair: _unit_hash(pair[0].as_posix()))]


def _root(library: str) -> Path:
    if library == "python":
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"task 'docstrings': {library} is not installed; the task reads {', '.join(LIBRARIES)}")
    return Path(next(iter(spec.submodule_search_locations)))


def _read(path: Path) -> list[tuple[str, str]]:
    module = path.parent.name if path.stem == "__init__" else path.stem
    try:
        return list(docstrings(path.read_text(encoding="utf-8"), module))
    except (
        SyntaxError,
        UnicodeDecodeError,
        ValueError,
    ):
        return []  # templates and files in other encodings


def _definitions(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all definitions below it: `ast.walk` without the expressions, which are most of a tree."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield from _definitions(child)


def _documenting_call(node: ast.Call) -> Iterator[tuple[str, str]]:
    function = node.func
    called = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if called not in _DOC_CALLS or not node.args:
        return
    named = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    for arg in node.args[1:]:
        for constant in ast.walk(arg):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str) and " " in constant.value:
                yield _called_name(node.args, named), constant.value


def _called_name(args: list[ast.expr], named: list[str]) -> str:
    """The object a call documents: ``add_docstr(torch.abs, …)`` or ``add_newdoc("module", "abs", …)``."""
    first = args[0]
    if isinstance(first, ast.Attribute):
        return first.attr
    if isinstance(first, ast.Name):
        return first.id
    second = args[1]
    if isinstance(second, ast.Tuple) and second.elts and isinstance(second.elts[0], ast.Constant):
        return str(second.elts[0].value)
    short = [value for value in named if " " not in value]
    return short[-1] if short else ""


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
