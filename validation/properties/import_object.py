"""`PATH.py:NAME` and `package.module:NAME`: a Python object by reference, imported without a trace on sys.path."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from wtacrs.estimators import InputError

_FORM = "PATH.py:NAME or package.module:NAME"
# the head of an estimator's spec, as in `crs(budget=0.3)`
_SPEC = re.compile(r"\s*\w+\s*(\(.*)?", re.DOTALL)


def is_reference(text: str) -> bool:
    """Whether this is a reference rather than the spec of a registered estimator."""
    return _SPEC.fullmatch(text) is None and (":" in text or text.strip().endswith(".py"))


def load_reference(text: str) -> object:
    """The object that a reference names.

    A file is imported under a private name of its own; its folder, or the current folder for a module, is on
    sys.path during the import only, so that neighbours can be imported from the top of the file.

    Raises:
        InputError: if there is no such file or module, it cannot be imported, or it has no such attribute.
    """
    source, _, name = text.strip().rpartition(":")
    if not source or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{text!r} is not of the form {_FORM}")
    module = _from_file(Path(source)) if source.endswith(".py") else _from_name(source)
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=1)
            raise InputError(f"{source} has no {name!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        found = getattr(found, part)
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    path = path.resolve()
    state = path.stat()
    # a file that has changed is another module; one that has not keeps what it registered
    mark = hashlib.sha256(f"{path}|{state.st_mtime_ns}|{state.st_size}".encode()).hexdigest()[:16]
    private = f"_wtacrs_external_{mark}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported: no loader for it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # dataclasses look their module up while it is being executed
    try:
        with _import_errors(str(path)), _on_path(path.parent):
            spec.loader.exec_module(module)
    except InputError:
        del sys.modules[private]
        raise
    return module


def _from_name(source: str) -> ModuleType:
    if not all(part.isidentifier() for part in source.split(".")):
        raise InputError(f"{source!r} is neither a Python file (PATH.py) nor the name of a module")
    with _import_errors(source), _on_path(Path.cwd()):
        return importlib.import_module(source)


@contextmanager
def _import_errors(source: str) -> Iterator[None]:
    """Whatever an import raises, as the one line that a user needs."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit
        raise InputError(f"{source} cannot be imported: {type(error).__name__}: {error}") from error


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before
