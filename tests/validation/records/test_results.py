"""The results schema: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
import math

import pytest
import torch

from wtacrs.estimators import InputError, make
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compare import ComparisonConfig, compare_layer
from wtacrs.validation.layers.sweep import sweep_winners
from wtacrs.validation.problems import make_problem
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.records.base import SCHEMA_VERSION, stamp
from wtacrs.validation.records.check import CheckResult, Verdict
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.records.results import load_result, write_result, write_text
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.records.training import TrainingPoint, TrainingResult


def problem():
    return make_problem("gaussian", 20, 4, 3, generator=torch.Generator().manual_seed(0))


def layer() -> LayerCapture:
    x, dy = problem()
    return LayerCapture(x, dy, torch.ones(20, dtype=torch.bool))


def comparison() -> ComparisonResult:
    names = ["exact", "crs(budget=1)", "crs(budget=1.0)"]
    return ComparisonResult(
        stamp=stamp(seed=0), rows=compare_layer("a", layer(), names, ComparisonConfig(("oracle", "row-norms")))
    )


def training() -> TrainingResult:
    points = [
        TrainingPoint(step=0, epoch=0.0, train_loss=None, dev={"accuracy": 0.25}, seconds=0.0),
        TrainingPoint(step=10, epoch=0.5, train_loss=math.nan, dev={"accuracy": math.inf}, seconds=1.5),
    ]
    return TrainingResult(
        stamp=stamp(seed=None, inputs={"spec": "crs"}),
        task="t",
        model="m",
        estimator="exact",
        parameters=10,
        converted=2,
        train_size=8,
        dev_size=4,
        metric="accuracy",
        majority=0.25,
        best=0.5,
        final=0.5,
        history=points,
    )


def test_every_kind_comes_back(tmp_path):
    results = [
        comparison(),
        SweepResult(stamp=stamp(seed=1), sweeps=sweep_winners("a", *problem(), [0.5, 3])),
        CheckResult(
            stamp=stamp(seed=2),
            estimator="exact",
            verdicts=check_estimator(make("exact"), only=["mean: equal rows", "macs"]),
        ),
    ]
    for position, result in enumerate(results):
        again = load_result(write_result(tmp_path / "deep" / f"{position}.json", result))
        assert again == result
        assert type(again) is type(result)


def test_one_row_and_all_rows_stay_apart(tmp_path):
    """A budget of 1 is one row, 1.0 is all of them; JSON must not confuse them."""
    again = load_result(write_result(tmp_path / "a.json", comparison()))
    budgets = {row.estimator: row.budget for row in again.rows}
    assert isinstance(budgets["crs(budget=1)"], int)
    assert isinstance(budgets["crs(budget=1.0)"], float)


def test_values_that_are_not_finite_come_back(tmp_path):
    again = load_result(write_result(tmp_path / "a.json", training()))
    assert again.history[0].train_loss is None
    assert math.isnan(again.history[1].train_loss)
    assert math.isinf(again.history[1].dev["accuracy"])


def test_the_same_run_writes_the_same_bytes(tmp_path):
    first = write_result(tmp_path / "a.json", comparison()).read_bytes()
    assert write_result(tmp_path / "b.json", comparison()).read_bytes() == first


def test_stamp_names_what_is_needed_to_repeat():
    seen = stamp(seed=7, device="cuda:0", inputs={"file": "x"})
    assert (seen.seed, seen.device, seen.inputs) == (7, "cuda:0", {"file": "x"})
    assert seen.torch == torch.__version__
    assert seen.threads == torch.get_num_threads()


def test_passed_means_no_law_failed():
    def result(*status: str) -> CheckResult:
        verdicts = [Verdict(name="l", status=s, detail="") for s in status]
        return CheckResult(stamp=stamp(seed=0), estimator="e", verdicts=verdicts)

    assert result("pass", "expected failure", "not applicable").outcome == "holds"
    assert result("pass", "fail", "undecided").outcome == "broken"
    assert result("holds", "undecided").outcome == "undecided"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\udc80")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_unreadable_files_are_named(tmp_path):
    def broken(name: str, text: str):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    good = json.loads(comparison().model_dump_json())
    with pytest.raises(InputError, match=r"missing\.json"):
        load_result(tmp_path / "missing.json")
    with pytest.raises(InputError, match=r"half\.json does not fit the schema"):
        load_result(broken("half.json", json.dumps(good)[:100]))
    with pytest.raises(InputError, match=r"kind 'other', which is not known; the kinds are "):
        load_result(broken("kind.json", json.dumps(good | {"kind": "other"})))
    with pytest.raises(InputError, match="surplus"):
        load_result(broken("more.json", json.dumps(good | {"surplus": 1})))


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION + 1])
def test_files_of_another_version_are_refused_by_their_version(tmp_path, version):
    """Whatever else does not fit: the first version had no multiplications."""
    old = json.loads(comparison().model_dump_json())
    old["stamp"]["schema_version"] = version
    for row in old["rows"]:
        del row["macs"], row["exact_macs"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    with pytest.raises(
        InputError, match=rf"old\.json has schema version {version}, and only {SCHEMA_VERSION} is read"
    ):
        load_result(tmp_path / "old.json")
