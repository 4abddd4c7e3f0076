"""Numbers of README and docs: their tables are those of the result file, and places and tables belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
from readme_numbers.check import differences, main, same_arithmetic
from readme_numbers.experiments import committed_tables
from readme_numbers.measure import RESULT
from readme_numbers.readme import fill, filled, markdown, pages, places
from readme_numbers.records import NumbersResult, NumberTable
from readme_numbers.tables import combination_numbers, oracle_ratio_numbers, timing_numbers, training_numbers
from support import figure_examples as examples
from support.paths import ROOT

from wtacrs.estimators import InputError
from wtacrs.validation.records.results import load_result, write_result
from wtacrs.validation.records.training import TrainingResult

PAGES = "".join(page.read_text(encoding="utf-8") for page in pages(ROOT))
TABLE = NumberTable(name="a-table", commands=["make demo"], head=["", "one"], rows=[["x", "1"], ["y", "2"]])
PLACE = "before\n<!-- numbers: a-table -->\nold\n<!-- end -->\nafter\n"


def test_the_pages_show_the_measured_numbers() -> None:
    result = load_result(ROOT / RESULT)
    assert isinstance(result, NumbersResult)
    tables = [*result.tables, *committed_tables(ROOT)]
    assert len(places(PAGES)) == len(tables) >= 9
    assert filled(PAGES, tables) == PAGES


def test_a_place_is_filled_and_filled_again() -> None:
    once = filled(PLACE, [TABLE])
    assert once == f"before\n<!-- numbers: a-table -->\n{markdown(TABLE)}<!-- end -->\nafter\n"
    assert filled(once, [TABLE]) == once
    assert markdown(TABLE).splitlines() == ["|  | one |", "| --- | ---: |", "| x | 1 |", "| y | 2 |"]


def test_places_and_tables_belong_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a-table' is a place without a table"):
        filled(PLACE, [])
    with pytest.raises(InputError, match="'a-table' is without a place"):
        filled("nothing", [TABLE])
    with pytest.raises(InputError, match="No such file"):
        fill([tmp_path / "missing.md"], [TABLE])
    file = tmp_path / "README.md"
    file.write_text(PLACE)
    with pytest.raises(InputError):
        fill([file], [])
    assert file.read_text() == PLACE
    fill([file], [TABLE])
    assert file.read_text() == filled(PLACE, [TABLE])


def test_tables_are_made_of_results() -> None:
    from support.captures import capture

    from wtacrs.validation.layers.candidates import candidates_from
    from wtacrs.validation.layers.compare import compare
    from wtacrs.validation.layers.equal_bytes import BASELINE, COMBINATIONS
    from wtacrs.validation.records.base import stamp
    from wtacrs.validation.records.compare import ComparisonResult

    run = examples.training("exact")
    assert training_numbers([run]).rows == [["`exact`", f"{run.final:.3f}", "3"]]
    rows = compare(
        {"a": capture(0, 60, 16, 5)}, candidates_from([BASELINE, COMBINATIONS[0]], (0.3,), (0.5,)), draws=4
    )
    result = ComparisonResult(stamp=stamp(seed=0), rows=rows)
    (line,) = combination_numbers({"M": result}).rows
    by = {(r.requested, r.scores): r.variance for r in rows if r.bytes_share}
    ratio = by["systematic", "oracle"] / by[BASELINE, "oracle"]
    assert line[0] == "`systematic`"
    assert float(line[1].split(" / ")[0]) == pytest.approx(ratio, abs=0.006)
    row = oracle_ratio_numbers({"M": result}).rows[0]
    norms, best = (
        next(r.variance for r in rows if r.scores == kind and r.bytes_share is None and "wta" in r.estimator)
        for kind in ("row-norms", "oracle")
    )
    assert row[1] == f"{norms / best:.3g} / –"


def test_timing_has_a_row_for_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    from readme_numbers import tables as number_tables

    monkeypatch.setattr(number_tables, "SHAPES", ((20, 4, 4), (30, 4, 4)))
    table = timing_numbers(rounds=1)
    assert [row[0] for row in table.rows] == ["20, 4", "30, 4"]
    assert {len(row) for row in table.rows} == {len(table.head)}


def stored(*finals: float, like: TrainingResult) -> NumbersResult:
    rows = [["`one`", f"{final:.3f}", "3"] for final in finals]
    table = NumberTable(name="training", commands=["make demo"], head=["", "dev accuracy, last", "s"], rows=rows)
    return NumbersResult(stamp=like.stamp, tables=[table])


def test_a_stored_accuracy_must_be_the_fresh_one() -> None:
    run = examples.training("exact")
    assert differences(stored(run.final, like=run), [run]) == []
    (line,) = differences(stored(run.final + 0.001, like=run), [run])
    assert f"{run.final + 0.001:.3f} is stored, the fresh run gives {run.final:.3f}" in line
    (line,) = differences(stored(run.final, run.final, like=run), [run])
    assert "2 rows are stored, and the demo has 1 runs" in line


def test_another_processor_may_round_otherwise_but_not_by_much() -> None:
    """Dev has 100 examples: five standard errors of a difference are some thirty points."""
    run = examples.training("exact")
    elsewhere = run.model_copy(update={"stamp": run.stamp.model_copy(update={"processor": "another"})})
    assert not same_arithmetic(elsewhere.stamp, run.stamp)
    assert differences(stored(run.final - 0.05, like=elsewhere), [run]) == []
    assert differences(stored(run.final - 0.5, like=elsewhere), [run])


def test_the_check_of_a_demo_reads_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [examples.training("exact"), examples.training("crs(budget=0.5)")]
    for name, run in zip(("exact", "wta_crs"), runs, strict=True):
        write_result(tmp_path / f"training-{name}.json", run)
    numbers = tmp_path / "numbers.json"
    arguments = ["--demo", str(tmp_path), "--result", str(numbers)]
    assert main(arguments) == 2
    assert "error: result file" in capsys.readouterr().err
    write_result(numbers, stored(*(run.final for run in runs), like=runs[0]))
    assert main(arguments) == 0
    write_result(numbers, stored(runs[0].final, runs[1].final - 0.5, like=runs[0]))
    assert main(arguments) == 1
    assert "must be equal" in capsys.readouterr().out
