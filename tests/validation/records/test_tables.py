"""Results as tables: every kind gives every value of its records in rows and frames, and says in a line what it is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pydantic import BaseModel
from support.result_examples import KINDS, every_kind

from wtacrs.estimators import InputError
from wtacrs.validation import Result, load_result, load_results, write_result
from wtacrs.validation.records.base import result_kinds
from wtacrs.validation.records.flat import dtypes_of, tables_of

TABLES = [(kind, name) for kind in KINDS for name in tables_of(result_kinds()[kind])]


def numbers(value: Any) -> Iterator[float]:
    """Every number of a record, however deep, without those of stamps."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if name != "stamp":
                yield from numbers(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, float) and not isinstance(value, bool):
        yield value


@pytest.mark.parametrize("kind", KINDS)
def test_no_number_of_a_result_is_left_out(kind: str) -> None:
    result = every_kind()[kind]
    told = {
        v for name in result.table_names for row in result.to_rows(name) for v in row.values() if v is not None
    }
    missing = [number for number in numbers(result) if number == number and number not in told]
    if kind == "experiment":  # its configuration is text, in JSON
        missing = [number for number in missing if number not in set(numbers(result.config))]
    assert missing == []


@pytest.mark.parametrize(("kind", "name"), TABLES)
def test_a_frame_has_the_rows_with_one_plain_value_in_every_cell(kind: str, name: str) -> None:
    result = every_kind()[kind]
    rows, frame = result.to_rows(name), result.to_frame(name)
    assert len(frame) == len(rows)
    assert frame.attrs == {"kind": kind, "table": name}
    for row, (_, series) in zip(rows, frame.iterrows(), strict=True):
        for column, value in row.items():
            assert not isinstance(value, (list, tuple, dict, BaseModel))
            assert pandas.isna(series[column]) if value is None or value != value else series[column] == value


@pytest.mark.parametrize(("kind", "name"), TABLES)
def test_numbers_have_numeric_dtypes(kind: str, name: str) -> None:
    result = every_kind()[kind]
    frame, known = result.to_frame(name), dtypes_of(type(result), name)
    assert set(known) <= set(frame.columns)
    for column, dtype in known.items():
        if dtype in ("int", "float"):
            assert is_numeric_dtype(frame[column]), column
        elif dtype == "bool":
            assert is_bool_dtype(frame[column]), column
    for column in set(frame.columns) - set(known):  # keys of mappings
        assert is_numeric_dtype(frame[column]), column


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_one_row(kind: str) -> None:
    result = every_kind()[kind]
    for field in type(result).model_fields:
        held = getattr(result, field)
        if isinstance(held, Sequence) and held and isinstance(held[0], BaseModel):
            assert len(result.to_rows(field)) == len(held)


def test_a_sweep_gives_a_row_for_every_number_of_winners() -> None:
    sweep = every_kind()["sweep"]
    frame = sweep.to_frame()
    assert len(frame) == sum(len(one.winners) for one in sweep.sweeps)
    first = sweep.sweeps[0]
    mine = frame[(frame.layer == first.layer) & (frame.budget == first.budget) & (frame.scores == first.scores)]
    assert mine.winners.tolist() == list(first.winners)
    assert mine.variance.tolist() == list(first.variance)


def test_rows_within_a_row_begin_with_it() -> None:
    memory = every_kind()["memory"]
    frame = memory.to_frame("saved")
    by_step = frame.groupby(["estimator", "checkpointing"]).bytes.sum()
    assert by_step["exact", False] == memory.steps[0].total


def test_a_column_of_the_row_around_gives_way() -> None:
    assert {"steps_shared", "shared"} <= set(every_kind()["memory"].to_frame("owners").columns)


def test_columns_of_integers_with_gaps_stay_integers() -> None:
    frame = every_kind()["front"].to_frame()
    assert str(frame.peak.dtype) == "Int64"
    assert frame.peak.isna().tolist() == [False, False, True]


def test_properties_are_columns() -> None:
    comparison = every_kind()["comparison"]
    assert [row["relative_macs"] for row in comparison.to_rows()] == [row.relative_macs for row in comparison.rows]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_table_is_refused_with_the_known_ones(kind: str) -> None:
    result = every_kind()[kind]
    with pytest.raises(InputError) as error:
        result.to_frame("layerz")
    assert "table='layerz'" in str(error.value)
    assert all(name in str(error.value) for name in result.table_names)


def test_names_of_tables_differ() -> None:
    for result in every_kind().values():
        assert max(Counter(result.table_names).values()) == 1
        assert result.table_names[-1] == "summary"


def test_without_pandas_there_are_rows_and_the_way_to_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    result = every_kind()["comparison"]
    assert result.to_rows()
    with pytest.raises(InputError, match="pip install pandas"):
        result.to_frame()
    assert "<table>" in result._repr_html_()


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_shown_in_a_line(kind: str) -> None:
    result = every_kind()[kind]
    shown = repr(result)
    assert shown == str(result)
    assert shown.startswith(f"{type(result).__name__}(")
    assert len(shown) < 160
    assert "\n" not in shown


def test_headlines() -> None:
    shown = {kind: repr(result) for kind, result in every_kind().items()}
    assert shown["sweep"] == "SweepResult(2 layers × 1 budget, seed 0)"
    assert shown["layer tests"] == "LayerTestResult(broken, 3 layers × 2 estimators, seed 0)"
    assert shown["experiment"] == "ExperimentResult(10 methods × 3 seeds, accuracy)"
    assert shown["transfer"] == "TransferResult(4 standings, 2 pairs, seed 0)"


@pytest.mark.parametrize("kind", KINDS)
def test_html_escapes_what_it_shows(kind: str) -> None:
    shown = every_kind()[kind]._repr_html_()
    assert "<script>" not in shown
    assert shown.count("<tr>") <= 11


def test_records_within_results_are_shown_in_full() -> None:
    assert "variance=" in repr(every_kind()["comparison"].rows[0])


@pytest.mark.parametrize("kind", KINDS)
def test_results_come_back_from_folders(kind: str, tmp_path: Path) -> None:
    result: Result = every_kind()[kind]
    path = write_result(tmp_path / "sub" / "result.json", result)
    (tmp_path / "other.json").write_text('{"train": 1}')
    (tmp_path / ".parts").mkdir()
    (tmp_path / ".parts" / "half.json").write_text("{")
    assert load_results(tmp_path) == {path: result}
    assert load_results([path]) == {path: load_result(str(path))}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no result file"):
        load_results(tmp_path)
    (tmp_path / "cut.json").write_text('{"kind": "noise", "sta')
    with pytest.raises(InputError, match=r"cut\.json"):
        load_results(tmp_path)
