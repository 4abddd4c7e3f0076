"""The experiments that the package brings along, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from wtacrs.estimators import InputError

_FOLDER = Path(str(files("wtacrs.integration"))) / "experiments"


def experiment_names() -> list[str]:
    """Names of the built-in experiments."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def experiment_file(text: str) -> Path:
    """The file that a path or the name of a built-in experiment means; a file that exists goes first.

    Raises:
        InputError: if it is neither, with the names that there are.
    """
    path = Path(text)
    if path.exists() or path.suffix == ".toml":
        return path
    if text in experiment_names():
        return _FOLDER / f"{text}.toml"
    raise InputError(f"experiment={text!r} is no file, and no built-in one: {', '.join(experiment_names())}")
