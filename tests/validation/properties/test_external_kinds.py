"""What `wtacrs check PATH.py:NAME` finds, what it takes it for, and the one line for what it cannot use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from wtacrs.estimators import Estimator
from wtacrs.integration.cli import main
from wtacrs.validation.problems import make_problem
from wtacrs.validation.properties.external_estimators import ExternalLinear, ExternalProduct
from wtacrs.validation.properties.external_kinds import external_from

pytestmark = pytest.mark.usefixtures("unchecked")

FILE = """
import torch
from torch import nn
from wtacrs.estimators import CRS
from neighbour import FACTOR

class Layer(nn.Linear): ...
class Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T
    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        return dy @ weight, dy.flatten(0, -2).T @ x.flatten(0, -2)
class Setup(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, bias): return nn.functional.linear(x, weight, bias)
    @staticmethod
    def setup_context(ctx, inputs, output): ctx.save_for_backward(*inputs[:2])
    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        return dy @ weight, dy.flatten(0, -2).T @ x.flatten(0, -2), dy.flatten(0, -2).sum(0)
class Thing:
    inner = staticmethod(lambda x, dy: dy.T @ x)
def build(in_features, out_features): return nn.Linear(in_features, out_features)
def unnamed(i, o): return nn.Linear(i, o)
def linear(x, weight, bias): return nn.functional.linear(x, weight, bias)
def no_bias(x, w): return nn.functional.linear(x, w)
def product(x, dy): return dy.T @ x
def with_k(x, dy, k): return dy.T @ x
def with_generator(x, grad_output, *, generator=None): return grad_output.T @ x
def single(x, dy): return dy.float().T @ x.float()
def made(): return CRS(budget=0.3)
instance = CRS(budget=0.3)
cls = CRS
def broken_maker(): raise ZeroDivisionError("boom")
def makes_text(): return "crs"
def puzzling(a, b, c, d): ...
def vague(a, b): ...
def three_layers(in_features, out_features): return nn.ReLU()
def wrong_weight(in_features, out_features): return nn.Linear(out_features, in_features)
def breaks(in_features, out_features): raise ValueError("no such size")
built = nn.Linear(2, 3)
number = 7
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "neighbour.py").write_text("FACTOR = 1.0\n")
    path = tmp_path / "theirs.py"
    path.write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("Layer", "auto", ExternalLinear),
        ("Pair", "auto", ExternalLinear),
        ("Setup", "auto", ExternalLinear),
        ("build", "auto", ExternalLinear),
        ("unnamed", "linear", ExternalLinear),
        ("linear", "auto", ExternalLinear),
        ("linear", "linear", ExternalLinear),
        ("no_bias", "auto", ExternalLinear),
        ("product", "auto", ExternalProduct),
        ("vague", "product", ExternalProduct),
        ("Thing.inner", "auto", ExternalProduct),
        ("with_k", "auto", ExternalProduct),
        ("with_generator", "auto", ExternalProduct),
        ("made", "auto", Estimator),
        ("instance", "auto", Estimator),
    ],
)
def test_what_a_callable_is_taken_for(file: Path, name: str, kind: str, expected: type) -> None:
    before = list(sys.path)
    found = external_from(f"{file}:{name}", kind)
    assert isinstance(found, expected)
    assert isinstance(found, (ExternalLinear, ExternalProduct)) or expected is Estimator
    assert sys.path == before
    assert "theirs" not in sys.modules
    if isinstance(found, ExternalLinear):
        x, dy = make_problem("gaussian", 8, 4, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(found.contract(found.compress(x), dy), dy.T @ x)


def test_forms_of_a_product(file: Path) -> None:
    forms = {name: external_from(f"{file}:{name}") for name in ("product", "with_k", "with_generator")}
    assert [getattr(f, "form", None) for f in forms.values()] == ["plain", "k", "generator"]
    assert external_from(f"{file}:single").precision == torch.float32  # type: ignore[attr-defined]


def test_a_module_by_its_name(file: Path) -> None:
    assert isinstance(external_from("theirs:product"), ExternalProduct)
    del sys.modules["theirs"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["missing.py:f"], "missing.py: no such file"),
        (["theirs.py"], "not of the form PATH.py:NAME"),
        (["theirs.py:"], "not of the form PATH.py:NAME"),
        (["theirs.py:prodct"], "did you mean 'product'?"),
        (["theirs.py:Thing.outer"], "has no 'Thing.outer'"),
        (["syntax.py:f"], "SyntaxError"),
        (["needs.py:f"], "No module named 'absent_library'"),
        (["leaves.py:f"], "SystemExit: 3"),
        (["no.such.module:f"], "ModuleNotFoundError"),
        (["not a module:f"], "neither a Python file"),
        (["theirs.py:number"], "not callable: it is of type int"),
        (["theirs.py:number", "--kind", "product"], "not callable: it is of type int"),
        (["theirs.py:puzzling"], "say --kind product or --kind linear"),
        (["theirs.py:puzzling", "--kind", "product"], "cannot be called as a product"),
        (["theirs.py:puzzling", "--kind", "linear"], "cannot be used as a linear layer"),
        (["theirs.py:vague"], "say --kind product or --kind linear"),
        (["theirs.py:product", "--kind", "estimator"], "needs x, dy"),
        (["theirs.py:cls"], "needs budget"),
        (["theirs.py:broken_maker"], "raised ZeroDivisionError: boom"),
        (["theirs.py:makes_text"], "returned str"),
        (["theirs.py:three_layers"], "weight is no tensor"),
        (["theirs.py:wrong_weight"], "[out, in] = [5, 6] is needed"),
        (["theirs.py:breaks"], "raised ValueError: no such size"),
        (["theirs.py:built"], "a layer already built"),
        (["theirs.py:product", "--kind", "sketch"], "must be one of auto, estimator, product, linear"),
        (["theirs.py:product", "--level", "2"], "level"),
        (["crs(budget=0.3)", "--kind", "product"], "is a spec"),
    ],
)
def test_bad_input_is_one_line(
    file: Path, arguments: list[str], fragment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "syntax.py").write_text("def f(:\n")
    (file.parent / "needs.py").write_text("import absent_library\n")
    (file.parent / "leaves.py").write_text("raise SystemExit(3)\n")
    before, modules = list(sys.path), {name for name in sys.modules if name.startswith("_wtacrs")}
    code = main(["check", *arguments])
    streams = capsys.readouterr()
    assert code == 2, streams
    assert streams.err.startswith("error: ")
    assert streams.err.count("\n") == 1
    assert fragment in streams.err
    assert sys.path == before
    if arguments[0].startswith(("syntax", "needs", "leaves")):
        assert {name for name in sys.modules if name.startswith("_wtacrs")} == modules
