"""What `wtacrs check PATH.py:NAME` finds, what it takes it for, and the one line for what it cannot use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wtacrs.estimators import Estimator, InputError
from wtacrs.integration.cli import main
from wtacrs.validation.problems import make_problem
from wtacrs.validation.properties.checks import CheckFailed, check_estimator
from wtacrs.validation.properties.external_estimators import AdaptedLinear, ExternalLinear, ExternalProduct, step
from wtacrs.validation.properties.external_kinds import external_from, file_stem
from wtacrs.validation.properties.external_products import elsewhere
from wtacrs.validation.properties.saved_for_backward import bytes_for_backward

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
def vague(a, b): return b.T @ a
def three_layers(in_features, out_features): return nn.ReLU()
def wrong_weight(in_features, out_features): return nn.Linear(out_features, in_features)
def breaks(in_features, out_features): raise ValueError("no such size")
built = nn.Linear(2, 3)
class Wide(nn.Linear):
    def __init__(self, in_features, out_features, multiple=16, **more):
        if in_features % multiple or out_features % multiple: raise ValueError(f"no multiple of {multiple}")
        super().__init__(in_features, out_features)
class Square(nn.Linear):
    def forward(self, x):
        if self.in_features != self.out_features: raise ValueError("not square")
        return super().forward(x)
class Turned(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_features, out_features))
        self.bias = nn.Parameter(torch.randn(out_features))
    def forward(self, x): return x @ self.weight + self.bias
class SquareTurned(Turned):
    def forward(self, x):
        if self.weight.shape[0] != self.weight.shape[1]: raise ValueError("not square")
        return super().forward(x)
class ShrunkTurned(Turned):
    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.weight.register_hook(lambda gradient: 0.9 * gradient)
class Reversed(Turned):
    def __init__(self, nf, nx): super().__init__(nx, nf)
class Outside(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.base = nn.Linear(in_features, out_features)
    def forward(self, x): return self.base(x)
class Two(Outside):
    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.other = nn.Linear(in_features, out_features)
def turned(x, weight, bias): return x @ weight + bias
def scaled(x, dy, scale): return scale * dy.T @ x
def maker(scale=1.0): return lambda x, dy: scaled(x, dy, scale)
class Sampler:
    def __init__(self, scale): self.scale = scale
    def __call__(self, x, dy): return scaled(x, dy, self.scale)
class ScaledPair(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, other=2.0, scale=1.0):
        ctx.save_for_backward(x, weight)
        ctx.scale = scale
        return x @ weight.T
    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        return dy @ weight, ctx.scale * dy.flatten(0, -2).T @ x.flatten(0, -2), None, None
def tall(x, dy):
    if len(x) < 100: raise ValueError("too few rows")
    return dy.T @ x
def always(x, dy): raise ValueError("never")
def nothing(x, dy): return None
def always_layer(x, weight, bias): raise ValueError("never")
from dataclasses import dataclass
@dataclass(frozen=True, repr=False)
class Refusing(CRS):
    def compress(self, x, *, scores=None, generator=None): raise OSError("no kernel")
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
    ("text", "given", "scale"),
    [
        ("scaled(scale=2.0)", {}, 2.0),
        ("scaled", {"scale": 3.0}, 3.0),
        ("maker(scale=2.0)", {}, 2.0),
        ("maker", {}, 1.0),
        ("Sampler(scale=2.0)", {}, 2.0),
        ("Sampler", {"scale": 0.5}, 0.5),
        ("with_k(k=3)", {}, 1.0),
        ("Wide(multiple=8)", {}, 1.0),
        ("Wide", {"multiple": 8, "anything": [1, 2]}, 1.0),
        ("ScaledPair(scale=2.0)", {}, 2.0),
        ("turned", {}, 1.0),
    ],
)
def test_hyperparameters(file: Path, text: str, given: dict[str, Any], scale: float) -> None:
    found = external_from(f"{file}:{text}", given=given)
    assert isinstance(found, (ExternalLinear, ExternalProduct))
    n, d, m = found.sizes
    x, dy = make_problem("gaussian", n, d, m, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.contract(found.compress(x), dy), scale * dy.T @ x)
    name, _, written = text.partition("(")
    told = ", ".join([written.rstrip(")"), *(f"{key}={value!r}" for key, value in given.items())]).strip(", ")
    assert found.label == f"theirs.py:{name}" + (f"({told})" if told else "")
    assert file_stem(found) == name


def test_hyperparameters_of_an_estimator(file: Path) -> None:
    assert external_from(f"{file}:cls(budget=0.2)") == external_from(f"{file}:cls", given={"budget": 0.2})
    assert external_from(f"{file}:instance(budget=0.2)") == external_from(f"{file}:cls(budget=0.2)")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Layer", (64, 4, 3)),
        ("product", (64, 4, 3)),
        ("Wide", (64, 16, 32)),
        ("Square", (64, 8, 8)),
        ("SquareTurned", (64, 8, 8)),
        ("Turned", (64, 4, 3)),
        ("turned", (64, 4, 3)),
        ("Reversed", (64, 4, 3)),
        ("Outside", (64, 4, 3)),
    ],
)
def test_least_sizes_and_layouts_of_the_weight(file: Path, name: str, sizes: tuple[int, int, int]) -> None:
    """The output, dX, db and dW of one step are those of `x Wᵀ + b`, whatever the layer calls its weight."""
    found = external_from(f"{file}:{name}", "linear" if name == "Reversed" else "auto")
    assert isinstance(found, (ExternalLinear, ExternalProduct))
    assert found.sizes == sizes
    n, d, m = sizes
    x, dy = make_problem("gaussian", n, d, m, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.contract(found.compress(x), dy), dy.T @ x)
    if isinstance(found, ExternalLinear):
        module = found.module(d, m, torch.float64)
        weight, bias = module.weight.detach(), module.bias.detach()  # type: ignore[union-attr, operator]
        once = step(module, x, dy)
        torch.testing.assert_close(once.y, x @ weight.T + bias)
        torch.testing.assert_close(once.dx, dy @ weight)
        torch.testing.assert_close(once.dw, dy.T @ x)
        torch.testing.assert_close(once.db, dy.sum(0))
        assert bytes_for_backward(module, x) == x.numel() * x.element_size()


def test_a_defect_behind_a_turned_weight_is_seen(file: Path) -> None:
    found = external_from(f"{file}:ShrunkTurned")
    assert isinstance(found, ExternalLinear)
    x, dy = make_problem("gaussian", 64, found.sizes.d, found.sizes.m, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.contract(found.compress(x), dy), 0.9 * dy.T @ x)
    law = "mean: equal rows"
    with pytest.raises(CheckFailed, match=r"all rows 0\.9,.*off by 10 %"):
        check_estimator(found, only=[law])


def test_sizes_that_are_asked_for(file: Path) -> None:
    found = external_from(f"{file}:tall", rows=128, in_features=10, out_features=7)
    assert found.sizes == (128, 10, 7)  # type: ignore[attr-defined]
    assert external_from(f"{file}:Wide", in_features=48).sizes == (64, 48, 16)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"theirs\.py:tall raises ValueError: too few rows on every call"):
        external_from(f"{file}:tall")


def test_what_runs_on_a_device_is_shown_on_the_cpu() -> None:
    """As on any device, but that nothing moves."""
    cpu = torch.device("cpu")
    x, dy = make_problem("gaussian", 8, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    inner = nn.Linear(4, 3)
    once = step(AdaptedLinear(inner, "", turned=False, device=cpu), x, dy)
    torch.testing.assert_close(once.y, inner(x).detach())
    torch.testing.assert_close(once.dw, dy.T @ x)
    torch.testing.assert_close(once.db, dy.sum(0))

    def drawn(x: Tensor, dy: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.rand(3, 4, generator=generator)

    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    first, again, other = (elsewhere(drawn, cpu, x, dy, generator=seed) for seed in seeds)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["Layer", "Turned", "linear", "product", "with_k", "with_generator", "Pair"])
def test_on_a_device(file: Path, name: str) -> None:
    found = external_from(f"{file}:{name}", device="cuda")
    assert isinstance(found, (ExternalLinear, ExternalProduct))
    x, dy = make_problem("gaussian", 64, 4, 3, generator=torch.Generator().manual_seed(0))
    estimate = found.contract(found.compress(x), dy)
    assert estimate.device.type == "cpu"
    torch.testing.assert_close(estimate, dy.T @ x)
    assert check_estimator(found, only=["shape and dtype"])[0].status == "holds"


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
        (["not a module:f"], "not of the form PATH.py:NAME"),
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
        (["theirs.py:wrong_weight"], "takes out_features columns and gives in_features"),
        (["theirs.py:breaks"], "raised ValueError: no such size"),
        (["theirs.py:always"], "theirs.py:always raises ValueError: never on every call"),
        (["theirs.py:always_layer"], "theirs.py:always_layer raises ValueError: never on every call"),
        (["theirs.py:nothing"], "theirs.py:nothing returns NoneType, not a tensor on every call"),
        (["theirs.py:Refusing(budget=3)"], "raises OSError: no kernel on every call"),
        (
            ["theirs.py:Wide(multiple=1024)"],
            "in_features=4, out_features=3 raised ValueError: no multiple of 1024; nor",
        ),
        (["theirs.py:Two"], "no tensor, and those of base and other have its shape"),
        (["theirs.py:Sampler"], "does not tell by its arguments what it is"),
        (
            ["theirs.py:with_k", "--set", "kk=3"],
            "theirs.py:with_k has no argument 'kk' (did you mean k?); it has: x, dy, k",
        ),
        (["theirs.py:with_k(k=3)", "--set", "k=3"], "'k' is given twice"),
        (["theirs.py:with_k", "--set", "k"], "--set 'k' must be NAME=VALUE, as in k=100"),
        (["theirs.py:with_k", "--set", "k=many"], "'many' is no number, True, False, None, list or quoted string"),
        (["theirs.py:with_k", "--set", "k=1", "--set", "k=2"], "--set k is given twice"),
        (["theirs.py:cls", "--set", "bugdet=3"], "has no field 'bugdet' (did you mean budget?)"),
        (["theirs.py:instance", "--rows", "9"], "--rows 9 is for products and layers"),
        (["crs(budget=0.3)", "--in-features", "9"], "--in-features 9 is for external products and layers"),
        (["crs(budget=0.3)", "--set", "winers=3"], "crs has no field 'winers'"),
        (["theirs.py:product", "--device", "abacus"], "--device 'abacus' cannot be used"),
        (["theirs.py:product", "--log", "."], "log=. is a folder"),
        (["theirs.py:number", "--set", "k=3"], "is not callable: it takes no k"),
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
