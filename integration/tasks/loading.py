"""A task by its name: the offline ``docstrings``, or one of GLUE."""

from __future__ import annotations

import difflib
from pathlib import Path

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.docstrings import docstrings_task
from wtacrs.integration.tasks.glue import GLUE_TASKS, glue_input, glue_task
from wtacrs.validation.seeds import checked_seed

TASKS: tuple[str, ...] = ("docstrings", *GLUE_TASKS)
"""Names that `load_task` takes."""


def load_task(
    name: str,
    *,
    data: Path | None = None,
    train_limit: int | None = None,
    dev_limit: int | None = None,
    held_out: int | None = None,
    seed: int = 0,
) -> TaskData:
    """Load a task.

    Args:
        name: one of `TASKS`.
        data: folder with SST-2/, RTE/, … that hold train.tsv and dev.tsv (UTF-8, a header, tab separated, no
            quoting, columns ``sentence1 [sentence2] label``), or such a task's own folder; None takes the hub.
            ``docstrings`` reads the installed libraries and takes no folder.
        train_limit: keep at most so many training examples, a random subset that grows with the limit (for
            ``docstrings`` a prefix, which is balanced); None keeps all, in their order.
        dev_limit: the same for dev.
        held_out: take so many training examples, drawn by the seed, as dev examples in place of the task's own.
        seed: of the random subsets, the one that is held out too.

    Raises:
        InputError: for an unknown task, a limit below 1, files that are missing or malformed, or no network.
    """
    seed = checked_seed(seed)
    if name not in TASKS:
        near = difflib.get_close_matches(str(name).casefold(), TASKS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"task={name!r} is unknown; {hint}the tasks are {', '.join(TASKS)}")
    check_limits(train_limit, dev_limit)
    if name == "docstrings":
        if held_out is not None:
            raise InputError(
                f"held_out={held_out}: task 'docstrings' has dev examples of its own; a GLUE task is needed"
            )
        return docstrings_task(data, train_limit, dev_limit)
    return glue_task(name, data, train_limit, dev_limit, held_out=held_out, seed=seed)


def check_limits(train_limit: int | None, dev_limit: int | None) -> None:
    """Refuse a limit below 1.

    Raises:
        InputError: naming it.
    """
    for argument, limit in (("train_limit", train_limit), ("dev_limit", dev_limit)):
        if limit is not None and limit < 1:
            raise InputError(f"{argument}={limit}: an integer from 1, or none for all examples, is needed")


def named_input(name: str, parts: tuple[str, ...]) -> str:
    """What a text-to-text model reads of bare texts of a named task.

    Raises:
        InputError: for another number of texts than the task has.
    """
    if name == "docstrings":
        return f"docstrings sentence: {parts[0]}"
    return glue_input(name, parts)
