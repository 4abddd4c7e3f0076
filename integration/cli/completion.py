"""What the shell completes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_REGISTERED = re.compile(r'^@register\("(\w+)"\)', re.MULTILINE)


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_estimator(incomplete: str) -> list[str]:
    """Names of estimators, those of installed packages included; they are read from the sources, none is imported."""
    from importlib.resources import files

    from wtacrs.estimators.core.entry_points import entry_point_names

    folder = Path(str(files("wtacrs.estimators")))
    own = {name for path in folder.rglob("*.py") for name in _REGISTERED.findall(path.read_text(encoding="utf-8"))}
    return _fitting(sorted({*own, *entry_point_names()}), incomplete)


def complete_task(incomplete: str) -> list[str]:
    """Names of tasks."""
    from wtacrs.integration.tasks.loading import TASKS

    return _fitting(TASKS, incomplete)


def complete_experiment(incomplete: str) -> list[str]:
    """Names of the built-in experiments."""
    from wtacrs.integration.studies.experiment_files import experiment_names

    return _fitting(experiment_names(), incomplete)
