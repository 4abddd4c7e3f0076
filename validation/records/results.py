"""Result files: any registered kind of result is written as JSON and read back; figures and reports need nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.files import replacing

# importing a module registers its kind
from wtacrs.validation.records import (  # noqa: F401
    bench,
    budgets,
    check,
    compare,
    experiment,
    factorial,
    front,
    growth,
    layer_tests,
    limits,
    masks,
    memory,
    noise,
    norms,
    plan,
    pretrain,
    scale,
    scores,
    sweep,
    theory,
    track_memory,
    training,
    transfer,
    winners,
)
from wtacrs.validation.records.base import SCHEMA_VERSION, Result, result_kinds

_ADAPTERS: dict[tuple[str, ...], TypeAdapter[Any]] = {}


def _any_result() -> Any:
    """What reads any kind that is registered by now."""
    kinds = result_kinds()
    if tuple(kinds) not in _ADAPTERS:
        union: Any = reduce(or_, kinds.values())
        _ADAPTERS[tuple(kinds)] = TypeAdapter(Annotated[union, Field(discriminator="kind")])
    return _ADAPTERS[tuple(kinds)]


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all; parent folders are made."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def result_text(result: Result) -> str:
    """A result as JSON, as its file holds it: indented, unless its kind is compact."""
    return result.model_dump_json(indent=None if result.compact else 2) + "\n"


def write_result(path: Path, result: Result) -> Path:
    """Write a result as JSON (`result_text`), atomically."""
    return write_text(path, result_text(result))


def load_results(paths: str | Path | Iterable[str | Path]) -> dict[Path, Result]:
    """Read result files, and those of folders with their sub-folders, by path in order.

    Of a folder, JSON files without a kind and a stamp are passed over, and so is what is hidden. Any other that cannot
    be read is an error.

    Args:
        paths: files or folders; one or several.

    Raises:
        InputError: as `load_result`, and for a folder without a result file.
    """
    found: dict[Path, Result] = {}
    for given in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        files = _results_in(given) if given.is_dir() else [given]
        if not files:
            raise InputError(f"paths: folder {given} holds no result file (*.json)")
        found |= {path: load_result(path) for path in files}
    return found


def _results_in(folder: Path) -> list[Path]:
    shown = [
        path
        for path in sorted(folder.rglob("*.json"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return [path for path in shown if not _is_something_else(path)]


def _is_something_else(path: Path) -> bool:
    """Whether a JSON file is whole and no result."""
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return not (isinstance(held, dict) and {"kind", "stamp"} <= held.keys())


def load_result(path: str | Path) -> Result:
    """Read a result of any registered kind.

    Raises:
        InputError: if the file is missing, is not JSON, is of another version, or does not fit the schema.
    """
    path = Path(path)
    try:
        found: Result = _any_result().validate_json(path.read_bytes())
        return found
    except OSError as error:
        raise InputError(f"result file {path}: {error.strerror or error}") from None
    except ValidationError as error:
        for one in error.errors():
            if one["loc"][-1:] == ("schema_version",):
                told = f"has schema version {one['input']!r}, and only {SCHEMA_VERSION} is read: make it again"
                raise InputError(f"result file {path} {told}") from None
        first = error.errors()[0]
        if first["type"] == "union_tag_invalid":
            kinds = ", ".join(result_kinds())
            told = f"holds a result of kind {first['ctx']['tag']!r}, which is not known; the kinds are {kinds}"
            raise InputError(f"result file {path} {told}") from None
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"result file {path} does not fit the schema: {where}: {first['msg']}") from None
