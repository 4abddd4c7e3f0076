"""E dW = dW in every layer whatever a mask says: in closed form, so exactly, at the scores that the layers used.

Each situation is seen twice: in its first step, where the mask is in use, and in its second, where the backward pass has
told that it misleads. Without the floor the first would have the bias that is stated with the situation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.expected_gradients import expected_gradients, layer_biases
from support.misleading_masks import SITUATIONS, Situation, clip_shape, inverted
from support.models import t5_batch, tiny_t5
from torch import Tensor, nn

from wtacrs.estimators import WtacrsWarning, row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers import estimated_weight_grad
from wtacrs.integration.layers.conv1d import ApproxConv1D
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad

Build = Callable[[], Situation]
SPECS = ("crs(budget=0.5)", 'wta_crs(budget=0.2, winners="optimal")', "pivotal(budget=0.3)")
EXACT = 1e-9

every_situation = pytest.mark.parametrize("build", SITUATIONS, ids=lambda build: build.__name__)


def step_of(situation: Situation) -> Callable[[], None]:
    def step() -> None:
        situation.model.zero_grad()
        situation.loss().backward()

    return step


def context_of(model: nn.Module) -> ForwardContext:
    context = ForwardContext.of(model)
    assert context is not None
    return context


def untied(model: nn.Module, layer: str) -> bool:
    """Whether nothing but the layer uses its weight."""
    weight = model.get_parameter(f"{layer}.weight")
    return sum(p is weight for _, p in model.named_parameters(remove_duplicate=False)) == 1


@every_situation
@pytest.mark.parametrize("spec", SPECS)
def test_the_mean_is_exact_before_and_after_the_mask_is_found_wrong(build: Build, spec: str) -> None:
    situation = build()
    model, step = situation.model, step_of(situation)
    step()
    stock = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    approximate_(model, spec, min_elements=0)
    context = context_of(model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        first = expected_gradients(model, step)
        found = context.watch.read()
        second = expected_gradients(model, step)
    assert bool(found) == (situation.slope < 1.0), found
    assert [type(w.message) for w in told if "mask calls padding" in str(w.message)] == [WtacrsWarning] * bool(
        found
    )
    for expected in (first, second):
        assert situation.layer in expected
        for layer, gradient in expected.items():
            assert gradient.bias <= EXACT, (layer, gradient.bias)
            if untied(model, layer):
                transposed = isinstance(model.get_submodule(layer), ApproxConv1D)
                exact = gradient.exact.t() if transposed else gradient.exact
                torch.testing.assert_close(exact, stock[f"{layer}.weight"], rtol=1e-8, atol=1e-10, msg=layer)


@every_situation
def test_without_the_floor_the_bias_is_what_users_reported(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power of the test above; a step later, without the mask, the bias would be gone."""
    situation = build()
    model, step = situation.model, step_of(situation)
    monkeypatch.setattr(
        estimated_weight_grad,
        "scores_with_floor",
        lambda scores, mask, kept, share: torch.where(mask, scores, 0.0),
    )
    approximate_(model, SPECS[0], min_elements=0)
    first = expected_gradients(model, step)
    if situation.slope == 1.0:
        assert first[situation.layer].bias <= EXACT
        return
    assert first[situation.layer].slope <= situation.slope
    assert first[situation.layer].bias > 0.1
    with pytest.warns(UserWarning, match="mask calls padding"):
        assert max(layer_biases(model, step).values()) <= EXACT


@every_situation
def test_layers_that_masks_mislead_go_back_to_row_norms(build: Build) -> None:
    """Those alone: the others keep the mask, and spend next to nothing on padding."""
    situation = build()
    model, step = situation.model, step_of(situation)
    approximate_(model, SPECS[0], min_elements=0, share_inputs=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step()
        misled = set(context_of(model).watch.read())
        seen: dict[str, list[bool]] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, EstimatedWeightGrad):
                layer.register_forward_pre_hook(
                    lambda layer, args, name=name: seen.setdefault(name, []).append(by_row_norms(layer, args[0]))
                )
        step()
    assert misled <= set(seen)
    assert (situation.layer in misled) == (situation.slope < 1.0)
    assert all(all(seen[name]) for name in misled)


def by_row_norms(layer: Any, x: Tensor) -> bool:
    scores = layer.scores_of(x)
    return torch.equal(scores, row_norms(x.reshape(-1, x.shape[-1])))


def test_a_mask_whose_shape_does_not_fit_is_not_used() -> None:
    """One token more than the image has rows."""
    situation = clip_shape(tokens=18)
    approximate_(situation.model, SPECS[0], min_elements=0)
    step = step_of(situation)
    assert max(layer_biases(situation.model, step).values()) <= EXACT
    assert context_of(situation.model).watch.read() == {}


def test_a_wrong_mask_that_nobody_looks_for_stays_in_use_and_unbiased() -> None:
    situation = inverted()
    model, step = situation.model, step_of(situation)
    approximate_(model, SPECS[0], min_elements=0, masked_gradient="ignore")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="rows that a mask calls padding")
        for _ in range(3):
            assert max(layer_biases(model, step).values()) <= EXACT
    assert context_of(model).watch.read() == {}
    layer = model.get_submodule(situation.layer)
    layer.register_forward_pre_hook(lambda layer, args: seen.append(by_row_norms(layer, args[0])))
    seen: list[bool] = []
    step()
    assert seen == [False]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["row-norms", "last-seen", "by-token", "by-position"])
def test_remembered_scores_are_unbiased_under_an_opposite_mask(spec: str, kind: str) -> None:
    """Rows called padding are remembered by nobody, and within reach."""
    model = tiny_t5().double()
    batch = t5_batch() | ({"example_ids": torch.arange(3)} if kind == "last-seen" else {})
    approximate_(model, spec, min_elements=0, scores=kind, masked_gradient="ignore")
    source, target = batch["attention_mask"] == 0, batch["labels"] == -100

    def step() -> None:
        model.zero_grad()
        with context_of(model).given(source=source, target=target):
            loss = model(**batch).loss
        loss.backward()

    for _ in range(2):
        assert max(layer_biases(model, step).values()) <= EXACT


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_layers_are_unbiased_too(reentrant: bool) -> None:
    model = tiny_t5().double()
    batch = t5_batch() | {"attention_mask": 1 - t5_batch()["attention_mask"]}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    approximate_(model, SPECS[0], min_elements=0, masked_gradient="ignore")

    def step() -> None:
        model.zero_grad()
        model(**batch).loss.backward()

    found = expected_gradients(model, step)
    assert len(found) == 33
    assert max(gradient.bias for gradient in found.values()) <= EXACT
