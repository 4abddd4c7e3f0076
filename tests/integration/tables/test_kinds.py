"""Every registered kind of result has its tables for the terminal."""

from __future__ import annotations

import pytest
import readme_numbers.records
from readme_numbers.records import NumbersResult, NumberTable
from support.result_examples import KINDS, STAMP, every_kind

from wtacrs.estimators import InputError
from wtacrs.integration.tables.kinds import register_table, tables_of
from wtacrs.validation.records.base import Result, result_kinds

NUMBERS = NumbersResult(
    stamp=STAMP, tables=[NumberTable(name="a", commands=["make"], head=["", "one"], rows=[["x", "1"]])]
)


def test_no_kind_is_left_out() -> None:
    assert {*KINDS, "numbers"} == set(result_kinds())


@pytest.mark.parametrize("kind", [*KINDS, "numbers"])
def test_every_kind_has_tables_with_rows(kind: str) -> None:
    tables = tables_of(NUMBERS if kind == "numbers" else every_kind()[kind])
    assert tables
    assert all(table.row_count for table in tables)


def test_unknown_and_double_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="kind 'own' has no table"):
        tables_of(Result(kind="own", stamp=STAMP))
    with pytest.raises(InputError, match="has its tables already"):
        register_table("numbers", readme_numbers.records.numbers_tables)
