"""`PATH.py:NAME` and `package.module:NAME`: a Python object by reference, imported without a trace on sys.path.

A path is resolved from the current folder, in whatever process. Nothing is executed but the import of the file or module.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from wtacrs.estimators.core.errors import InputError

FORM = "PATH.py:NAME or package.module:NAME"
# NAME, with dots for what lies inside a class
NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
# a reference that stands in a spec without quotes
BARE = rf"[^\s()\[\]{{}}=,\"']+:{NAME}"

# the head of an estimator's spec, as in `crs(budget=0.3)`
_SPEC = re.compile(r"\s*\w+\s*(\(.*)?", re.DOTALL)
_PRIVATE = "_wtacrs_external_"


def is_reference(text: str) -> bool:
    """Whether this begins with a reference rather than with the name of a registered estimator."""
    return _SPEC.fullmatch(text) is None and (":" in text or text.strip().endswith(".py"))


def written(name: str) -> str:
    """A name or a reference as it is written in a spec: in quotes where its path has spaces, brackets, commas or `=`.

    >>> print(written("crs"), written("mine.py:Mine"), written("my code/mine.py:Mine"))
    crs mine.py:Mine "my code/mine.py:Mine"
    """
    if ":" not in name or re.fullmatch(BARE, name):
        return name
    return json.dumps(name, ensure_ascii=False)


def split_reference(text: str) -> tuple[str, str]:
    """File or module, and the name in it.

    Raises:
        InputError: if the text is no reference.

    >>> split_reference("code/mine.py:Mine.inner")
    ('code/mine.py', 'Mine.inner')
    """
    source, _, name = text.strip().rpartition(":")
    if not source or re.fullmatch(NAME, name) is None:
        raise InputError(f"{text!r} is not of the form {FORM}")
    return source, name


def load_reference(text: str) -> object:
    """The object that a reference names.

    A file is imported under a private name of its own; its folder and the current folder, the latter alone for a module,
    are on sys.path during the import only, so that neighbours can be imported from the top of the file.

    Raises:
        InputError: if there is no such file or module, it cannot be imported, or it has no such attribute.
    """
    source, name = split_reference(text)
    return attribute(open_module(source), source, name)


def open_module(source: str) -> ModuleType:
    """The module of a reference: a file that ends in `.py`, or a module by its name.

    Raises:
        InputError: if there is none, or it cannot be imported.
    """
    return _from_file(Path(source).expanduser()) if source.endswith(".py") else _from_name(source)


def attribute(module: ModuleType, source: str, name: str) -> object:
    """What lies under a name, dots included, in a module that `source` names.

    Raises:
        InputError: if there is nothing, with a near name.
    """
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], n=1)
            raise InputError(f"{source} has no {name!r}{f'; did you mean {near[0]!r}?' if near else ''}")
        found = getattr(found, part)
    return found


def reference_to(cls: type, source: str, module: ModuleType) -> str | None:
    """A reference that gives this class in another process as well.

    Args:
        cls: the class.
        source: file or module in which it is looked for first.
        module: what `source` names.

    Returns:
        Its name in `source`, else in the module that defines it; None if neither can be named.
    """
    if _inside(module, cls.__qualname__) is cls:
        return f"{source}:{cls.__qualname__}"
    for name, value in vars(module).items():
        if value is cls:
            return f"{source}:{name}"
    home = sys.modules.get(cls.__module__)
    if home is None or not _importable(cls.__module__) or _inside(home, cls.__qualname__) is not cls:
        return None
    return f"{cls.__module__}:{cls.__qualname__}"


def _inside(module: ModuleType, qualified: str) -> object:
    found: object = module
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found


def _importable(module: str) -> bool:
    """Whether `_from_name` finds this module in a process that has not imported it yet."""
    return PathFinder.find_spec(module.partition(".")[0], [str(Path.cwd()), *sys.path]) is not None


def _from_file(given: Path) -> ModuleType:
    if not given.is_file():
        where = "" if given.is_absolute() else f" in {Path.cwd()}"
        raise InputError(f"{given}: {'is a folder' if given.is_dir() else f'no such file{where}'}")
    path = given.resolve()
    state = path.stat()
    # a file that has changed is another module; one that has not keeps what it registered
    mark = hashlib.sha256(f"{path}|{state.st_mtime_ns}|{state.st_size}".encode()).hexdigest()[:16]
    private = f"{_PRIVATE}{mark}"
    if private in sys.modules:
        return sys.modules[private]
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{given} cannot be imported: no loader for it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # dataclasses look their module up while it is being executed
    try:
        with _import_errors(str(given)), _on_path(path.parent, Path.cwd()):
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
        hint = "; name it as package.module:NAME" if "attempted relative import" in str(error) else ""
        raise InputError(f"{source} cannot be imported: {type(error).__name__}: {error}{hint}") from error


@contextmanager
def _on_path(*folders: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = before
