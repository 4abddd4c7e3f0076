"""Masks are hints: whatever they say, the mean of a whole model's gradient is the exact gradient, at every step.

Exact by closed forms (`layer_biases`) for random models, masks and estimators; by Monte Carlo for the gradient that a
user gets. Both are shown to see the biases of masks that are taken at their word.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.expected_gradients import expected_gradients, layer_biases
from support.false_alarms import share
from support.masked_models import MaskedModel, Shape, forward_and_backward, random_batch, shapes
from support.mean_gradients import gradient_projections, gradients
from torch import Tensor, nn

from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers import estimated_weight_grad
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.estimated_weight_grad import BUDGETS_OF, EstimatedWeightGrad
from wtacrs.validation.statistics.significance import mean_test_from_projections

pytestmark = pytest.mark.filterwarnings("ignore:rows that a mask calls padding")
ROUNDING = 1e-9
SPECS = (
    "crs(budget=0.4)",
    "wta_crs(budget=0.4)",
    'wta_crs(budget=0.4, winners="optimal")',
    "systematic(budget=0.4)",
    "pivotal(budget=0.4)",
    "bernoulli(budget=0.4)",
    "conditional_poisson(budget=0.4)",
    "priority(budget=0.4)",
    "sampford(budget=0.4)",
    "quantized_rows(bits=4, rows=systematic(budget=0.4))",
    "mixed_precision_rows(slots=0.8)",
    'control_variate(base="mean", rows=crs(budget=0.4))',
    "control_variate(rank=2, rows=quantized_rows(bits=4, rows=wta_crs(budget=0.4)))",
)
FOUND = (0.67, 0.34, 0.27, 0.10, 0.64)
"""Means over gradients that masks taken at their word have given: query and document, lm_labels, CLIP, router loss, label
smoothing. An opposite mask and a recurrent head had a mean of 0."""


def score_zero(scores: Tensor, mask: Tensor, kept: int | None, floor: float = 0.0) -> Tensor:
    """The law that takes a mask at its word."""
    return torch.where(mask, scores, 0.0)


@pytest.fixture
def at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimated_weight_grad, "scores_with_floor", score_zero)


def converted(model: nn.Module, spec: str, **options: object) -> ForwardContext:
    approximate_(model, spec, min_elements=0, seed=0, **options)
    context = ForwardContext.of(model)
    assert context is not None
    return context


@settings(max_examples=30)
@given(
    shape=shapes,
    spec=st.sampled_from(SPECS),
    examples=st.integers(2, 5),
    positions=st.integers(2, 6),
    seed=st.integers(0, 2**20),
    share_inputs=st.booleans(),
    floor=st.sampled_from([1e-6, 0.01, 0.5]),
    budget_of=st.sampled_from(BUDGETS_OF),
)
def test_the_mean_is_exact_whatever_the_mask_says(
    shape: Shape,
    spec: str,
    examples: int,
    positions: int,
    seed: int,
    share_inputs: bool,
    floor: float,
    budget_of: str,
) -> None:
    """Before and after the backward pass has found gradient at padding, and with another mask in every step."""
    model = MaskedModel(shape, seed)
    context = converted(model, spec, share_inputs=share_inputs, mask_floor=floor, budget_of=budget_of)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in range(3):
        batch = random_batch(shape, examples, positions, seed + step)
        biases = layer_biases(model, lambda batch=batch: forward_and_backward(model, batch))
        assert max(biases.values()) < ROUNDING, (step, context.watch.read(), biases)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def biased_share(cases: int) -> float:
    """Share of random models in which a layer is biased."""
    found = 0
    for seed in range(cases):
        shape = Shape(("MLP", "Attention", "Flattened"), "mean", decoder=seed % 2 == 1)
        model, batch = MaskedModel(shape, seed), random_batch(shape, 3, 5, seed)
        converted(model, SPECS[seed % len(SPECS)])
        biases = layer_biases(model, lambda model=model, batch=batch: forward_and_backward(model, batch))
        found += max(biases.values()) > ROUNDING
    return found / cases


def test_masks_taken_at_their_word_are_found_biased(at_its_word: None) -> None:
    """Nearly all of them: a random mask may be all ones, or fit no layer."""
    assert biased_share(26) > 0.8


def even_model(live: int, rows: int = 100) -> tuple[MaskedModel, dict[str, Tensor]]:
    """Every row bears the same part of dW, and a mask calls all but so many padding."""
    model = MaskedModel(Shape(("MLP",), "mean"), 0)
    mask = torch.zeros(rows, dtype=torch.long)
    mask[torch.randperm(rows, generator=torch.Generator().manual_seed(1))[:live]] = 1
    ids, targets = torch.full((10, rows // 10), 3), torch.ones(10, rows // 10, dtype=torch.long)
    return model, {"input_ids": ids, "targets": targets, "attention_mask": mask.reshape(ids.shape)}


@pytest.mark.parametrize("slope", FOUND)
@pytest.mark.parametrize("spec", [SPECS[0], SPECS[1]])
def test_biases_that_were_found_are_seen_and_gone(
    spec: str, slope: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mask that hides all but `slope` of the gradient: at its word the mean is `slope` of it, as a hint all of it."""
    model, batch = even_model(round(100 * slope))
    context = converted(model, spec)
    layer = "encoder.blocks.0.wide"

    def mean() -> float:
        return expected_gradients(model, lambda: forward_and_backward(model, batch))[layer].slope

    assert mean() == pytest.approx(1.0, abs=ROUNDING)
    context.watch.load_state_dict({})
    with monkeypatch.context() as patch:
        patch.setattr(estimated_weight_grad, "scores_with_floor", score_zero)
        assert mean() == pytest.approx(slope, abs=ROUNDING)
    assert mean() == pytest.approx(1.0, abs=ROUNDING)  # and the backward pass has told


def test_opposite_masks_leave_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was 0 exactly: the loss reads the first row, and the mask calls real rows padding."""
    shape = Shape(("MLP",), "first")
    batch = random_batch(shape, 4, 5, 0)
    batch["attention_mask"] = torch.tensor([[0, 0, 0, 1, 1]] * 4)
    batch.pop("labels", None)
    for law, expected in ((score_zero, 0.0), (estimated_weight_grad.scores_with_floor, 1.0)):
        model = MaskedModel(shape, 0)
        converted(model, "crs(budget=0.5)")
        monkeypatch.setattr(estimated_weight_grad, "scores_with_floor", law)
        found = expected_gradients(model, lambda model=model: forward_and_backward(model, batch))
        assert found["encoder.blocks.0.wide"].slope == pytest.approx(expected, abs=ROUNDING)
        assert model.encoder.blocks[0].wide.weight.grad.isfinite().all()


def test_the_watch_stops_wrong_masks_and_right_ones_alone_stay() -> None:
    shape = Shape(("MLP", "Flattened"), "mean")
    model, batch = MaskedModel(shape, 0), random_batch(shape, 4, 6, 5)
    batch["attention_mask"][:, 3:] = 0
    context = converted(model, "crs(budget=0.5)", share_inputs=False)
    forward_and_backward(model, batch)
    rows = {name for name, m in model.named_modules() if isinstance(m, EstimatedWeightGrad) and name != "out"}
    assert set(context.watch.read()) == rows  # `out` reads one row an example
    right = MaskedModel(Shape(("MLP", "Flattened"), "first"), 0)
    batch["attention_mask"][:, 0] = 1
    context = converted(right, "crs(budget=0.5)", share_inputs=False)
    forward_and_backward(right, batch)
    assert context.watch.read() == {}


DRAWS, COPIES, FLOOR = 120, 24, 0.3
"""A floor of 1 % gives masked rows weights of hundreds, too heavy a tail for so few draws; this one leaves none."""


def whole_gradient(spec: str, draws: int, level: float) -> tuple[float, bool]:
    """Monte Carlo test of E dW = dW on the gradients that a user gets, every layer on five directions.

    The watch is off: the mask, random and unrelated to the loss, is in use in every draw.
    """
    shape = Shape(("Attention", "MLP"), "tokens")
    model, batch = MaskedModel(shape, 3), random_batch(shape, 3 * COPIES, 6, 4)
    batch["attention_mask"] = torch.randint(2, (3 * COPIES, 6), generator=torch.Generator().manual_seed(9))
    batch.pop("labels", None)
    exact = gradients(model, batch)
    exact = {name: g for name, g in exact.items() if name.endswith("weight") and g.norm() > 1e-7}
    converted(model, spec, mask_floor=FLOOR, masked_gradient="ignore")
    samples = gradient_projections(model, exact, batch, draws)
    test = mean_test_from_projections(samples, level, rounding=1e-9)
    return test.effect, test.rejected


LEVEL = share("masks: mean gradient", tests=2)


@pytest.mark.parametrize("spec", ["crs(budget=0.4)", "wta_crs(budget=0.4)"])
def test_the_gradient_that_a_user_gets_is_right_on_average(spec: str) -> None:
    effect, rejected = whole_gradient(spec, DRAWS, LEVEL)
    assert not rejected, effect


def test_the_same_test_rejects_masks_taken_at_their_word(at_its_word: None) -> None:
    effect, rejected = whole_gradient("crs(budget=0.4)", DRAWS, LEVEL)
    assert rejected
    assert abs(effect) > 0.2
