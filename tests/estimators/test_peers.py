"""Methods of other papers: enumerated against their stated moments, at the edges, and in the form that is published."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from support.assertions import assert_closed_forms
from support.strategies import DTYPES
from torch import Tensor

from wtacrs.estimators import LBPWHT, VCAS, ActNN, DropIT, InputError, joint_norms, make, saved_bytes
from wtacrs.estimators.core.packing import round_down
from wtacrs.estimators.sketches.lbp_wht import sequency_order
from wtacrs.estimators.sketches.srht import hadamard
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.layers.candidates import fitted, stored_bytes
from wtacrs.validation.problems import PROBLEMS, make_problem
from wtacrs.validation.properties.checks import check_estimator, properties

RANDOM = (
    "vcas",
    "vcas(rows=1)",
    "actnn",
    "actnn(bits=4, group=2)",
    "xconv(budget=1)",
    "xconv(budget=2, tokens=2)",
    'velora(groups=2, direction="random", scale="unbiased")',
)
BIASED = (
    "dropit(budget=0.5)",
    "dropit(budget=1)",
    "lbp_wht(budget=2)",
    "lbp_wht(budget=1, tokens=2)",
    'velora(groups=2, direction="fixed", scale=0.5)',
    'velora(groups=2, direction="random")',
)


def problem(name: str, n: int = 4, d: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return make_problem(name, n, d, 2, generator=torch.Generator().manual_seed(5), dtype=dtype)


def close(got: Tensor, expected: Tensor, x: Tensor, dy: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0.0, atol=1e-9 * float(joint_norms(x, dy).sum()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("spec", RANDOM)
def test_the_unbiased_are_their_closed_forms(spec: str, name: str) -> None:
    x, dy = problem(name)
    assert_closed_forms(make(spec), x, dy, None)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("spec", BIASED)
def test_the_biased_have_their_stated_moments(spec: str, name: str) -> None:
    x, dy = problem(name)
    estimator = make(spec)
    for scores in (None, torch.tensor([1.0, 0.0, 2.0, 1.0])):
        found = enumerate_moments(estimator, x, dy, scores=scores)
        close(found.mean, estimator.expectation(x, dy, scores=scores), x, dy)
        stated = float(estimator.variance(x, dy, scores=scores))
        assert found.variance == pytest.approx(stated, rel=1e-9, abs=1e-12 * float(joint_norms(x, dy).sum()) ** 2)


def test_dropit_keeps_the_largest_elements_ties_first() -> None:
    x = torch.tensor([[1.0, -3.0, 2.0], [2.0, 0.5, -2.0]])
    kept = DropIT(budget=1).contract(DropIT(budget=1).compress(x), torch.eye(2))
    assert kept.tolist() == [[0.0, -3.0, 2.0], [2.0, 0.0, 0.0]]


@pytest.mark.parametrize("size", [1, 2, 8, 32])
def test_sequency_is_the_number_of_changes_of_sign(size: int) -> None:
    rows = hadamard(torch.eye(size))[sequency_order(size, size, torch.device("cpu"))]
    assert (rows[:, 1:] != rows[:, :-1]).sum(1).tolist() == list(range(size))


def test_lbp_wht_is_exact_with_all_coefficients() -> None:
    x, dy = problem("heavy_tailed", n=8)
    for estimator in (LBPWHT(budget=8), LBPWHT(budget=4, tokens=4)):
        close(estimator.contract(estimator.compress(x), dy), dy.T @ x, x, dy)


def test_xconv_of_one_sample_is_the_gaussian_sketch() -> None:
    x, dy = problem("gaussian", n=9)
    probed, sketched = make("xconv(budget=0.5)"), make("gaussian_sketch(budget=0.5)")
    one, other = (
        e.contract(e.compress(x, generator=torch.Generator().manual_seed(1)), dy) for e in (probed, sketched)
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert float(probed.variance(x, dy)) == pytest.approx(float(sketched.variance(x, dy)), rel=1e-12)


def test_vcas_has_the_variance_of_bernoulli_with_known_scores() -> None:
    x, dy = problem("heavy_tailed", n=12)
    independent = make("bernoulli(budget=5, reserve=20.0)").variance(x, dy, scores=joint_norms(x, dy))
    assert float(VCAS(rows=5).variance(x, dy)) == pytest.approx(float(independent), rel=1e-12)
    broken = VCAS().contract(VCAS().compress(x), dy.index_fill(0, torch.tensor([3]), float("nan")))
    assert broken.isnan().all()


@dataclass(frozen=True, repr=False)
class AsPublished(ActNN):
    """Rounds the least level and the step to bf16 after the codes are found."""

    name = "as_published"

    def levels(self, x):
        groups = x.reshape(len(x), 1, -1)
        least, largest = groups.amin(2), groups.amax(2)
        return least, (largest - least) / self._top

    def rounded(self, x, uniforms):
        saved = super().rounded(x, uniforms)
        return saved._replace(least=saved.least.bfloat16().double(), steps=saved.steps.bfloat16().double())


@pytest.mark.usefixtures("unchecked")
def test_the_published_form_of_actnn_is_biased_and_caught() -> None:
    x, dy = problem("gaussian")
    x, size = x + 1000.0, float(joint_norms(x + 1000.0, dy).sum())
    published, sound = AsPublished(group=None), ActNN(group=None)
    bias = float((enumerate_moments(published, x, dy).mean - dy.T @ x).norm()) / size
    assert 1e-5 < bias <= 2.0**-8
    assert float((enumerate_moments(sound, x, dy).mean - dy.T @ x).norm()) <= 1e-12 * size
    (found,) = check_estimator(published, only=["unbiased, by enumeration"], raises=False)
    assert found.status == "broken"


@pytest.mark.parametrize("shift", [0.0, 1.003, -7.77e4, 3.3e38, -1e-30])
def test_levels_of_actnn_enclose_the_group(shift: float) -> None:
    x = (torch.randn(4, 70, generator=torch.Generator().manual_seed(0)) * 1e-3 + 1.0) * (shift or 1.0)
    least, steps = ActNN(group=32).levels(x)
    places = ActNN(group=32).places(x)
    assert least.dtype == steps.dtype == torch.bfloat16
    assert float(places.min()) >= 0.0
    assert float(places.max()) <= 3.0 + 1e-5


def test_round_down_is_below_and_next_to_the_number() -> None:
    powers = torch.rand(4000, generator=torch.Generator().manual_seed(0)) * 70 - 35
    x = torch.cat([10.0**powers, -(10.0**powers), torch.tensor([0.0, 1.0, -1.0, 3.4e38, 1e-45, -1e-45])])
    down = round_down(x).float()
    assert (down <= x).all()
    assert ((x - down) <= x.abs() * 2.0**-7 + 1e-40).all()
    assert float(round_down(torch.tensor([-3.4e38]))) == torch.finfo(torch.bfloat16).min


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spec", [*RANDOM, *BIASED, 'xconv(budget=2, tokens=3, probes="orthogonal")'])
def test_every_dtype_and_hardly_any_rows(spec: str, dtype: torch.dtype) -> None:
    estimator = make(spec)
    for n in (0, 1, 7):
        x, dy = problem("zero_rows", n=n, dtype=dtype)
        found = estimator.contract(estimator.compress(x), dy)
        assert found.shape == (2, 3)
        assert found.dtype == dtype
        assert found.isfinite().all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "spec",
    ['xconv(budget=0.5, tokens=4)', 'velora(groups=3, direction="fixed", scale=2)', "dropit(budget=0.3)",
     "lbp_wht(budget=0.5, tokens=5)"],
)  # fmt: skip
def test_form(spec: str) -> None:
    """All but what is tested by sampling: that is enumerated above."""
    names = [name for name, _ in properties() if not name.startswith("mean") and "sampling" not in name]
    verdicts = check_estimator(make(spec), only=names)
    assert {v.status for v in verdicts} <= {"holds", "not applicable"}


def test_compare_sizes_them_at_equal_bytes() -> None:
    for spec in ("dropit", "lbp_wht", "xconv"):
        found = fitted(spec, 0.3, (64, 64), torch.bfloat16)
        assert found is not None
        assert 0.2 < stored_bytes(found, (64, 64), torch.bfloat16) / (64 * 64 * 2) <= 0.3
    assert saved_bytes(ActNN().compress(torch.ones(10, 512))) == 10 * (128 + 2 * 4)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dropit(budget=0)", "dropit: budget=0 must be"),
        ("lbp_wht(budget=2, tokens=0)", "lbp_wht: tokens=0 must be None"),
        ("xconv(budget=2, tokens=2.0)", r"xconv: tokens=2\.0 must be None"),
        ('xconv(budget=2, probes="signs")', "xconv: probes='signs' must be one of gaussian, orthogonal"),
        ("vcas(rows=1.5)", r"vcas: rows=1\.5 must be"),
        ("actnn(bits=3)", "actnn: bits=3 must be"),
        ('velora(groups=2, direction="mean")', "velora: direction='mean' must be one of"),
        ('velora(groups=2, scale="unbiased")', "velora: scale='unbiased' must be a finite number > 0"),
        ("velora(groups=2, scale=-1)", "velora: scale=-1 must be"),
    ],
)
def test_refusals(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(spec)
