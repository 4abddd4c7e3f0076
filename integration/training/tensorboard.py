"""Numbers of a run for TensorBoard, written by `tensorboard` (through torch) or by `tensorboardX`.

Both are optional: `pip install 'wtacrs[tensorboard]'`. A resumed run makes TensorBoard drop what an earlier
process wrote after the step it resumes from, so that the curves of a killed run are those of one that was not.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wtacrs.estimators.core.errors import InputError

FOLDER = "tensorboard"
"""Name of the folder of event files, inside that of the run."""


def require_tensorboard() -> None:
    """Refuse, before anything is loaded, to write events that nothing could write.

    Raises:
        InputError: if neither package is installed.
    """
    if _writer_module() is None:
        raise InputError(
            "tensorboard=True: neither tensorboard nor tensorboardX is installed: pip install 'wtacrs[tensorboard]'"
        )


class EventLog:
    """Event files of one run.

    Args:
        folder: where they are written.
        after: the step that the run resumes from; None for a new run, which removes what is in the folder.

    Raises:
        InputError: as `require_tensorboard`.
    """

    def __init__(self, folder: Path, *, after: int | None = None) -> None:
        require_tensorboard()
        module = importlib.import_module(_writer_module() or "")
        if after is None:
            shutil.rmtree(folder, ignore_errors=True)
        self._writer: Any = module.SummaryWriter(str(folder), purge_step=None if after is None else after + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Enter numbers under their names, as in `train/loss`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write everything to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def _writer_module() -> str | None:
    """The module that has a `SummaryWriter`; looked for without importing it, which takes a second."""
    found = (("tensorboard", "torch.utils.tensorboard"), ("tensorboardX", "tensorboardX"))
    return next((module for package, module in found if importlib.util.find_spec(package) is not None), None)
