"""What somebody else's code prints goes to a file, never between our lines."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from wtacrs.estimators import InputError
from wtacrs.integration.cli.output import console, messages
from wtacrs.validation.dry_run import is_dry_run
from wtacrs.validation.files import check_folder


class Log(io.TextIOBase):
    """A file that exists once something was written; without a path it is a temporary one.

    It is opened for every line: whoever remembers it, as handlers of `logging` do, may write after the end.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path = path
        self.used = False

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Append; the first time the file is made anew."""
        if not text:
            return 0
        if self.path is None:
            handle, name = tempfile.mkstemp(prefix="wtacrs-", suffix=".log")
            os.close(handle)
            self.path = Path(name)
        if not self.used:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a" if self.used else "w", encoding="utf-8") as file:
            file.write(text)
        self.used = True
        return len(text)

    def name_it(self) -> None:
        """Say where it is, if anything was written."""
        if self.used:
            console.print(f"what the code printed: {self.path}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def printing_to(path: Path | None) -> Iterator[Log]:
    """Send what Python code writes to stdout and stderr, warnings of others included, to a file.

    An exception names the file; else the caller does, by `name_it`. A bar of ours is opened before: one that is
    opened later shows what is printed.

    Args:
        path: the file; None for a temporary one. It is not made if nothing is written.

    Raises:
        InputError: if the path is a folder, or lies where none can be made.
    """
    if path is not None:
        check_folder("log", path.parent)
        if path.is_dir():
            raise InputError(f"log={path} is a folder")
    log = Log(None if is_dry_run() else path)
    console.file, messages.file = sys.stdout, sys.stderr  # ours stay where they were
    try:
        with redirect_stdout(log), redirect_stderr(log):
            yield log
    except BaseException:
        log.name_it()
        raise
    finally:
        console.file = messages.file = None  # type: ignore[assignment]  # the streams, whatever they are by then
