"""Problem families: pure functions of shape, seed and dtype, each with the difficulty it promises."""

from __future__ import annotations

import pytest
import torch

from wtacrs.estimators import InputError, joint_norms, row_norms
from wtacrs.validation.problems import PROBLEMS, make_problem

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_family_has_its_shape_dtype_and_a_usable_product(name, dtype):
    x, dy = make_problem(name, 50, 7, 5, generator=seeded(), dtype=dtype)
    assert (x.shape, dy.shape) == ((50, 7), (50, 5))
    assert x.dtype == dy.dtype == dtype
    product = dy.T @ x
    assert bool(product.isfinite().all())
    assert bool((product != 0).any())


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_family_is_a_function_of_the_seed_and_rounds_one_problem(name):
    first = make_problem(name, 20, 4, 3, generator=seeded(1))
    again = make_problem(name, 20, 4, 3, generator=seeded(1))
    other = make_problem(name, 20, 4, 3, generator=seeded(2))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.dy, again.dy)
    assert not torch.equal(first.x, other.x)
    if name not in ("huge", "tiny"):  # their factor depends on the dtype
        single = make_problem(name, 20, 4, 3, generator=seeded(1), dtype=torch.float32)
        assert torch.equal(single.x, first.x.float())


@pytest.mark.parametrize("name", PROBLEMS)
def test_families_exist_at_the_smallest_sizes(name):
    for n in (0, 1, 2):
        x, dy = make_problem(name, n, 1, 1, generator=seeded())
        assert (x.shape, dy.shape) == ((n, 1), (n, 1))


def test_promised_difficulties():
    def norms(name: str) -> torch.Tensor:
        return joint_norms(*make_problem(name, 200, 16, 8, generator=seeded()))

    assert norms("one_dominating").max() > 50 * norms("one_dominating").median()
    assert norms("heavy_tailed").topk(40).values.sum() > 0.5 * norms("heavy_tailed").sum()
    assert norms("gaussian").topk(40).values.sum() < 0.35 * norms("gaussian").sum()
    assert int((norms("zero_rows") == 0).sum()) == 67
    signs = make_problem("ties", 200, 16, 8, generator=seeded())
    assert row_norms(signs.x).unique().numel() == row_norms(signs.dy).unique().numel() == 1
    for name, low, high in (("coherent", 0.99, 1.0), ("gaussian", 0.0, 0.3)):
        x, dy = make_problem(name, 200, 16, 8, generator=seeded())
        assert low <= float((dy.T @ x).norm() / joint_norms(x, dy).sum()) <= high
    x, _ = make_problem("low_rank_mean", 200, 16, 8, generator=seeded())
    singular = torch.linalg.svdvals(x)
    assert singular[3:].square().sum() < 0.01 * singular.square().sum()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert bool(make_problem("huge", 9, 4, 3, generator=seeded(), dtype=dtype).x.square().isinf().any())
        underflown = make_problem("tiny", 9, 4, 3, generator=seeded(), dtype=dtype)
        assert float((underflown.x.square() == 0).double().mean()) > 0.8
        assert bool(underflown.x.any())


def test_misuse_names_the_argument(unchecked):
    with pytest.raises(InputError, match="did you mean gaussian"):
        make_problem("gausian", 5, 2, 2, generator=seeded())
    with pytest.raises(InputError, match="n=-1"):
        make_problem("gaussian", -1, 2, 2, generator=seeded())
    with pytest.raises(InputError, match="int64"):
        make_problem("gaussian", 5, 2, 2, generator=seeded(), dtype=torch.int64)
