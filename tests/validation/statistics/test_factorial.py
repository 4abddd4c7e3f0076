"""Effects and interactions: against least squares, exact levels, and planted interactions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.false_alarms import share

from wtacrs.estimators import InputError
from wtacrs.validation.statistics.factorial import cell_means, cells_of, contrasts

FACTORS = {"dW": ["exact", "sampled", "less"], "schedule": ["constant", "cosine"], "decay": ["0", "0.01", "0.1"]}
TWO = {"dW": ["exact", "sampled"], "schedule": ["constant", "cosine"]}


def drawn(factors: dict, seeds: int, generator: np.random.Generator, **shifts: float) -> dict:
    blocks = generator.normal(0.0, 3.0, seeds)
    return {
        cell: [shifts.get("_".join(cell), 0.0) + block + generator.normal(0.0, 0.1) for block in blocks]
        for cell in cells_of(factors)
    }


def test_effects_are_means_of_paired_differences() -> None:
    values = drawn(FACTORS, 4, np.random.default_rng(1))
    found = contrasts(FACTORS, values, margin=0.1)
    for one in found:
        if one.kind == "interaction":
            continue
        pairs = [
            np.mean(np.array(values[cell]) - np.array(values["exact", *cell[1:]]))
            for cell in cells_of(FACTORS)
            if cell[0] == one.treatment and (one.factor is None or cell[list(FACTORS).index(one.factor)] == one.at)
        ]
        assert one.difference == pytest.approx(np.mean(pairs), abs=1e-12)
    effects = {(o.treatment, o.factor, o.at): o.difference for o in found if o.kind == "effect"}
    for one in found:
        if one.kind == "interaction":
            first = FACTORS[one.factor][0]
            expected = effects[one.treatment, one.factor, one.at] - effects[one.treatment, one.factor, first]
            assert one.difference == pytest.approx(expected, abs=1e-12)
    assert len(found) == 2 * (1 + 2 + 3) + 2 * (1 + 2)


def test_a_contrast_of_two_cells_is_a_paired_t_test() -> None:
    values = drawn({"dW": ["exact", "sampled"]}, 6, np.random.default_rng(2), sampled=0.05)
    for pooled in (True, False):  # two cells: both variances are the same
        (one,) = contrasts({"dW": ["exact", "sampled"]}, values, margin=0.2, pooled=pooled)
        theirs = stats.ttest_rel(values["sampled",], values["exact",])
        assert one.different == pytest.approx(theirs.pvalue)
        low, high = theirs.confidence_interval(0.9)
        assert (one.low, one.high) == (pytest.approx(low), pytest.approx(high))


def test_pooled_errors_are_those_of_least_squares() -> None:
    """Cells, and seeds within a schedule, as columns of 0 and 1: the same estimate, error and degrees of freedom."""
    values = drawn(TWO, 5, np.random.default_rng(3))
    cells = cells_of(TWO)
    rows, target = [], []
    for i, cell in enumerate(cells):
        for seed in range(5):
            blocks = [float((cell[1], seed) == (at, s)) for at in TWO["schedule"] for s in range(1, 5)]
            rows.append([*(float(i == j) for j in range(4)), *blocks])
            target.append(values[cell][seed])
    x, y = np.array(rows), np.array(target)
    beta, rest, *_ = np.linalg.lstsq(x, y, rcond=None)
    freedom = len(y) - x.shape[1]
    weights = np.array([1.0, -1.0, -1.0, 1.0, *[0.0] * 8])  # interaction
    error = float(np.sqrt(rest[0] / freedom * weights @ np.linalg.inv(x.T @ x) @ weights))
    (one,) = [c for c in contrasts(TWO, values, margin=0.1) if c.kind == "interaction"]
    assert one.difference == pytest.approx(float(weights @ beta), abs=1e-10)
    assert one.error == pytest.approx(error)
    assert freedom == 2 * (2 - 1) * (5 - 1)
    assert one.high - one.difference == pytest.approx(error * stats.t.ppf(0.95, freedom))


@settings(max_examples=30)
@given(st.floats(-5.0, 5.0), st.integers(2, 6), st.integers(0, 1000))
def test_what_a_seed_does_to_one_schedule_cancels(shift: float, seeds: int, draw: int) -> None:
    values = drawn(TWO, seeds, np.random.default_rng(draw))
    moved = {
        cell: [v + shift * i * (cell[1] == "cosine") for i, v in enumerate(found)]
        for cell, found in values.items()
    }
    for before, after in zip(contrasts(TWO, values, margin=0.1), contrasts(TWO, moved, margin=0.1), strict=True):
        assert after.difference == pytest.approx(before.difference, abs=1e-9)
        assert after.error == pytest.approx(before.error, rel=1e-6, abs=1e-9)


def test_a_planted_interaction_is_seen_and_nothing_is_not() -> None:
    level = share("factorial: planted", 2)
    generator = np.random.default_rng(4)
    planted = drawn(TWO, 8, generator, sampled_cosine=-4.0)
    by_kind = {(o.kind, o.factor, o.at): o for o in contrasts(TWO, planted, margin=1.0, level=level)}
    assert by_kind["interaction", "schedule", "cosine"].verdict == "differs"
    assert by_kind["effect", "schedule", "constant"].verdict == "within the margin"
    assert by_kind["effect", "schedule", "cosine"].verdict == "differs"
    nothing = contrasts(TWO, drawn(TWO, 8, generator), margin=1e-6, level=level)
    assert {one.verdict for one in nothing} == {"undecided"}


@settings(max_examples=30)
@given(st.floats(-5.0, 5.0), st.integers(2, 6), st.integers(0, 1000))
def test_what_a_seed_does_to_all_cells_cancels(shift: float, seeds: int, draw: int) -> None:
    values = drawn(TWO, seeds, np.random.default_rng(draw))
    moved = {cell: [v + shift * i for i, v in enumerate(found)] for cell, found in values.items()}
    for before, after in zip(contrasts(TWO, values, margin=0.1), contrasts(TWO, moved, margin=0.1), strict=True):
        assert after.difference == pytest.approx(before.difference, abs=1e-9)
        assert after.error == pytest.approx(before.error, rel=1e-6, abs=1e-9)


def test_cells_and_bad_input() -> None:
    values = {cell: [1.0, 2.0] for cell in cells_of(TWO)}
    cell = cell_means(TWO, values)[0]
    assert (cell.levels, cell.mean, cell.error) == (
        {"dW": "exact", "schedule": "constant"},
        1.5,
        pytest.approx(0.5),
    )
    same = contrasts(TWO, values, margin=0.1)
    assert {one.verdict for one in same} == {"within the margin"}  # runs that do not differ leave no doubt
    with pytest.raises(InputError, match="two seeds"):
        contrasts(TWO, {cell: [1.0] for cell in values}, margin=0.1)
    with pytest.raises(InputError, match="margin"):
        contrasts(TWO, values, margin=0.0)
    with pytest.raises(InputError, match="level"):
        contrasts(TWO, values, margin=0.1, level=0.5)
