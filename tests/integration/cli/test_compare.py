"""`wtacrs compare`."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from support.cli import printed, refused

from wtacrs.integration.cli import main
from wtacrs.integration.studies.compare import DEFAULT_ESTIMATORS, candidates_of
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.runner import code_mark


def test_compare_writes_its_result_and_figures(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    specs = ["--estimator", "crs", "--estimator", "wta_crs(budget=0.5)", "--budget", "0.2", "--budget", "8"]
    assert main(["compare", str(captures), *specs, "--out", str(out)]) == 0
    shown = printed(capsys)
    assert "skipped" in shown
    assert "dead#0" in shown
    result = load_result(out / "comparison.json")
    assert isinstance(result, ComparisonResult)
    assert {row.estimator for row in result.rows} == {
        "crs(budget=0.2)",
        "crs(budget=8)",
        'wta_crs(budget=0.5, winners="paper")',
    }
    assert len(result.rows) == 3 * 3 * 2
    for name in ("comparison.png",):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again"
    assert main(["compare", str(captures), *specs, "--out", str(again)]) == 0
    assert (again / "comparison.json").read_bytes() == (out / "comparison.json").read_bytes()


PIECES = """
import torch
from torch import nn
def sampled(x, dy, k):
    rows = torch.randint(len(x), (k,))
    return dy[rows].T @ x[rows] * (len(x) / k)
def shrunk(x, dy): return 0.9 * dy.T @ x
class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, budget):
        ctx.rows = torch.randperm(len(x))[: int(budget * len(x)) if budget < 1 else budget]
        ctx.scale = len(x) / len(ctx.rows)
        ctx.save_for_backward(x[ctx.rows], weight)
        return x @ weight.T
    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        return dy @ weight, ctx.scale * dy[ctx.rows].T @ x, None
class Layer(nn.Linear):
    def __init__(self, in_features, out_features, budget):
        super().__init__(in_features, out_features, bias=False)
        self.budget = budget
    def forward(self, x): return Half.apply(x, self.weight, self.budget)
def picky(x, dy):
    print("picky was called")
    if len(x) == 40: raise ValueError("not this one")
    return dy.T @ x
"""


@pytest.fixture
def pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "theirs.py").write_text(PIECES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("unchecked")
def test_somebody_elses_products_and_layers_beside_the_zoo(
    captures: Path, pieces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["theirs.py:sampled", "theirs.py:shrunk", "theirs.py:Layer", "theirs.py:picky", "crs"]
    budgets = ["--budget", "0.5", "--budget", "10", "--draws", "200"]
    assert main(["compare", str(captures), *names, *budgets, "--layers", "*.wi", "--out", "out"]) == 0
    result = load_result(Path("out/comparison.json"))
    assert isinstance(result, ComparisonResult)
    found = {row.estimator: row for row in result.rows if row.layer == "block.0.wi#0"}
    assert list(found) == [
        "theirs.py:sampled(budget=0.5)", "theirs.py:sampled(budget=10)", "theirs.py:shrunk",
        "theirs.py:Layer(budget=0.5)", "theirs.py:Layer(budget=10)", "crs(budget=0.5)", "crs(budget=10)",
    ]  # fmt: skip
    assert all(row.time is not None and row.time > 0 for row in result.rows)
    sampled, shrunk, layer = (
        found[f"theirs.py:{name}"] for name in ("sampled(budget=0.5)", "shrunk", "Layer(budget=0.5)")
    )
    assert shrunk.bias_squared == pytest.approx(0.01, rel=1e-3)
    assert shrunk.mse_of_mean == pytest.approx(0.01, rel=1e-3)  # its claim to be unbiased hides nothing
    assert sampled.budget == layer.budget == 0.5
    assert sampled.saved_bytes == sampled.exact_bytes == 40 * 6 * 4
    assert (
        layer.saved_bytes == layer.exact_bytes // 2 + 40 * 8
    )  # and the order of all 40 rows, of which it shows half
    assert sampled.draws == 200
    shown = " ".join(printed(capsys).split())
    assert "skipped theirs.py:picky on block.0.wi#0: it raises ValueError: not this one" in shown
    assert "what the code printed: out/compare.log" in shown
    assert "picky was called" in Path("out/compare.log").read_text()
    assert "picky was called" not in shown


@pytest.mark.usefixtures("unchecked")
def test_without_other_names_the_usual_estimators_stand_beside(captures: Path, pieces: Path) -> None:
    found = candidates_of(["theirs.py:shrunk"], [0.3], None)
    assert [candidate.text for candidate in found[:2]] == ["theirs.py:shrunk", "topk(budget=0.3)"]
    assert len(found) == 1 + len(DEFAULT_ESTIMATORS)
    again = pickle.loads(pickle.dumps(candidates_of(["theirs.py:sampled"], [0.3], None)[0].estimator))
    assert repr(again) == "theirs.py:sampled(budget=0.3)"
    assert again.rows(40) == 12


@pytest.mark.slow
def test_workers_find_the_pieces(captures: Path, pieces: Path) -> None:
    arguments = ["compare", str(captures), "theirs.py:sampled", "theirs.py:Layer", "crs", "--budget", "0.5"]
    for jobs in ("1", "2"):
        assert main([*arguments, "--jobs", jobs, "--out", jobs]) == 0
    one, two = (load_result(Path(jobs) / "comparison.json") for jobs in ("1", "2"))
    assert isinstance(one, ComparisonResult)
    assert isinstance(two, ComparisonResult)
    assert [r.model_copy(update={"time": None}) for r in one.rows] == [
        r.model_copy(update={"time": None}) for r in two.rows
    ]


def test_a_changed_file_is_another_task(pieces: Path) -> None:
    sampled = candidates_of(["theirs.py:sampled"], [0.3], None)[0].estimator
    first = code_mark([sampled])
    assert "theirs.py" in first
    assert code_mark(["crs(budget=0.3)", "quantized_rows(rows=theirs.py:Mine(budget=3))"]) == first
    assert code_mark(["crs(budget=0.3)", 'wta_crs(budget=0.3, winners="paper")', "no spec ("]) == ""
    (pieces / "theirs.py").write_text(PIECES + "# changed")
    assert code_mark([sampled]) != first


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["compare"], "CAPTURES"),
        (["compare", "missing.safetensors"], "no such file"),
        (["compare", "{captures}", "--budget", "most"], "'most' must be a fraction"),
        (["compare", "{captures}", "--budget", "1.5"], "budget=1.5 must be"),
        (["compare", "{captures}", "--budget", "0"], "budget=0 must be"),
        (["compare", "{captures}", "--estimator", "wta_csr"], "did you mean wta_crs"),
        (["compare", "{captures}", "--layers", "*.nope"], "fits none of the 4 captured layers"),
        (["compare", "{captures}", "--layers", "dead"], "no chosen layer has a product other than zero"),
        (["compare", "{captures}", "--scores", "best"], "must be one of oracle, row-norms, stale, both, all"),
        (["compare", "{captures}", "--scores", "all"], "layer 'block.0.wi#0': scores='stale' need"),
        (["compare", "{captures}", "--draws", "1"], "--draws"),
        (["compare", "{text}"], "not a whole safetensors file"),
        (["compare", "{captures}", "--out", "{text}/below"], "{text}"),
        (["compare", "{captures}", "--estimator", "crs(budget=-1)"], "budget=-1 must be"),
        (["compare", "{captures}", "--estimator", "wta_crs(winers=3)"], "did you mean winners"),
        (["compare", "."], "is a folder"),
        (["compare", "{captures}", "gone.py:f"], "gone.py: no such file in "),
        (["compare", "{captures}", "crs", "--estimator", "gone.py:f"], "gone.py: no such file in "),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))


def test_recommended_at_a_budget_names_the_option_and_leaves_no_folder(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    line = ["compare", str(captures), "--estimator", "recommended", "--budget", "0.25", "--out", str(out)]
    assert "say --bytes 0.25" in refused(capsys, *line)
    assert "mine.py" in refused(capsys, "compare", captures, "mine.py:nowhere", "--out", out)
    assert "no chosen layer" in refused(capsys, "compare", captures, "crs", "--layers", "dead#0", "--out", out)
    assert not out.parent.exists()
