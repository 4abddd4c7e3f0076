"""Somebody's code beside this package: a distribution as an installer leaves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, name: str, declared: Mapping[str, str]) -> None:
    """A folder on sys.path becomes that of a distribution whose entry points are estimators."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(["[wtacrs.estimators]", *lines]) + "\n")
