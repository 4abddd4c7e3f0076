"""Closed form or Monte Carlo: the result says which, the two agree, and nothing but a missing closed form is caught."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wtacrs.estimators import CRS, InputError, NoClosedForm, make
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.compare import ComparisonConfig, compare_layer
from wtacrs.validation.layers.noise import layer_noise
from wtacrs.validation.problems import make_problem
from wtacrs.validation.properties import checks
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.properties.property import PROPERTIES
from wtacrs.validation.statistics.moments import Product, closed_form, moments
from wtacrs.validation.statistics.monte_carlo import streaming_moments
from wtacrs.validation.statistics.variance_ratio import known_moment

TOPK, CRS_SPEC = "topk(budget=5)", "crs(budget=5)"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def products(count: int = 2) -> list[Product]:
    problems = [make_problem("heavy_tailed", 12 + i, 4, 3, generator=seeded(i)) for i in range(count)]
    return [Product(x, dy, x.norm(dim=1)) for x, dy in problems]


def exact(given: list[Product]) -> Tensor:
    return torch.stack([p.dy.T @ p.x for p in given]).sum(0)


class Formless(CRS):
    """CRS that does not know its variance."""

    name = "formless"

    def variance(self, x, dy, *, scores=None):
        raise NoClosedForm("unknown")


class NoKernel(CRS):
    """CRS whose variance meets an operation that torch does not have on this device."""

    name = "no_kernel"

    def variance(self, x, dy, *, scores=None):
        raise NotImplementedError("Could not run 'aten::_foo' with arguments from the 'CPU' backend")

    def moments(self, scores):
        raise NotImplementedError("Could not run 'aten::_foo' with arguments from the 'CPU' backend")


@pytest.mark.parametrize("spec", [TOPK, CRS_SPEC, "exact"])
def test_closed_forms_of_a_sum_are_sums(spec: str) -> None:
    estimator, given = make(spec), products()
    found = moments(estimator, given, target=exact(given), draws=3)
    means = [estimator.expectation(p.x, p.dy, scores=p.scores) for p in given]
    bias = means[0] + means[1] - exact(given)
    assert (found.method, found.draws, found.variance_error, found.mse_error) == ("closed form", None, None, None)
    assert found.variance == sum(float(estimator.variance(p.x, p.dy, scores=p.scores)) for p in given)
    assert found.bias_squared == pytest.approx(float(bias.square().sum()), rel=1e-9, abs=1e-20)
    assert found.mse == found.bias_squared + found.variance
    assert found.inner == pytest.approx(float((found.mean * exact(given)).sum()))


@pytest.mark.parametrize("count", [1, 2])
def test_without_a_closed_form_they_are_those_of_draws_that_are_added_up(count: int) -> None:
    """Product by product from one generator, with the standard errors of `streaming_moments`."""
    given, estimator, stream = products(count), Formless(budget=5), seeded(3)
    found = moments(estimator, given, target=exact(given), draws=30, generator=seeded(3))
    drawn = [
        sum(estimator.contract(estimator.compress(p.x, scores=p.scores, generator=stream), p.dy) for p in given)
        for _ in range(30)
    ]
    expected = streaming_moments(drawn, exact(given), 30)
    assert (found.method, found.draws) == ("monte carlo", 30)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    for name in ("bias_squared", "variance", "mse", "inner"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9)
        assert getattr(found, f"{name}_error") == pytest.approx(getattr(expected, f"{name}_error"), rel=1e-9)
        assert getattr(found, f"{name}_error") > 0


@pytest.mark.parametrize("cls", [CRS, Formless])
def test_a_mean_that_is_known_is_not_measured(cls: type[CRS]) -> None:
    given = products(1)
    found = moments(cls(budget=5), given, target=exact(given), draws=20, generator=seeded(3), mean_is_target=True)
    assert torch.equal(found.mean, exact(given))
    assert found.bias_squared == 0.0
    assert found.variance > 0


def test_the_draws_are_those_of_the_generator() -> None:
    given = products()
    first, again, other = (
        moments(Formless(budget=5), given, target=exact(given), draws=20, generator=seeded(seed)).variance
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_missing_kernel_is_an_error_and_no_reason_to_sample() -> None:
    (given,) = products(1)
    broken, layer = NoKernel(budget=5), LayerCapture(given.x, given.dy, torch.ones(12, dtype=torch.bool))
    with pytest.raises(NotImplementedError, match="aten::_foo"):
        closed_form(lambda: broken.variance(given.x, given.dy))
    with pytest.raises(NotImplementedError, match="aten::_foo"):
        moments(broken, [given], target=exact([given]), draws=20)
    with pytest.raises(NotImplementedError, match="aten::_foo"):
        compare_layer("layer", layer, [broken], ComparisonConfig(("oracle",)))
    with pytest.raises(NotImplementedError, match="aten::_foo"):
        layer_noise("layer", {"a": layer, "b": layer}, [["a"], ["b"]], [broken])
    with pytest.raises(NotImplementedError, match="aten::_foo"):
        known_moment(broken, given.x, given.dy)


@pytest.mark.usefixtures("unchecked")
def test_a_missing_kernel_is_a_broken_property(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("closed forms, by enumeration", "closed forms, by sampling")
    monkeypatch.setattr(checks, "PROPERTIES", {name: PROPERTIES[name] for name in names})
    for verdict in check_estimator(NoKernel(budget=0.3), raises=False):
        assert verdict.status == "broken"
        assert (
            verdict.detail
            == "NotImplementedError: Could not run 'aten::_foo' with arguments from the 'CPU' backend"
        )


def test_misuse_names_the_argument() -> None:
    given = products(1)
    with pytest.raises(InputError, match="products must hold at least one"):
        moments(CRS(budget=5), [], target=exact(given), draws=20)
    with pytest.raises(InputError, match="draws=2 must be"):
        moments(Formless(budget=5), given, target=exact(given), draws=2)
