"""Experiment trackers (wandb, mlflow …) through accelerate's own interface, as it knows them by name.

A tracker of your own works too, once `accelerate.tracking.register_tracker_class` knows it. Keys, projects and the
identity of a run to go on with come from environment variables of each, such as ``WANDB_PROJECT``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wtacrs.estimators.core.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "wtacrs"


def require_tracker(name: str) -> None:
    """Refuse, before anything is loaded, a tracker that accelerate does not know or whose package is missing.

    Raises:
        InputError: naming those that are accepted, or the package.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    if name not in known:
        raise InputError(f"trackers: {name!r} is unknown; accelerate has {', '.join(known)}")
    built_in = {str(tracker.value) for tracker in LoggerType}
    if name in built_in and name not in {str(tracker.value) for tracker in get_available_trackers()}:
        raise InputError(f"trackers: {name} is not installed: pip install {name.replace('_', '-')}")


class Trackers:
    """What the run tells its trackers; nothing where there are none. Of several processes the first one tells it.

    Args:
        accelerator: was made with the trackers' names.
        name: of the run.
        settings: of the run, told once.
        folder: of the run, where trackers that write files write them; None lets them choose.
    """

    def __init__(
        self, accelerator: Accelerator, name: str, settings: Mapping[str, Any], folder: Path | None
    ) -> None:
        self._accelerator = accelerator
        if not accelerator.log_with:
            return
        wandb = {"name": name} | ({} if folder is None else {"dir": str(folder)})
        plain = {key: v if isinstance(v, int | float | str | bool) else str(v) for key, v in settings.items()}
        try:
            accelerator.init_trackers(PROJECT, config=plain, init_kwargs={"wandb": wandb})
        except Exception as error:  # whatever the package makes of a missing key or network
            reason = " ".join(str(error).split())
            raise InputError(
                f"trackers={[str(t) for t in accelerator.log_with]}: {type(error).__name__}: {reason}"
            ) from None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Enter numbers under their names, as in `train/loss`."""
        if self._accelerator.log_with:
            self._accelerator.log(dict(values), step=step)

    def close(self) -> None:
        """End the run for the trackers; processes stay together, which `end_training` would part."""
        if not self._accelerator.log_with:
            return
        for tracker in self._accelerator.trackers:
            tracker.finish()
