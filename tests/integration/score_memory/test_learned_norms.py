"""Learned scores: the fit, variance in closed form, unbiased whatever was learned, once per pass, saved and resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn

from wtacrs.estimators import InputError, joint_norms, make, row_norms
from wtacrs.estimators.core.scores import floored_scores
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.measure.track_memory import track_memory
from wtacrs.integration.score_memory.gradient_norms import gradient_norms_of
from wtacrs.integration.score_memory.learned_norms import LearnedNorms
from wtacrs.integration.score_memory.predictor import FIT_FLOOR, RANGE, Predictor, fitted, predicted
from wtacrs.integration.score_memory.seen_rows import (
    PLACE_FEATURES,
    SeenRows,
    place_features,
    seen_rows,
    systematic_places,
)
from wtacrs.validation.enumeration.exact_moments import enumerate_moments

D, M = 12, 5


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted_rows(seed: int, n: int) -> Tensor:
    """Features of unlike sizes, with a mean far from 0, one of them constant."""
    scale = torch.logspace(-1, 1, D)
    rows = torch.randn(n, D, generator=generator(seed)) * scale + 3 * scale
    rows[:, 4] = 2.5
    return rows


PLANTED = 0.25 * torch.randn(D, generator=generator(99)) / torch.logspace(-1, 1, D)


class Planted(nn.Module):
    """A layer whose dY has rows of norm `size · exp(x_i · v)`: of zero where `weights` are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, M)
        self.direction = torch.randn(M, generator=generator(5))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return (self.layer(x) @ self.direction * weights * (x @ PLANTED - x.mean(0) @ PLANTED).exp()).sum()


def planted_model(memory: LearnedNorms | str = "learned", spec: str = "wta_crs(budget=0.3)") -> Planted:
    model = Planted()
    approximate_(model, spec, min_elements=0, scores=memory)
    return model


def trained(model: Planted, steps: int, n: int = 96, *, zeros: bool = False) -> LearnedNorms:
    """Batches whose gradients are of very different sizes; every seventh row without one that x does not tell."""
    for step in range(steps):
        weights = torch.full((n,), 10.0 ** (step % 5 - 2))
        weights[::7] *= not zeros
        model(planted_rows(step, n), weights).backward()
    memory = gradient_norms_of(model)
    assert isinstance(memory, LearnedNorms)
    memory.enter()
    return memory


def nowhere(rows: Tensor) -> Tensor:
    return torch.zeros(len(rows), PLACE_FEATURES)


def seen(rows: Tensor, places: Tensor | None = None) -> SeenRows:
    """Rows that are not in a sequence."""
    places = torch.arange(len(rows)) if places is None else places
    return SeenRows(places, torch.cat([rows, nowhere(rows)], dim=1).bfloat16())


def learned(memory: LearnedNorms, layer: str = "layer") -> Predictor:
    return Predictor(**memory.state_dict()["layers"][layer])


def test_the_fit_finds_a_planted_vector() -> None:
    found = learned(trained(planted_model(), 150))
    x = planted_rows(1000, 200)
    logs = predicted(found, x, nowhere(x), None).log()
    wanted = (x @ PLANTED).double()
    assert float(wanted.std()) > 0.5
    assert float(torch.corrcoef(torch.stack([logs, wanted]))[0, 1]) > 0.98
    assert 0.8 < float(logs.std() / wanted.std()) < 1.6  # the floor asks for more than the truth


def test_a_step_is_the_derivative_of_the_second_moment() -> None:
    """Against autograd, of log Σ w²/p by v."""
    rows = planted_rows(1, 16).bfloat16().float()
    squares = torch.rand(16, generator=generator(2), dtype=torch.float64) ** 4
    before = with_places(0.3 * torch.randn(D, generator=generator(3)))
    after = fitted(before, seen(rows), squares, 0.01)
    z = (rows - rows.mean(0)) / after.scale[:D]
    v = before.v[:D].clone().requires_grad_()
    own = torch.softmax(row_norms(rows).log() + (z @ v).double(), 0)
    moment = (row_norms(rows).square() * squares / ((1 - FIT_FLOOR) * own + FIT_FLOOR / 16)).sum()
    (slope,) = torch.autograd.grad(moment.log(), v)
    step = -0.01 * slope / z.square().sum(1).mean()
    torch.testing.assert_close(after.v[:D] - before.v[:D], step, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(after.v[D:], before.v[D:])


def test_places_in_a_sequence() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 0]]).bool()
    found = place_features(mask.shape, mask.flatten(), mask.device).reshape(2, 4, PLACE_FEATURES)
    assert found[0, :3, 0].tolist() == [1, 0, 0]
    assert found[0, :3, 1].tolist() == [0, 0, 1]
    assert found[1, 2].tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(found[0, :3, 2].exp(), torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(found[0, :3, 3].exp(), torch.tensor([3.0, 2.0, 1.0]))
    assert not place_features(torch.Size([6]), None, mask.device).any()


def test_the_last_token_is_found_by_its_place() -> None:
    """Where x does not tell it, as in a causal model."""
    found = None
    mask = torch.ones(6, 8, dtype=torch.bool)
    last = torch.zeros(6, 8, dtype=torch.bool)
    last[:, -1] = True
    for seed in range(60):
        x = torch.randn(6, 8, D, generator=generator(seed))
        sample = seen_rows(x, mask.flatten(), 24, generator(seed))
        found = fitted(found, sample, last.flatten().double()[sample.places] + 1e-4, 1.0)
    x = torch.randn(6, 8, D, generator=generator(100))
    expected = predicted(found, x.reshape(-1, D), place_features(mask.shape, None, mask.device), None)
    assert float(expected[last.flatten()].min()) > 3 * float(expected[~last.flatten()].max())


def test_what_is_predicted_is_bounded_and_finite() -> None:
    x = planted_rows(0, 9)
    x[3], x[4] = 1e30, float("nan")
    for v in ABSURD.values():
        found = predicted(with_places(v), x, nowhere(x), None)
        assert bool(found.isfinite().all())
        assert float(found.log().abs().max()) <= RANGE + 1e-9


def test_the_variance_falls_below_that_of_row_norms() -> None:
    """In closed form, on rows that were not fitted; nearly to that of the oracle."""
    model = planted_model()
    memory = trained(model, 100, zeros=True)
    x = planted_rows(2000, 300)
    dy = (x @ PLANTED - x.mean(0) @ PLANTED).exp().unsqueeze(1) * model.direction
    scores = floored_scores(row_norms(x), predicted(learned(memory), x, nowhere(x), None), None, memory.floor)
    for spec in ("crs(budget=0.3)", "wta_crs(budget=0.3)", "wta_crs(budget=0.1)"):
        estimator = make(spec)
        norms = float(estimator.variance(x, dy))
        assert float(estimator.variance(x, dy, scores=scores)) < 0.5 * norms, spec
        assert float(estimator.variance(x, dy, scores=joint_norms(x, dy))) < 0.5 * norms


def with_places(v: Tensor) -> Predictor:
    """A predictor that counts places by the mean of v."""
    width = len(v) + PLACE_FEATURES
    return Predictor(torch.cat([v, v.mean().expand(PLACE_FEATURES)]), torch.ones(width), torch.tensor(3))


ABSURD = {
    "huge": torch.full((D,), 1e30),
    "alternating": torch.tensor([1e38, -1e38] * (D // 2)),
    "infinite": torch.full((D,), float("inf")),
    "nan": torch.full((D,), float("nan")),
    "wrong": -PLANTED,
}


@pytest.mark.parametrize("name", ABSURD)
@pytest.mark.parametrize("spec", ["crs(budget=2)", "wta_crs(budget=3)"])
def test_unbiased_over_all_outcomes_whatever_was_learned(name: str, spec: str) -> None:
    model = planted_model(spec=spec)
    memory = gradient_norms_of(model)
    state = with_places(ABSURD[name])._asdict()
    memory.load_state_dict({"kind": "learned", "layers": {"layer": state}})
    x = planted_rows(3, 7)
    x[2] *= 1e15
    x[5] = 0.0
    dy = torch.randn(7, M, generator=generator(4))
    seen: list[Tensor] = []
    model.layer.register_forward_hook(lambda layer, args, _: seen.append(layer.scores_of(args[0])))
    model(x, torch.ones(7))
    (scores,) = seen
    assert bool(scores.isfinite().all())
    probabilities = scores / scores.sum()
    assert bool((probabilities >= memory.floor / 7 * (1 - 1e-9)).all())
    x, exact = x.double(), dy.double().T @ x.double()
    mean = enumerate_moments(make(spec), x, dy, scores=scores).mean
    torch.testing.assert_close(mean, exact, rtol=1e-9, atol=1e-9 * float(exact.abs().max()))


def test_rows_without_a_gradient_are_learned_to_be_small() -> None:
    """Which ones they are can be read off a feature; the rest do not differ."""
    found, small = None, torch.arange(40) % 3 == 0
    for seed in range(30):
        rows = planted_rows(seed, 40)
        rows[:, 0] = torch.where(small, 1.0, -1.0) + 0.1 * rows[:, 0]
        found = fitted(found, seen(rows), (~small).double(), 1.0)
    expected = predicted(found, rows, nowhere(rows), None)
    assert float(expected[small].max()) < 0.3 * float(expected[~small].min())


def test_what_is_missing_or_not_finite_is_left_out() -> None:
    rows = planted_rows(0, 20)
    squares = (2 * rows @ PLANTED - 2 * rows.mean(0) @ PLANTED).exp().double()
    places = torch.arange(20)
    squares[3] = 0.0
    only = fitted(None, seen(rows[:14]), squares[:14], 1.0)
    squares[14], squares[15] = float("inf"), float("nan")
    rows[16] = float("nan")
    rows[17, 3] = float("inf")
    places[18:] = -1
    mixed = fitted(None, seen(rows, places), squares, 1.0)
    for one, other in zip(only, mixed, strict=True):
        torch.testing.assert_close(one, other)
    assert float(only.v.norm()) > 0
    nothing = fitted(only, seen(rows, places), torch.zeros(20, dtype=torch.float64), 1.0)
    assert all(torch.equal(one, other) for one, other in zip(only, nothing, strict=True))


def test_batches_that_show_nothing_change_nothing() -> None:
    model = planted_model()
    before = learned(trained(model, 3))
    memory = gradient_norms_of(model)
    x = planted_rows(0, 96)
    model(x, torch.zeros(96)).backward()
    model(x, torch.full((96,), float("inf"))).backward()
    assert all(torch.equal(one, other) for one, other in zip(before, learned(memory), strict=True))
    context = model.layer.context
    with context.given(source=torch.zeros(1, 96, dtype=torch.bool)):  # all rows are called padding
        model(x, torch.zeros(96)).backward()
    assert all(torch.equal(one, other) for one, other in zip(before, learned(memory), strict=True))


def test_every_live_row_is_as_likely_to_be_seen() -> None:
    """Counted at the middles of the pieces within which no place changes: exact."""
    live = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1]).bool()
    total = int(live.sum())
    for count in (1, 3, 5, 7):
        counts = torch.zeros(len(live))
        for piece in range(total):
            places = systematic_places(live, count, torch.tensor((piece + 0.5) / total, dtype=torch.float64))
            assert places.unique().numel() == count
            counts[places] += 1
        assert counts[live].eq(count).all()
        assert not counts[~live].any()
    places = systematic_places(live, 9, torch.tensor(0.7, dtype=torch.float64))
    assert places.tolist() == [*live.nonzero().flatten().tolist(), -1, -1]
    none = seen_rows(torch.ones(4, 2), torch.zeros(4, dtype=torch.bool), 3, generator(0))
    assert none.places.tolist() == [-1, -1, -1]


def fits(model: nn.Module) -> set[int]:
    memory = gradient_norms_of(model)
    return {int(saved["fits"]) for saved in memory.state_dict()["layers"].values()}


@pytest.mark.parametrize("reentrant", [None, True, False])
def test_a_pass_is_fitted_once(reentrant: bool | None) -> None:
    """Recomputed or not, accumulated or not; two passes and one backward pass are two."""
    model = tiny_t5(dropout=0.1)
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores="learned")
    if reentrant is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    for _ in range(2):
        model(**t5_batch()).loss.backward()
    assert fits(model) == {2}
    if reentrant is not True:  # then a layer that runs again does not know for which pass
        (model(**t5_batch()).loss + model(**t5_batch()).loss).backward()
        assert fits(model) == {4}


def test_without_a_backward_pass_nothing_is_learned() -> None:
    model = tiny_bert()
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores="learned")
    model(**bert_batch())
    with torch.no_grad():
        model(**bert_batch())
    model.eval()
    model(**bert_batch()).loss.backward()
    memory = gradient_norms_of(model)
    assert memory.state_dict()["layers"] == {}
    assert memory.nbytes == 0


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**bert_batch()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_run_goes_on_bit_by_bit_from_its_state() -> None:
    """Under autocast: rows, predictors and weights."""
    states: list[Any] = []
    for stops in (False, True):
        model = tiny_bert()
        approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores="learned", seed=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, optimizer, range(3))
        memory = gradient_norms_of(model)
        if stops:
            saved = memory.state_dict()
            fresh = LearnedNorms()
            fresh.load_state_dict(saved)
            approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores=fresh)
            saved["layers"].clear()
            memory = fresh
        train(model, optimizer, range(3, 6))
        states.append((memory.state_dict()["layers"], model.state_dict()))
    (one, weights), (other, weights_resumed) = states
    assert one.keys() == other.keys()
    assert all(torch.equal(one[layer][name], other[layer][name]) for layer in one for name in one[layer])
    assert all(bool(saved["v"].isfinite().all()) for saved in one.values())
    assert all(torch.equal(weights[name], weights_resumed[name]) for name in weights)


def test_bytes_of_the_memory_and_of_the_rows() -> None:
    """Rows count once for layers that share an input, 2 bytes a number and 8 a place, in what a step is seen to keep."""
    kept = []
    for scores in ("row-norms", "learned"):
        model = tiny_bert()
        approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores=scores)
        model(**bert_batch()).loss.backward()
        memory = gradient_norms_of(model)
        if memory is not None:
            memory.enter()
        with track_memory(model) as tracked:
            model(**bert_batch()).loss.backward()
        kept.append(tracked.kept)
    layers = memory.state_dict()["layers"]
    assert not any(layer.endswith((".key", ".value")) for layer in layers)
    expected = 0
    for layer, saved in layers.items():
        rows = 3 if "pooler" in layer or "classifier" in layer else 30
        expected += rows * (2 * saved["v"].numel() + 8)  # v has those of the place too
    assert kept[1] - kept[0] == expected
    assert memory.nbytes == sum(8 * saved["v"].numel() + 8 for saved in layers.values())
    assert tracked.result.score_memory == memory.nbytes


def test_restored_nothing_is_left() -> None:
    model = tiny_bert()
    stock = {name: type(module) for name, module in model.named_modules()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores="learned")
    model(**bert_batch()).loss.backward()
    restore_(model)
    assert gradient_norms_of(model) is None
    assert {name: type(module) for name, module in model.named_modules()} == stock
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes


def test_bad_input_is_named(unchecked: None) -> None:
    memory = LearnedNorms()
    short = with_places(torch.zeros(3))._asdict()
    for make_wrong, message in (
        (lambda: LearnedNorms(2), "rows=2 must be an integer from 3"),
        (lambda: LearnedNorms(rate=0.0), "rate=0.0 must be a number above 0"),
        (lambda: LearnedNorms(rate=float("inf")), "rate=inf"),
        (lambda: LearnedNorms(floor=0.0), "floor=0.0"),
        (lambda: memory.load_state_dict({"kind": "by-token"}), "the state is of scores='by-token'"),
        (
            lambda: memory.load_state_dict({"kind": "learned", "layers": {"a": short | {"v": torch.zeros(9)}}}),
            "'a' has .* one number per feature",
        ),
    ):
        with pytest.raises(InputError, match=message):
            make_wrong()
    model = planted_model(memory)
    memory.load_state_dict({"kind": "learned", "layers": {"layer": short}})
    with pytest.raises(InputError, match="'layer' reads 12 features, and what was learned is of 3"):
        model(planted_rows(0, 96), torch.ones(96))
    assert isinstance(model.layer, ApproxLinear)
