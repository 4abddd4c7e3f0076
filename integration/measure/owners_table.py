"""Who keeps what for the backward pass, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from wtacrs.validation.arguments import checked_integer
from wtacrs.validation.records.owners import By, OwnerBytes, shared_bytes
from wtacrs.validation.records.track_memory import TrackedMemoryResult
from wtacrs.validation.records.units import megabytes

_TITLES: dict[By, str] = {
    "module": "module",
    "pattern": "modules",
    "operation": "operation",
    "type": "type of module",
}
_DETAILS: dict[By, str] = {
    "module": "type: operations",
    "pattern": "type: operations",
    "operation": "types of module",
    "type": "operations",
}
_SHOWN = 3
_DETAIL_WIDTH = 23
"""So that names of modules have room in 100 columns."""


def owners_table(result: TrackedMemoryResult, *, by: By = "pattern", rows: int = 20) -> Table:
    """The largest owners of a tracked step, with totals that add up.

    Args:
        result: the step.
        by: what tells owners apart.
        rows: as many owners are shown; the others have one row.

    Raises:
        InputError: on another `by`, and on `rows` below 1.
    """
    rows = checked_integer(rows, "rows", least=1)
    title = f"Kept for the backward pass of {result.model}, MB"
    return owners_rows(title, result.by(by), result.total, shared_bytes(result.kept, by), by=by, rows=rows)


def owners_rows(
    title: str, owners: Sequence[OwnerBytes], total: int, shared: int, *, by: By = "pattern", rows: int = 20
) -> Table:
    """Owners, largest first; below what is held alone, what is shared, every storage once, and their sum."""
    table = Table(title=title, title_justify="left")
    table.add_column(_TITLES[by], overflow="fold")
    table.add_column(_DETAILS[by], overflow="fold", max_width=_DETAIL_WIDTH)
    for name in ("alone", "shared", "of all"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in owners[:rows]:
        numbers = megabytes(entry.alone), megabytes(entry.shared), _share(entry.held, total)
        table.add_row(entry.name, _detail(entry, by), *numbers)
    if others := owners[rows:]:
        alone = sum(entry.alone for entry in others)
        table.add_row(f"{len(others)} others", "", megabytes(alone), "", _share(alone, total))
    table.add_section()
    table.add_row("held by one", "", megabytes(total - shared), "", _share(total - shared, total))
    table.add_row("held by several, once", "", "", megabytes(shared), _share(shared, total))
    table.add_row("all", "", megabytes(total), "", _share(total, total))
    return table


def _detail(entry: OwnerBytes, by: By) -> str:
    """What is told of an owner beside what it is named by."""
    types, operations = ", ".join(entry.types[:_SHOWN]), some(entry.operations)
    return {"type": operations, "operation": types}.get(by, f"{types}: {operations}")


def some(names: Sequence[str]) -> str:
    """The first few of some names.

    >>> some(["MulBackward0", "AddmmBackward0", "SoftmaxBackward0", "ReluBackward0"])
    'Mul, Addmm, Softmax, …'
    """
    short = list(dict.fromkeys(name.rstrip("0123456789").removesuffix("Backward") for name in names))
    return ", ".join([*short[:_SHOWN], *(["…"] if len(short) > _SHOWN else [])])


def _share(size: int, total: int) -> str:
    return f"{size / total:.1%}" if total else "–"
