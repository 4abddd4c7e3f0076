"""A folder of small GLUE TSV files, and where the real ones are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SINGLE = "sentence1\tlabel\n"
PAIR = "sentence1\tsentence2\tlabel\n"


def write_task(folder: Path, train: str, dev: str) -> Path:
    """Write train.tsv and dev.tsv into the folder; give the folder above it."""
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text(train, encoding="utf-8", newline="")
    (folder / "dev.tsv").write_text(dev, encoding="utf-8", newline="")
    return folder.parent


def named_folder(variable: str) -> Path:
    """The folder that an environment variable names; skip the test without it."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"environment variable {variable} names no folder")
    return Path(value).resolve()
