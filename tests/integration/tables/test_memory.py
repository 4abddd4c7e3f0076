"""The tables of memory: owners stand below the totals where they were asked for."""

from __future__ import annotations

import io

from rich.console import Console
from support.result_examples import memory

from wtacrs.integration.tables.memory import memory_table, owners_tables
from wtacrs.validation.records.memory import MemoryResult
from wtacrs.validation.records.owners import OwnerBytes

OWNERS = [
    OwnerBytes(
        name=f"a.*.{name}", types=["Linear"], operations=["AddmmBackward0"], alone=alone, shared=1_000_000, storages=2
    )
    for name, alone in (("q", 3_000_000), ("k", 2_000_000))
]  # fmt: skip


def test_owners_have_a_table_for_each_step_that_tells_them() -> None:
    result = memory()
    assert list(owners_tables(result)) == []
    told = result.steps[0].model_copy(update={"owners": OWNERS, "shared": 1_000_000})
    (table,) = owners_tables(result.model_copy(update={"steps": [told, *result.steps[1:]]}))
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Megabytes by owner: exact" in text
    assert "a.*.q │ Linear: Addmm │ 3.00 │ 1.00 │ 66.7%" in text
    assert "held by several, once │ │ │ 1.00 │ 16.7%" in text
    assert "all │ │ 6.00 │ │ 100.0%" in text


def test_files_from_before_there_were_owners_load() -> None:
    older = memory().model_dump()
    for step in older["steps"]:
        del step["owners"], step["shared"]
    assert MemoryResult(**older) == memory()
    assert memory_table(MemoryResult(**older)).row_count
