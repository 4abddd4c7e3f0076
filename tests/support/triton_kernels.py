"""Triton kernels against plain ones, as a script, since the interpreter is chosen before the first import.

TRITON_INTERPRET=1 python tests/support/triton_kernels.py
"""

from __future__ import annotations

import torch

from wtacrs.estimators import make
from wtacrs.estimators.composites.residual_rows import Residuals, encode_rows
from wtacrs.estimators.core.dither import Dither
from wtacrs.estimators.core.row_design import RowPlan
from wtacrs.estimators.kernels import coded_product, plain, triton_kernels, triton_rows
from wtacrs.estimators.kernels.coded_product import CodedRows, Known, float_product, mixed_product
from wtacrs.estimators.kernels.grid import grid_of, rotation_of
from wtacrs.estimators.rows.row_estimator import weighted_product
from wtacrs.estimators.rows.systematic import Systematic

ROWS, COLUMNS_OF_DY = 41, 70


def drawn(size: int, generator: torch.Generator) -> torch.Tensor:
    """Numbers of a dither."""
    return torch.randint(2**23, (size,), generator=generator) / 2**23


def same_bits(d: int, bits: int, chosen: bool, dtype: torch.dtype) -> None:
    """Of whole numbers, whose rotation is exact: codes, rows in fp32 and bf16, products."""
    generator = torch.Generator().manual_seed(d + bits)
    grid = grid_of(d)
    # of a last, shorter block the factor is no power of two: there the columns are zeros
    x = torch.randint(-9, 10, (ROWS + 5, d), generator=generator).to(dtype)
    x[:, d // 16 * 16 :] = 0.0
    x[3], x[7, :64] = 0.0, 0.0
    live = torch.ones(ROWS + 5, dtype=torch.bool)
    live[11], x[11] = False, torch.nan
    mean = torch.ones(d, dtype=dtype)
    mean[d // 16 * 16 :] = 0.0
    rows = torch.arange(ROWS) + 5 if chosen else None
    count = ROWS if chosen else ROWS + 5
    weights = 1.0 + torch.rand(count, generator=generator) if chosen else None
    dither = Dither(drawn(count, generator), drawn(grid.padded, generator))
    found = []
    for kernels in (plain.KERNELS, triton_kernels.KERNELS):
        codes = plain.Codes(
            torch.zeros((count, grid.padded * bits // 8), dtype=torch.uint8),
            torch.zeros((count, grid.groups), dtype=torch.uint8),
            torch.zeros(count, dtype=torch.bfloat16),
        )
        encode_rows(Residuals(x, mean, live), rows, weights, dither, bits, codes, kernels)
        found.append(codes)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True)), (d, bits)
    assert found[0].codes.unique().numel() > 10
    dy = torch.randn(count, COLUMNS_OF_DY, generator=generator)
    of_rows, of_dy = (Dither(drawn(count, generator), drawn(c, generator)) for c in (grid.padded, COLUMNS_OF_DY))
    rotation = rotation_of(d, x.new_empty(0, dtype=torch.float32)).back
    known = Known(torch.randn(1, COLUMNS_OF_DY, generator=generator), torch.ones(1, grid.padded))
    products = []
    for kernels in (plain.KERNELS, triton_kernels.KERNELS):
        coded = CodedRows(found[0], dither, torch.arange(count), grid, bits, kernels)
        products.append(
            (
                float_product(coded, dy, torch.float32, rotation, known),
                mixed_product(coded, dy, of_rows, of_dy, rotation, known),
            )
        )
    (whole, mixed), (expected, expected_mixed) = products
    assert torch.equal(mixed, expected_mixed), (d, bits)
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-3)  # rotated before the product, or after it
    assert float(products[0][0].norm()) > 1.0
    # in bf16 within one step: the interpreter truncates, where a device rounds to nearest
    whole, half = (torch.empty((count, grid.padded), dtype=t) for t in (torch.float32, torch.bfloat16))
    for out in (whole, half):
        triton_kernels.decode_rows(found[0], dither, grid, bits, out)
    assert bool(((half.float() - whole).abs() <= 2**-7 * whole.abs()).all())


def norms() -> None:
    """Of rows of any size, near the limits of fp32 too; masked rows may hold anything."""
    generator = torch.Generator().manual_seed(2)
    for d, dtype in ((300, torch.float32), (64, torch.bfloat16)):
        x = torch.randn(21, d, generator=generator) * torch.logspace(-30, 30, 21)[:, None]
        x, mean, live = x.to(dtype), torch.randn(d, generator=generator).to(dtype), torch.arange(21) != 4
        x[4] = torch.nan
        found = triton_kernels.row_norms(x, mean, live)
        for ours, rows in zip(found, (x.float() - mean.float(), x), strict=True):
            expected = torch.where(live, rows.double().norm(dim=1), 0.0)
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0.0)


def estimator() -> None:
    """On numbers of any kind few codes differ, by one level, and the estimates agree."""
    generator = torch.Generator().manual_seed(0)
    x, dy = torch.randn(60, 150, generator=generator) + 1.0, torch.randn(60, 20, generator=generator)
    for spec in ('dithered_rows(slots=1.3, product="int8")', 'dithered_rows(slots=0.5, product="float")'):
        ours, theirs = make(spec, kernels="triton"), make(spec)
        saved, expected = (e.compress(x, generator=torch.Generator().manual_seed(1)) for e in (ours, theirs))
        differing = float((saved.codes != expected.codes).double().mean())
        assert differing <= 2e-3, differing
        torch.testing.assert_close(ours.contract(saved, dy), theirs.contract(saved, dy), rtol=1e-4, atol=1e-3)
    # layers without a group of 64 columns, and double precision, have plain kernels
    for given in (x[:, :20], x.double()):
        pair = [
            make(spec, kernels=k).compress(given, generator=torch.Generator().manual_seed(1))
            for k in ("triton", "plain")
        ]
        assert all(torch.equal(*tensors) for tensors in zip(*pair, strict=True))


def row_draws() -> None:
    """The rows and weights of the plain design, in both orders, with rows that are certain, of score 0, or too few."""
    generator = torch.Generator().manual_seed(3)
    skewed = torch.rand(200, generator=generator, dtype=torch.float64) ** 6
    few = torch.where(torch.arange(50) % 10 == 3, 1.0 + torch.arange(50), 0.0).double()
    for scores in (skewed, torch.ones(37).double(), few, torch.zeros(9).double(), skewed.roll(1) + 1e-9):
        for order in ("random", "rows"):
            for k in (1, 8, len(scores) // 2):
                plain_design = Systematic(budget=k, order=order)
                for _ in range(6):
                    drawn = torch.rand(
                        plain_design.uniforms(len(scores)), generator=generator, dtype=torch.float64
                    )
                    expected = plain_design.plan(scores, drawn)
                    found = Systematic(budget=k, order=order, kernels="triton").plan(scores, drawn)
                    ours, theirs = (coefficients(plan, len(scores)) for plan in (found, expected))
                    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0.0)
                    assert found.indices.shape == found.weights.shape == (k,)


def coefficients(plan: RowPlan, n: int) -> torch.Tensor:
    """The weight of every row."""
    return torch.zeros(n, dtype=torch.float64).index_add(0, plan.indices, plan.weights)


def gathered_products() -> None:
    """Of shapes that are no multiples of a tile."""
    generator = torch.Generator().manual_seed(4)
    for (k, n, d, m), dtype, tolerance in (
        ((41, 90, 70, 130), torch.float32, 1e-5),
        ((70, 99, 33, 5), torch.bfloat16, 2e-2),
    ):
        rows, dy = (torch.randn(size, generator=generator).to(dtype) for size in ((k, d), (n, m)))
        indices = torch.randperm(n, generator=generator)[:k].to(torch.int32)
        weights = 1.0 + torch.rand(k, generator=generator)
        found = triton_rows.gathered_product(rows, indices, weights, dy)
        expected = weighted_product(rows.double(), indices, weights.double(), dy.double())
        assert found.dtype == dtype
        assert float((found - expected).norm() / expected.norm()) < tolerance
    x, dy = torch.randn(60, 20, generator=generator), torch.randn(60, 9, generator=generator)
    ours, theirs = (make("systematic(budget=0.3)", kernels=name) for name in ("triton", "plain"))
    pair = [e.contract(e.compress(x, generator=torch.Generator().manual_seed(1)), dy) for e in (ours, theirs)]
    torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert triton_kernels.INTERPRETED
    coded_product.HEAVY = 4
    for d, bits, chosen, dtype in (
        (128, 2, True, torch.float32),
        (150, 4, False, torch.float32),
        (64, 8, True, torch.bfloat16),
    ):
        same_bits(d, bits, chosen, dtype)
    norms()
    estimator()
    row_draws()
    gathered_products()
