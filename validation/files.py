"""Files that are written whole or not at all, and folders that can be written to."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.dry_run import is_dry_run

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_FULL = 1 << 20  # bytes; less than that is left on a disk where a write has just failed


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a partial file beside `path` that takes its place at the end, or is removed if anything is raised.

    In a dry run the partial file lies elsewhere, and takes no place.

    Raises:
        OSError: naming `path`, if the file cannot be written, whatever the library that writes it raises.
    """
    if is_dry_run():
        with tempfile.TemporaryDirectory() as elsewhere:
            yield Path(elsewhere) / path.name
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            partial.chmod(0o644)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name `path` in every error of the file system, those included that torch and safetensors raise in their own way.

    Raises:
        OSError: in place of them.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or _os_error(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    except Exception as error:
        number = _failed_write(error, path)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _os_error(error: Exception) -> int | None:
    found = _OS_ERROR.search(str(error))
    return None if found is None else int(found.group(1))


def _failed_write(error: Exception, path: Path) -> int | None:
    """The number of the system's error that another library's exception stands for."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno:
        return cause.errno
    if type(error).__name__ == "SafetensorError":
        return _os_error(error)
    if isinstance(error, RuntimeError) and (
        "PytorchStreamWriter" in str(error) or "inline_container" in str(error)
    ):
        full = path.parent.is_dir() and shutil.disk_usage(path.parent).free < _FULL
        return errno.ENOSPC if full else errno.EIO
    return None


_made: ContextVar[list[Path] | None] = ContextVar("_made", default=None)


@contextmanager
def no_empty_folders() -> Iterator[None]:
    """Where bad input ends the block, remove the folders that `check_folder` made and nothing was written to."""
    made: list[Path] = []
    token = _made.set(made)
    try:
        yield
    except InputError:
        for folder in sorted(dict.fromkeys(made), key=lambda each: -len(each.parts)):
            with suppress(OSError):  # it holds something, or is gone
                folder.rmdir()
        raise
    finally:
        _made.reset(token)


def check_folder(argument: str, path: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be written to; make it if need be.

    A dry run makes none, and looks at the folder that it would lie in.

    Raises:
        InputError: naming the argument, the path and the reason.
    """
    if is_dry_run():
        _check_place(argument, path)
        return
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (made := _made.get()) is not None:
            made += new
        # asked by a file: permissions alone tell nothing of a file system that is read-only or full
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"0")
    except FileExistsError:
        raise InputError(f"{argument}={path} is a file; a folder is needed") from None
    except OSError as error:
        verb = "cannot be written to" if path.is_dir() else "cannot be made"
        raise InputError(f"{argument}={path} {verb}: {error.strerror or error}") from None


def _check_place(argument: str, path: Path) -> None:
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{argument}={path}: {place} is a file; a folder is needed")
    if not os.access(place, os.W_OK):
        raise InputError(f"{argument}={path}: {place} cannot be written to")
