"""Budgets that are shares of live rows: how many are kept, the mean by enumeration, and what it changes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support.expected_gradients import layer_biases
from support.masked_models import MaskedModel, Shape, forward_and_backward, random_batch
from support.models import t5_batch, tiny_t5
from torch import Tensor, nn

from wtacrs.estimators import InputError, WtacrsWarning, make, saved_bytes
from wtacrs.estimators.core.sizing import rows_kept
from wtacrs.integration.context import forward_pass
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers import estimated_weight_grad
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.measure.kept_bytes import KeptBytesProbe
from wtacrs.integration.measure.memory import step_memory
from wtacrs.validation.enumeration.exact_moments import enumerate_moments

D, M = 5, 3


class Masked(nn.Module):
    """One layer, and a mask that it does not look at."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, M, bias=False).double()

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        y: Tensor = self.layer(x)
        return y


def masked(spec: str, **options: Any) -> Masked:
    torch.manual_seed(0)
    model = Masked()
    approximate_(model, spec, min_elements=0, seed=0, budget_of="live-rows", **options)
    return model


def inputs(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(1, rows, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mask_of(live: int, rows: int) -> Tensor:
    return (torch.arange(rows) < live).long().unsqueeze(0)


def seen(model: Masked, x: Tensor, mask: Tensor | None) -> tuple[Any, Tensor]:
    """The estimator and the scores that the layer samples an input by."""
    layer = model.layer
    assert isinstance(layer, EstimatedWeightGrad)
    found: list[tuple[Any, Tensor]] = []
    hook = layer.register_forward_pre_hook(
        lambda its, args: found.append((its.estimator_for(args[0]), its.scores_of(args[0])))
    )
    model(x, attention_mask=mask)
    hook.remove()
    return found[0]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("wta_crs(budget=0.3)", {20: 6, 10: 3, 7: 2, 1: 1, 0: 6}),
        ("quantized_rows(bits=4, rows=systematic(budget=0.5))", {20: 10, 9: 4}),
        ("wta_crs(budget=4)", {20: 4, 10: 4, 2: 4}),
        ("uniform(budget=0.3)", {20: 6, 10: 6}),
    ],
)
def test_so_many_rows_are_kept(spec: str, wanted: dict[int, int]) -> None:
    """A share of the live rows, one at least; all count where none is live, and for what does not go by scores."""
    for live, kept in wanted.items():
        estimator, _ = seen(masked(spec), inputs(20), mask_of(live, 20))
        assert rows_kept(estimator, 20) == kept, live


def test_rows_of_zeros_are_not_live() -> None:
    x = inputs(20)
    x[:, 4:] = 0
    estimator, _ = seen(masked("crs(budget=0.5)"), x, mask_of(10, 20))
    assert estimator == make("crs(budget=2)")
    estimator, _ = seen(masked("crs(budget=0.5)"), x, None)
    assert estimator == make("crs(budget=2)")


def test_slots_are_shares_of_live_rows_too() -> None:
    estimator, _ = seen(masked("dithered_rows(slots=1.5)"), inputs(20), mask_of(8, 20))
    assert estimator == make("dithered_rows(slots=12)")


SPECS = (
    "crs(budget=0.5)",
    "wta_crs(budget=0.5)",
    'wta_crs(budget=0.5, winners="optimal")',
    'systematic(budget=0.5, order="rows")',
)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_the_mean_is_exact_by_enumeration(spec: str, right: bool) -> None:
    """Over all outcomes, also where rows called padding carry gradient."""
    x, mask = inputs(7), mask_of(4, 7)
    estimator, scores = seen(masked(spec), x, mask)
    assert rows_kept(estimator, 7) == 2
    rows, dy = x[0], torch.randn(7, M, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if right:
        dy[4:] = 0
    moments = enumerate_moments(estimator, rows, dy, scores=scores)
    torch.testing.assert_close(moments.mean, dy.T @ rows, rtol=1e-9, atol=1e-9)


def test_every_layer_of_a_model_is_unbiased() -> None:
    """Shared inputs and checkpointing among them: what contracts is the estimator that has compressed."""
    for seed, checkpointed in enumerate((None, False, True)):
        shape = Shape(("Attention", "MLP"), "tokens", decoder=seed == 1, checkpointed=checkpointed)
        for spec in ("wta_crs(budget=0.4)", "mixed_precision_rows(slots=0.8)", "dithered_rows(slots=2.0)"):
            model, batch = MaskedModel(shape, seed), random_batch(shape, 4, 6, seed)
            approximate_(model, spec, min_elements=0, seed=0, budget_of="live-rows")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", WtacrsWarning)
                biases = layer_biases(model, lambda model=model, batch=batch: forward_and_backward(model, batch))
            assert max(biases.values()) < 1e-9, (spec, biases)
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("mask", [None, torch.ones(1, 40, dtype=torch.long)])
@pytest.mark.parametrize("spec", ["wta_crs(budget=0.3)", "dithered_rows(slots=1.0)"])
def test_without_padding_it_changes_nothing(spec: str, mask: Tensor | None) -> None:
    gradients = []
    for budget_of in ("all-rows", "live-rows"):
        torch.manual_seed(0)
        model = Masked()
        approximate_(model, spec, min_elements=0, seed=0, budget_of=budget_of)
        model(inputs(40), attention_mask=mask).square().sum().backward()
        gradients.append(model.layer.weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("spec", ["crs(budget=0.3)", "wta_crs(budget=0.3)", "conditional_poisson(budget=0.3)"])
def test_the_variance_is_that_of_the_batch_without_padding(spec: str) -> None:
    """The second moment is by at most 1/(1 − δ) above it; shares of all rows keep more, and so have less."""
    live, rows, floor = 40, 100, 0.01
    x, mask = inputs(rows), mask_of(live, rows)
    dy = torch.randn(rows, M, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    dy[live:] = 0
    of_live, scores = seen(masked(spec, mask_floor=floor), x, mask)
    padded = of_live.variance(x[0], dy, scores=scores)
    alone = make(spec).variance(x[0, :live], dy[:live])
    exact = (dy.T @ x[0]).square().sum()
    assert alone < padded + exact <= (alone + exact) / (1 - floor) * (1 + 1e-3)
    assert padded < 1.05 * alone
    of_all = make(spec)
    assert 2.0 < padded / of_all.variance(x[0], dy, scores=scores) < 12.0


def bytes_of(model: nn.Module, batch: dict[str, Tensor]) -> tuple[int, int | None]:
    probe = KeptBytesProbe(model)
    model(**batch).loss.backward()
    assert probe.found is not None
    return sum(layer.kept for layer in probe.found.layers.values()), probe.found.promised


def test_fewer_bytes_are_kept_and_promised() -> None:
    """And `step_memory` measures it."""
    found = {}
    batch = t5_batch()
    for budget_of in ("all-rows", "live-rows"):
        model = tiny_t5().train()
        approximate_(model, "wta_crs(budget=0.5)", min_elements=0, seed=0, budget_of=budget_of)
        kept, promised = bytes_of(model, batch)
        assert kept == promised
        step = step_memory(tiny_t5(), batch, estimator="wta_crs(budget=0.5)", min_elements=0, budget_of=budget_of)
        found[budget_of] = kept, step.ours
    assert found["live-rows"][0] < 0.8 * found["all-rows"][0]
    assert found["live-rows"][1] < found["all-rows"][1]


def kept_rows(model: Masked) -> list[int]:
    layer = model.layer
    assert isinstance(layer, EstimatedWeightGrad)
    found: list[int] = []
    layer.register_forward_pre_hook(
        lambda its, args: found.append(rows_kept(its.estimator_for(args[0]), args[0].shape[1]) or 0)
    )
    return found


def told(step: Any, times: int) -> Sequence[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(times):
            step()
    return [str(w.message) for w in found if "budget_of" in str(w.message)]


def test_what_a_device_holds_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if values lay on a device: nothing waits for them, all rows count, and one warning says so."""
    for room in (estimated_weight_grad, forward_pass):
        monkeypatch.setattr(room, "has_values", lambda _: False)
    model = masked("crs(budget=0.5)")
    kept = kept_rows(model)
    said = told(lambda: model(inputs(20), attention_mask=mask_of(8, 20)), 3)
    assert len(said) == 1
    assert "ForwardContext.given" in said[0]
    assert kept == [10] * 3


def test_a_mask_on_the_host_is_counted_for_rows_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimated_weight_grad, "has_values", lambda _: False)
    model = masked("crs(budget=0.5)")
    kept, context = kept_rows(model), ForwardContext.of(model)
    assert context is not None

    def step() -> None:
        with context.given(source=mask_of(8, 20)):
            model(inputs(20))

    assert told(step, 2) == []
    assert kept == [4, 4]


def test_a_layer_keeps_so_many_bytes() -> None:
    layer = ApproxLinear(D, M, estimator="crs(budget=0.5)", min_elements=0)
    assert layer.budget_of == "all-rows"
    few, many = (saved_bytes(make(f"crs(budget={k})").compress(inputs(20)[0])) for k in (4, 10))
    assert few * 10 == many * 4


def test_only_two_words_are_accepted() -> None:
    with pytest.raises(InputError, match="budget_of='live' must be one of 'all-rows', 'live-rows'"):
        approximate_(Masked(), "crs(budget=0.5)", budget_of="live")
