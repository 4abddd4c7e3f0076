"""Files that are written whole or not at all, and folders that can be written to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wtacrs.estimators.core.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a partial file beside `path` that takes its place at the end, or is removed if anything is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink()
        raise


def check_folder(argument: str, path: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be written to; make it if need be.

    Raises:
        InputError: naming the argument, the path and the reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{argument}={path} is a file; a folder is needed") from None
    except OSError as error:
        raise InputError(f"{argument}={path} cannot be made: {error.strerror or error}") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{argument}={path} cannot be written to")
