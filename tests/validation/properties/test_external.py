"""External code: published defects are found by name, sound pieces pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from published_defects.pieces import all_pieces
from support.false_alarms import share
from torch import nn

from wtacrs.integration.cli import main
from wtacrs.validation.layers.captures import LayerCapture, write_captures
from wtacrs.validation.problems import make_problem
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.properties.external import EXTERNAL_PROPERTIES
from wtacrs.validation.properties.external_estimators import ExternalLinear, ExternalProduct, prepared, seeded
from wtacrs.validation.properties.external_kinds import external_from
from wtacrs.validation.properties.means import MEAN_PROPERTIES
from wtacrs.validation.properties.saved_for_backward import bytes_for_backward
from wtacrs.validation.records.check import CheckResult
from wtacrs.validation.records.results import load_result

pytestmark = pytest.mark.usefixtures("unchecked")

HEAVY, DOMINATING, EQUAL = "mean: heavy-tailed rows", "mean: one dominating row", "mean: equal rows"
STALE, DEEP, POOLED = "mean: after rows without gradient", "mean: 3-D input", "mean: all problems together"
OUTPUT = "output is exact"
ALL_MEANS = set(MEAN_PROPERTIES)

SOUND = ("SoundCachedLinear", "sound_transposed")

# of one run that must not raise an alarm, or none but those of a defect; there are fewer than 32
LEVEL = repr(share("checks: external code", 32))


def reference_of(name: str) -> str:
    return f"{all_pieces()[name].module}:{name}"


def verdicts(out: Path, name: str, *options: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and status and detail of every property, from the command line."""
    code = main(["check", reference_of(name), "--out", str(out), *options])
    (path,) = out.glob("check-*.json")
    result = load_result(path)
    assert isinstance(result, CheckResult)
    return code, {v.name: (v.status, v.detail) for v in result.verdicts}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_has_every_property(name: str, tmp_path: Path) -> None:
    code, found = verdicts(tmp_path, name, "--level", LEVEL, "--bias", "0.5")
    assert code == 0
    assert list(found) == list(EXTERNAL_PROPERTIES)
    assert {status for status, _ in found.values()} <= {"holds", "not applicable"}
    assert all(status == "holds" for key, (status, _) in found.items() if key in ALL_MEANS - {POOLED})


BROKEN = (
    ("ColdCacheLinear", EQUAL, "off by 7"),
    ("adds_epsilon", DOMINATING, "off by 0.1"),
    ("cosine_sketch_off_by_k_squared", EQUAL, "off by 2.3e+06 %"),
    ("bias_scaled_too", "bias gradient", "differs from Σ dY"),
)


@pytest.mark.parametrize(("name", "named", "words"), BROKEN, ids=lambda v: v if isinstance(v, str) else "")
def test_a_published_defect_breaks_its_property(
    name: str, named: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verdicts(tmp_path, name, "--level", LEVEL, "--bias", "0.5")
    assert code == 1
    broken = {name for name, (status, _) in found.items() if status == "broken"}
    assert named in broken
    assert words in found[named][1]
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.count("│") == 4]
    assert {cells[1].strip() for cells in rows if cells[2].strip() == "broken"} == broken


# --- properties that no published defect breaks ------------------------------------------------------------------------


class _Bent(torch.autograd.Function):
    """Scales what comes back by the given factors for dX, dW and db."""

    @staticmethod
    def forward(ctx, x, weight, bias, factors):
        ctx.save_for_backward(x, weight)
        ctx.factors = factors
        return factors[3] * nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dx, dw, db, _ = ctx.factors
        return dx * dy @ weight, dw * dy.flatten(0, -2).T @ x.flatten(0, -2), db * dy.flatten(0, -2).sum(0), None


def bent(factors: tuple[float, float, float, float]):
    return lambda x, weight, bias: _Bent.apply(x, weight, bias, factors)


def flat_only(x, weight, bias):
    assert x.ndim == 2
    return nn.functional.linear(x, weight, bias)


def scaled_in_place(x, dy):
    product = dy.T @ x
    x.mul_(0.5)
    return product


def from_elsewhere(x, dy):
    stream = torch.Generator()
    stream.seed()
    return torch.randn(1, generator=stream).to(x.dtype) * (dy.T @ x)


def beside_its_generator(x, dy, generator=None):
    del generator
    return torch.randn(1).to(x.dtype) * (dy.T @ x)


def divides_by_zero(x, dy):
    p = x.norm(dim=1) / x.norm(dim=1).sum()
    return dy.T @ (x * p.unsqueeze(1) / p.unsqueeze(1))


def wrong_dtype(x, dy):
    return (dy.T @ x).double()


def wrong_shape(x, dy):
    return (dy.T @ x).flatten()


PLANTED = (
    (bent((2.0, 1.0, 1.0, 1.0)), {"input gradient"}),
    (bent((1.0, 1.0, 2.0, 1.0)), {"bias gradient"}),
    (bent((1.0, 1.0, 1.0, 2.0)), {OUTPUT}),
    (scaled_in_place, {"inputs not modified"}),
    (from_elsewhere, {"the draw is reproducible"}),
    (beside_its_generator, {"the draw is reproducible"}),
    (divides_by_zero, {"zero scores"}),
    (wrong_dtype, {"shape and dtype"}),
    (wrong_shape, {"shape and dtype"}),
)


@pytest.mark.parametrize(("call", "broken"), PLANTED)
def test_every_property_catches_its_defect(call, broken: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mechanical = {
        name: entry for name, entry in EXTERNAL_PROPERTIES.items() if not name.startswith("mean") or name == DEEP
    }
    monkeypatch.setattr("wtacrs.validation.properties.checks.EXTERNAL_PROPERTIES", mechanical)
    external = external_from(reference(call)) if call.__name__ != "<lambda>" else linear(call)
    verdicts = check_estimator(external, level=float(LEVEL), bias=0.5, raises=False)
    failed = {v.name for v in verdicts if v.status == "broken"}
    assert broken <= failed
    assert call in (wrong_shape, scaled_in_place) or failed == broken


def test_what_takes_matrices_alone_is_not_broken_by_that() -> None:
    found = {v.name: v for v in check_estimator(linear(flat_only), bias=0.5, only=[OUTPUT, DEEP], raises=False)}
    assert (found[OUTPUT].status, found[DEEP].status) == ("holds", "not applicable")
    assert "raises AssertionError" in found[DEEP].detail


def reference(call) -> str:
    """Every function of this file under its own name, without importing the file twice."""
    sys.modules.setdefault("external_under_test", sys.modules[__name__])
    return f"external_under_test:{call.__name__}"


def linear(call) -> ExternalLinear:
    from wtacrs.validation.properties.external_estimators import FunctionLinear

    made = prepared(ExternalLinear("bent", lambda d, m: FunctionLinear(call, d, m, bias=True)))
    assert isinstance(made, ExternalLinear)
    return made


def test_real_sizes_by_captures(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x, dy = make_problem("heavy_tailed", 40, 6, 6, generator=generator, dtype=torch.float32)
    path = write_captures(
        tmp_path / "c.safetensors",
        {"layer#0": LayerCapture(x, dy, torch.ones(40, dtype=torch.bool))},
        {"model": "m"},
    )
    options = ("--captures", str(path), "--bias", "0.5")
    code, found = verdicts(tmp_path / "out", "cosine_sketch_off_by_k_squared", *options)
    assert code == 1
    assert "all rows: off by" in found["mean on layer#0"][1]


# --- the parts ------------------------------------------------------------------------------------------------------


def test_a_square_product_keeps_the_layout_that_it_was_seen_to_have() -> None:
    external = prepared(ExternalProduct("transposed", lambda x, dy: x.T @ dy))
    x, dy = make_problem("gaussian", 9, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(external.contract(external.compress(x), dy), dy.T @ x)


def test_bytes_kept_for_the_backward_pass() -> None:
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    assert bytes_for_backward(nn.Linear(8, 4), x) == x.numel() * 4

    class OnContext(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.hidden = [x[:16].clone()]
            return x.sum(1)

        @staticmethod
        def backward(ctx, dy):
            return None

    class Hiding(nn.Module):
        def forward(self, x):
            return OnContext.apply(x)

    assert bytes_for_backward(Hiding(), x) == 16 * 8 * 4


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    external = external_from(reference_of("SoundCRSLinear"))
    x, dy = make_problem("gaussian", 8, 4, 3, generator=torch.Generator().manual_seed(0))
    external.contract(external.compress(x, generator=torch.Generator().manual_seed(0)), dy)
    with seeded(9):
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)
