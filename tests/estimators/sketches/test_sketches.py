"""Sketches of the row axis: equal to explicit matrices, exact moments, safe at the edges, rebuilt from a seed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_sketches as naive
from support.assertions import assert_closed_forms, assert_never_waits
from support.false_alarms import share
from support.strategies import DTYPES, products
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import SRHT, InputError, RademacherSketch, joint_norms, make, rows_for, saved_bytes
from wtacrs.estimators.core import seeded
from wtacrs.estimators.core.counter_rng import CounterStream
from wtacrs.estimators.core.packing import pack_bits, unpack_bits
from wtacrs.estimators.sketches import srht
from wtacrs.estimators.sketches.sketch import Sketch
from wtacrs.estimators.sketches.srht import hadamard, padded_size
from wtacrs.validation.enumeration.exact_moments import can_enumerate, enumerate_moments
from wtacrs.validation.problems import PROBLEMS, make_problem
from wtacrs.validation.properties.checks import check_estimator

NAMES = ("gaussian_sketch", "rademacher_sketch", "count_sketch", "srht")
SMALL = [(1, 1), (2, 1), (3, 2), (5, 4), (8, 8), (13, 5)]
# everything that comes from a seed, and the biased projections: for the list of properties
ZOO = (
    *(f"{name}(budget=0.3)" for name in NAMES),
    "random_projection(rank=1)",
    'random_projection(rank=0.5, kind="gaussian")',
    "prac(rank=2)",
    "prac(rank=0.5, principal=0)",
    "low_rank(rank=2)",
    "velora(groups=3)",
    "pamm(budget=0.3)",
    "pamm(budget=0.3, tolerance=0.5)",
)
# the others are checked whole by `make test-slow`
FAST = ("pamm(budget=0.3)",)
CHECKED = [pytest.param(spec, marks=[pytest.mark.slow] if spec not in FAST else []) for spec in ZOO]


def problem(n: int, d: int = 4, m: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return make_problem("heavy_tailed", n, d, m, generator=torch.Generator().manual_seed(n), dtype=dtype)


def sketch(name: str, budget: int | float) -> Sketch:
    estimator = make(name, budget=budget)
    assert isinstance(estimator, Sketch)
    return estimator


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "k"), SMALL)
def test_equals_its_twin(name: str, n: int, k: int) -> None:
    x, dy = problem(n)
    estimator = sketch(name, k)
    for seed in range(3):
        saved = estimator.compress(x, generator=torch.Generator().manual_seed(seed))
        matrix = getattr(naive, name)(int(saved.seed), n, k)
        kept = torch.tensor(naive.product(matrix, x.tolist()), dtype=torch.float64)
        torch.testing.assert_close(saved.sketch * saved.scale, kept, rtol=1e-9, atol=1e-9 * float(x.abs().max()))
        expected = torch.tensor(naive.sketched_product(matrix, x.tolist(), dy.tolist()), dtype=torch.float64)
        size = float(joint_norms(x, dy).sum())
        torch.testing.assert_close(estimator.contract(saved, dy), expected, rtol=0.0, atol=1e-9 * n * size)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_make_no_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, dy = problem(37, d=9)
    estimator = sketch(name, 0.4)
    whole = estimator.contract(estimator.compress(x, generator=torch.Generator().manual_seed(1)), dy)
    for block in (1, 40, 200):
        monkeypatch.setattr(seeded, "BLOCK", block)
        monkeypatch.setattr(srht, "BLOCK", block)
        parts = estimator.contract(estimator.compress(x, generator=torch.Generator().manual_seed(1)), dy)
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-10)


def test_the_operator_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded, "BLOCK", 1000)
    sizes = []
    original = CounterStream.signs

    def watched(self, stream, counters):
        sizes.append(counters.numel())
        return original(self, stream, counters)

    monkeypatch.setattr(CounterStream, "signs", watched)
    estimator = RademacherSketch(budget=30)
    estimator.contract(estimator.compress(torch.ones(200, 2)), torch.ones(200, 3))
    assert max(sizes) <= 1000
    assert sum(sizes) == 2 * 200 * 30


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("sketch_name", NAMES)
def test_enumeration_is_the_closed_form(sketch_name: str, name: str) -> None:
    x, dy = make_problem(name, 3, 3, 2, generator=torch.Generator().manual_seed(5))
    k = 1 if sketch_name == "gaussian_sketch" else 2
    for scores in (None, torch.tensor([2.0, 0.0, 1.0]), torch.zeros(3)):
        assert_closed_forms(sketch(sketch_name, k), x, dy, scores)


@settings(max_examples=30)
@given(products(max_rows=3), st.sampled_from(NAMES))
def test_enumeration_is_the_closed_form_on_any_problem(xy: tuple[Tensor, Tensor], name: str) -> None:
    x, dy = xy
    estimator = sketch(name, min(2, x.shape[0]) if name != "gaussian_sketch" else 1)
    assert_closed_forms(estimator, x, dy, None)


@given(products(max_rows=9), st.integers(1, 9))
def test_signs_and_places_have_one_variance_and_distinct_rows_less(xy: tuple[Tensor, Tensor], k: int) -> None:
    x, dy = xy
    k = min(k, x.shape[0])
    signs = float(sketch("rademacher_sketch", k).variance(x, dy))
    assert float(sketch("count_sketch", k).variance(x, dy)) == pytest.approx(signs, rel=1e-12)
    size = padded_size(x.shape[0])
    expected = signs * (size - k) / max(size - 1, 1)
    assert float(sketch("srht", k).variance(x, dy)) == pytest.approx(expected, rel=1e-12)
    assert float(sketch("gaussian_sketch", k).variance(x, dy)) >= signs


def test_sketches_can_beat_the_oracle_where_pairs_cancel() -> None:
    """Two equal rows with opposite gradients: G = 0, which a sum with signs sees and a sample of rows does not."""
    x = torch.ones(2, 3, dtype=torch.float64)
    dy = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert float(sketch("rademacher_sketch", 1).variance(x, dy)) == pytest.approx(0.0, abs=1e-12)
    assert float(make("crs(budget=1)").variance(x, dy, scores=joint_norms(x, dy))) == pytest.approx(12.0)


def test_the_oracle_can_beat_every_sketch() -> None:
    """Equal pairs of very unequal rows: CRS is exact, a sketch pays for ‖X‖²‖dY‖²."""
    x = torch.tensor([[1.0], [0.1]], dtype=torch.float64)
    dy = torch.tensor([[1.0], [10.0]], dtype=torch.float64)
    assert float(make("crs(budget=1)").variance(x, dy, scores=joint_norms(x, dy))) == pytest.approx(0.0, abs=1e-12)
    assert float(sketch("count_sketch", 1).variance(x, dy)) == pytest.approx(1.01 * 101 + 4 - 4)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_srht_is_exact_with_all_rows_of_a_power_of_two(n: int) -> None:
    x, dy = problem(n)
    estimator = sketch("srht", n)
    got = estimator.contract(estimator.compress(x), dy)
    torch.testing.assert_close(got, dy.T @ x, rtol=1e-9, atol=1e-9 * float(joint_norms(x, dy).sum()))
    assert float(estimator.variance(x, dy)) == 0.0


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_hadamard_is_sylvesters_matrix(n: int) -> None:
    expected = [[float((-1) ** (r & i).bit_count()) for i in range(n)] for r in range(n)]
    assert hadamard(torch.eye(n)).tolist() == expected


@given(st.lists(st.booleans(), max_size=40))
def test_flags_survive_packing(flags: list[bool]) -> None:
    packed = pack_bits(torch.tensor(flags, dtype=torch.bool))
    assert packed.numel() == (len(flags) + 7) // 8
    assert unpack_bits(packed, len(flags)).tolist() == flags


@pytest.mark.parametrize("name", NAMES)
def test_padding_brings_in_nothing(name: str) -> None:
    """Not even NaN: what stands in rows of score 0 is not looked at."""
    x, dy = problem(20)
    scores = torch.arange(20) % 2
    spoilt = (
        torch.where((scores == 0).unsqueeze(1), float("nan"), x),
        torch.where((scores == 0)[:, None], 1e30, dy),
    )
    estimator = sketch(name, 0.5)
    clean, dirty = (
        estimator.contract(estimator.compress(a, scores=scores, generator=torch.Generator().manual_seed(0)), b)
        for a, b in ((x, dy), spoilt)
    )
    assert torch.equal(clean, dirty)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_and_dtypes(name: str, dtype: torch.dtype) -> None:
    x, dy = problem(40, d=6, dtype=dtype)
    estimator = sketch(name, 0.3)
    saved = estimator.compress(x)
    assert saved.sketch.dtype == dtype
    assert estimator.contract(saved, dy).dtype == dtype
    scalars = 16 if dtype == torch.float64 else 12
    assert saved_bytes(saved) == rows_for(0.3, 40) * 6 * dtype.itemsize + scalars + 5


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_sums_do_not_overflow(name: str) -> None:
    """Sums of 5000 entries of 6·10⁴ leave fp16 by far; their product with tiny gradients does not."""
    x = torch.full((5000, 1), 6e4, dtype=torch.float16)
    dy = torch.full((5000, 1), 2e-6, dtype=torch.float16)
    estimator = sketch(name, 64)
    assert estimator.contract(estimator.compress(x), dy).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_rows(name: str, n: int) -> None:
    x, dy = problem(n)
    estimator = sketch(name, 0.3)
    assert estimator.contract(estimator.compress(x), dy).shape == (3, 4)
    assert float(estimator.variance(x, dy)) >= 0.0
    if n == 1 and name != "gaussian_sketch":
        torch.testing.assert_close(estimator.contract(estimator.compress(x), dy), dy.T @ x)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NAMES)
def test_refusals(name: str) -> None:
    with pytest.raises(InputError, match="budget=0 must be"):
        make(name, budget=0)
    saved = sketch(name, 2).compress(torch.ones(10, 2))
    with pytest.raises(InputError, match="dy must have 10 rows"):
        sketch(name, 2).contract(saved, torch.ones(9, 3))
    with pytest.raises(InputError, match="finite"):
        sketch(name, 2).compress(torch.full((3, 2), float("inf")))


@pytest.mark.parametrize("spec", ZOO)
def test_works_without_values(spec: str) -> None:
    estimator = make(spec)
    with FakeTensorMode():
        x, dy = torch.empty(50, 6), torch.empty(50, 4)
        for scores in (None, torch.empty(50)):
            assert estimator.contract(estimator.compress(x, scores=scores), dy).shape == (4, 6)


COMPILED = """
import torch
from wtacrs.estimators import make
for spec in {specs!r}:
    torch._dynamo.reset()
    estimator = make(spec)
    compiled = torch.compile(lambda x, dy: estimator.contract(estimator.compress(x), dy), fullgraph=True,
                             backend="aot_eager")
    x, dy = torch.randn(50, 6), torch.randn(50, 4)
    draws = [compiled(x, dy) for _ in range(2)]
    assert all(draw.shape == (4, 6) and draw.isfinite().all() for draw in draws), spec
    assert torch.equal(*draws) == estimator.traits.deterministic, spec
    torch.manual_seed(3)
    a = compiled(x, dy)
    torch.manual_seed(3)
    torch.testing.assert_close(a, estimator.contract(estimator.compress(x), dy), rtol=1e-4, atol=1e-3)
"""


@pytest.mark.parametrize("specs", [ZOO[3:5], pytest.param(ZOO, marks=pytest.mark.slow)], ids=["two", "all"])
def test_compiles_without_a_graph_break(specs: tuple[str, ...]) -> None:
    """In a process of its own: the signature checks of the tests are nothing to compile."""
    done = subprocess.run([sys.executable, "-c", COMPILED.format(specs=specs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.cuda
@pytest.mark.parametrize("spec", ZOO)
def test_cuda_never_waits_for_the_host(spec: str) -> None:
    assert_never_waits(make(spec))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", CHECKED)
def test_every_property_holds(spec: str) -> None:
    verdicts = check_estimator(
        make(spec), level=share("checks: sketches and projections", len(ZOO)), bias=0.5, raises=False
    )
    assert [v for v in verdicts if v.status not in ("holds", "not applicable")] == []


@dataclass(frozen=True, repr=False)
class SquaredRescale(SRHT):
    """The rescale n/k applied twice."""

    name = "squared_rescale"

    def apply(self, matrix, k, source):
        return super().apply(matrix, k, source) * (padded_size(matrix.shape[0]) / k) ** 0.5


@dataclass(frozen=True, repr=False)
class OneSign(RademacherSketch):
    """The same sign for all rows."""

    name = "one_sign"

    def apply(self, matrix, k, source):
        signs = source.signs(0, torch.arange(k, device=matrix.device)).to(matrix.dtype)
        return torch.outer(signs, matrix.sum(0)) / k**0.5


@dataclass(frozen=True, repr=False)
class PaddingInSums(RademacherSketch):
    """Forgets which rows have score 0 when dY arrives."""

    name = "padding_in_sums"

    def finish(self, saved, dy, source):
        return super().finish(saved._replace(support=torch.full_like(saved.support, 255)), dy, source)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("cls", "broken"),
    [
        (SquaredRescale, {"unbiased, by enumeration", "mean: equal rows"}),
        (OneSign, {"unbiased, by enumeration"}),
        (PaddingInSums, {"zero scores are left out"}),
    ],
)
def test_planted_defects_are_caught(cls: type[Sketch], broken: set[str]) -> None:
    found = check_estimator(cls(budget=0.3), only=sorted(broken), raises=False)
    assert {v.name for v in found if v.status == "broken"} == broken


class Overridden(RademacherSketch):
    name = "overridden"

    def compress(self, x, *, scores=None, generator=None):
        return super().compress(x, scores=scores, generator=generator)


class Wandering(RademacherSketch):
    """Asks for more numbers in some outcomes than in others."""

    name = "wandering"

    def apply(self, matrix, k, source):
        found = super().apply(matrix, k, source)
        return found if float(found.sum()) > 0 else found * source.signs(9, torch.arange(1))


def test_what_cannot_be_listed_says_why() -> None:
    x, dy = problem(3)
    assert "overrides compress" in str(can_enumerate(Overridden(budget=2)))
    with pytest.raises(InputError, match=r"1024 outcomes.*limit=1000"):
        enumerate_moments(RademacherSketch(budget=2), *problem(5), limit=1000)
    with pytest.raises(RuntimeError, match="other random numbers"):
        enumerate_moments(Wandering(budget=1), x, dy)
