"""What a study decided before its first run: written down with its hash, and not changed afterwards."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wtacrs.estimators import InputError
from wtacrs.validation.records.experiment import Design
from wtacrs.validation.records.results import write_text


def design_hash(decided: dict[str, Any]) -> str:
    """SHA-256 of what was decided, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def record_design(path: Path, decided: dict[str, Any], *, power: float | None, overwrite: bool) -> Design:
    """Write a design before the first run, or read the one that the study was begun with.

    Args:
        path: of the file.
        decided: settings as JSON.
        power: foreseen, of the comparisons.
        overwrite: begin anew, whatever lies there.

    Raises:
        InputError: if the study was begun with another design, or the file is none.
    """
    found = design_hash(decided)
    if path.exists() and not overwrite:
        design = _read(path)
        if design.sha256 != found:
            raise InputError(
                f"{path}: the study was begun with another design ({design.sha256[:12]}, now {found[:12]}); its runs "
                "belong to that one: name another folder, or start anew with --overwrite"
            )
        return design
    design = Design(sha256=found, recorded=datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"), power=power)
    told = design.model_dump() | {"design": decided}
    write_text(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    return design


def _read(path: Path) -> Design:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Design(**{name: told[name] for name in Design.model_fields})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: no design of a study ({' '.join(str(error).split())})") from None
