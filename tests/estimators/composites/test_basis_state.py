"""A basis kept by the caller: when it is refreshed, from what, that it can be saved, and that it costs no bias."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from wtacrs.estimators import BasisState, ControlVariate, InputError, joint_norms, make
from wtacrs.validation.enumeration.exact_moments import enumerate_moments

EXACT = ControlVariate(rows=make("exact"), rank=2)


def drifting(steps: int, n: int = 60, d: int = 12) -> list[Tensor]:
    """Inputs of one layer: two strong directions that turn slowly, and noise."""
    generator = torch.Generator().manual_seed(7)
    plane = torch.randn(2, d, generator=generator, dtype=torch.float64)
    turn = 0.03 * torch.randn(2, d, generator=generator, dtype=torch.float64)
    loadings = [torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(steps)]
    noise = [0.1 * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(steps)]
    return [a @ (plane + t * turn) + e for t, (a, e) in enumerate(zip(loadings, noise, strict=True))]


def left_over(x: Tensor, basis: Tensor) -> float:
    centred = x - x.mean(0)
    return float((centred - centred @ basis @ basis.T).square().sum())


@pytest.mark.parametrize("every", [1, 3])
def test_the_basis_is_found_anew_at_every_kth_call(every: int) -> None:
    state = BasisState(every)
    found = [state.basis(EXACT, x) for x in drifting(8)]
    assert state.calls == 8
    for call in range(1, 8):
        assert (found[call] is found[call - 1]) == (call % every != 0)


def test_a_refresh_is_an_iteration_from_the_old_basis() -> None:
    inputs = drifting(2)
    state = BasisState(every=1)
    old = state.basis(EXACT, inputs[0])
    assert torch.equal(old, EXACT.make_basis(inputs[0]))
    new = state.basis(EXACT, inputs[1])
    centred = inputs[1] - inputs[1].mean(0)
    expected = torch.linalg.qr(centred.T @ (centred @ old))[0]
    torch.testing.assert_close(new @ new.T, expected @ expected.T, rtol=1e-9, atol=1e-9)


def test_one_iteration_from_the_old_basis_finds_the_best_there_is() -> None:
    state = BasisState(every=5)
    for x in drifting(21):
        basis = state.basis(EXACT, x)
    best = torch.linalg.svdvals(x - x.mean(0))[2:].square().sum()
    assert left_over(x, basis) < 1.01 * float(best)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", ["crs(budget=2)", "systematic(budget=2)", "wta_crs(budget=3)"])
@pytest.mark.parametrize("base", ["lowrank", "mean+lowrank"])
def test_unbiased_with_a_stale_basis_by_enumeration(spec: str, base: str) -> None:
    """Base and rest add up: the mean over all draws is the product, and the variance the stated one."""
    generator = torch.Generator().manual_seed(8)
    old, x = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    dy = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    estimator = ControlVariate(rows=make(spec), base=base, rank=2)
    stale = estimator.make_basis(old)
    _, rest, scores = estimator._split(x, None, stale)
    found = enumerate_moments(estimator.rows, rest, dy, scores=scores)
    whole = dy.T @ (x - rest) + found.mean
    torch.testing.assert_close(whole, dy.T @ x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(estimator.expectation(x, dy, basis=stale), dy.T @ x, rtol=1e-10, atol=1e-10)
    if "systematic" not in spec:  # in random order it has no closed form
        assert found.variance == pytest.approx(float(estimator.variance(x, dy, basis=stale)), rel=1e-9)
        assert found.variance != pytest.approx(float(estimator.variance(x, dy)), rel=1e-3)


def test_base_and_rest_add_up_with_any_columns() -> None:
    """Neither orthonormal nor of the rank that the estimator would have chosen."""
    x, dy = drifting(1)[0], torch.randn(60, 3, dtype=torch.float64)
    skew = torch.arange(36, dtype=torch.float64).reshape(12, 3) / 10
    scores = joint_norms(x, dy) * (torch.arange(60) < 50)
    saved = EXACT.compress(x, scores=scores, basis=skew)
    estimate = EXACT.contract(saved, dy)
    kept = dy * (torch.arange(60) < 50)[:, None]
    torch.testing.assert_close(estimate, kept.T @ x, rtol=0.0, atol=1e-10 * float(scores.sum()))


def test_a_resumed_state_goes_on_as_if_never_interrupted(tmp_path: Path) -> None:
    inputs = drifting(7)
    whole = BasisState(every=3)
    expected = [whole.basis(EXACT, x) for x in inputs]
    first = BasisState(every=3)
    for x in inputs[:4]:
        first.basis(EXACT, x)
    torch.save(first.state_dict(), tmp_path / "basis.pt")
    resumed = BasisState(every=3)
    resumed.load_state_dict(torch.load(tmp_path / "basis.pt", weights_only=True))
    for x, basis in zip(inputs[4:], expected[4:], strict=True):
        assert torch.equal(resumed.basis(EXACT, x), basis)
    fresh = BasisState(every=3)
    fresh.load_state_dict(BasisState(every=3).state_dict())
    assert fresh.vectors is None


def test_a_state_holds_no_graph_and_follows_the_rank() -> None:
    state = BasisState(every=1)
    few = torch.randn(1, 12, requires_grad=True)
    assert state.basis(EXACT, few).shape == (12, 1)
    found = state.basis(EXACT, torch.randn(60, 12, requires_grad=True))
    assert found.shape == (12, 2)
    assert not found.requires_grad


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("every", [0, -1, 2.0, True])
def test_an_unusable_schedule_is_refused(every: object) -> None:
    with pytest.raises(InputError, match=f"every={every}"):
        BasisState(every)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"calls": 3},
        {"calls": -1, "vectors": None},
        {"calls": 3, "vectors": [1.0]},
        {"calls": True, "vectors": None},
    ],
)
def test_what_is_no_state_is_refused(state: object) -> None:
    with pytest.raises(InputError, match="state must be a dict"):
        BasisState(every=3).load_state_dict(state)  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_a_basis_that_does_not_fit_is_refused() -> None:
    state = BasisState(every=10)
    state.basis(EXACT, torch.randn(20, 12))
    other = torch.randn(20, 5)
    with pytest.raises(InputError, match=r"basis must have 5 rows.*\[12, 2\]"):
        state.basis(EXACT, other)
    assert state.calls == 1
    with pytest.raises(InputError, match="basis must have 5 rows"):
        EXACT.compress(other, basis=state.vectors)
    alone = ControlVariate(rows=make("exact"), base="mean")
    for call in (lambda: alone.make_basis(other), lambda: alone.compress(other, basis=torch.eye(5))):
        with pytest.raises(InputError, match="needs a low-rank base"):
            call()
