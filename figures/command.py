"""What the small command lines of the figures share: RESULT.json in, OUT.png out, one line for a user's error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from wtacrs.estimators import InputError
from wtacrs.validation.records.base import Record
from wtacrs.validation.records.results import load_result

ResultT = TypeVar("ResultT", bound=Record)


class OneLineParser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave."""
        self.exit(2, f"error: {message} (see --help)\n")


def parser(name: str, about: str) -> OneLineParser:
    """Parser of `python -m wtacrs.figures.<name>`."""
    return OneLineParser(prog=f"python -m wtacrs.figures.{name}", description=about, allow_abbrev=False)


def run(action: Callable[[], Path | Sequence[Path]]) -> int:
    """Do it and print what was written; exit code 0, or 2 after one line on a user's error."""
    try:
        written = action()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in [written] if isinstance(written, Path) else written:
        print(path)
    return 0


def load(path: Path, kind: type[ResultT]) -> ResultT:
    """Read a result of the given class.

    Raises:
        InputError: if the file cannot be read, does not fit the schema or holds another kind of result.
    """
    return expect(load_result(path), kind, f"result file {path}")


def expect(result: Any, kind: type[ResultT], what: str) -> ResultT:
    """`result`, if it is of the given class.

    Raises:
        InputError: if it is of another kind.
    """
    if not isinstance(result, kind):
        wanted = kind.model_fields["kind"].default
        got = getattr(result, "kind", type(result).__name__)
        raise InputError(f"{what} holds a result of kind {got!r}; this figure needs kind {wanted!r}")
    return result


def budget(text: str) -> int | float:
    """A budget as it is written: `32` rows, or the fraction `0.3`.

    Raises:
        InputError: if it is no number.
    """
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        raise InputError(
            f"budget={text!r} must be a fraction such as 0.3 or a number of rows such as 32"
        ) from None
