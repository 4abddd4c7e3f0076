"""The mean of a model's gradient in closed form: it agrees with the draws' scores, and shows biases that are planted."""

from __future__ import annotations

import pytest
import torch
from support.expected_gradients import expected_gradients
from support.masked_models import MaskedModel, Shape, forward_and_backward, random_batch
from torch import Tensor

from wtacrs.estimators import InputError, make
from wtacrs.integration.layers import estimated_weight_grad
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.measure.mask_effect import mask_effect
from wtacrs.integration.measure.mean_gradient import MeanOf

SHAPE = Shape(("Attention", "MLP", "Flattened"), "mean")


def case(seed: int = 0) -> tuple[MaskedModel, dict[str, Tensor]]:
    batch = random_batch(SHAPE, 4, 6, seed)
    batch["attention_mask"] = torch.randint(2, (4, 6), generator=torch.Generator().manual_seed(seed))
    batch.pop("labels", None)
    return MaskedModel(SHAPE, seed), batch


@pytest.mark.parametrize(
    "spec", ["crs(budget=0.3)", "topk(budget=0.3)", "control_variate(rank=1, rows=crs(budget=0.3))"]
)
def test_the_mean_in_place_is_the_mean_of_the_draws(spec: str) -> None:
    """top-k is biased: its mean is not the exact gradient, and both ways to find it agree."""
    model, batch = case()
    approximate_(model, spec, min_elements=0)
    expected = expected_gradients(model, lambda: forward_and_backward(model, batch))
    model, batch = case()
    approximate_(model, MeanOf(make(spec)), min_elements=0)
    forward_and_backward(model, batch)
    assert len(expected) == 9
    for name, entry in expected.items():
        torch.testing.assert_close(model.get_submodule(name).weight.grad, entry.mean, rtol=1e-9, atol=1e-14)


def test_traits_and_rows_kept_are_those_of_the_estimator() -> None:
    crs = make("crs(budget=0.3)")
    assert MeanOf(crs).traits == crs.traits
    assert MeanOf(crs) == MeanOf(make("crs(budget=0.3)"))
    x, dy = torch.randn(7, 3).bfloat16(), torch.randn(7, 2).bfloat16()
    assert MeanOf(crs).contract(MeanOf(crs).compress(x), dy).dtype == torch.bfloat16


def test_wrong_masks_do_no_harm_and_are_not_kept() -> None:
    model, batch = case()
    effect = mask_effect(model, batch, make("wta_crs(budget=0.3)"))
    assert (effect.layers, effect.masked, effect.kept) == (9, 8, 0)  # the head reads a row an example
    assert max(effect.bias, effect.bias_after) < 1e-12
    assert effect.share > 0.3
    assert effect.score_zero_layer < 0.6 < effect.score_zero < 0.95


def test_a_biased_law_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows called padding have a score of 0: biased until the backward pass has told."""
    monkeypatch.setattr(
        estimated_weight_grad,
        "scores_with_floor",
        lambda scores, mask, kept, floor: torch.where(mask, scores, 0.0),
    )
    model, batch = case()
    effect = mask_effect(model, batch, make("crs(budget=0.3)"))
    assert effect.bias > 0.1
    assert effect.bias_after < 1e-12
    # along the gradient the mean is what the effect says of this law
    model, batch = case()
    approximate_(model, "crs(budget=0.3)", min_elements=0, share_inputs=False)
    expected = expected_gradients(model, lambda: forward_and_backward(model, batch))
    along = sum(float((e.mean * e.exact).sum()) for e in expected.values())
    assert effect.score_zero == pytest.approx(
        along / sum(float(e.exact.square().sum()) for e in expected.values())
    )


def test_a_mask_by_hand_and_what_cannot_be_measured() -> None:
    model, batch = case()
    batch["attention_mask"] = torch.ones(4, 6)
    by_hand = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    effect = mask_effect(model, batch, make("crs(budget=0.3)"), source=by_hand)
    assert effect.masked == 8
    assert effect.bias < 1e-12
    model, batch = case()
    with torch.no_grad():
        model.out.bias.fill_(torch.nan)
    with pytest.raises(InputError, match="its loss is nan"):
        mask_effect(model, batch, make("crs(budget=0.3)"))
