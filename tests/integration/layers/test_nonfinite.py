"""Where stock training recovers from NaN or infinity, a converted model does: dW is not finite, and nothing is raised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import t5_batch, tiny_t5
from torch import Tensor, nn

from wtacrs.estimators import InputError, available
from wtacrs.estimators.core.sizing import sized
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.function import sampled_linear

FIELDS = {
    "control_variate": "control_variate(rows=crs, rank=2)",
    "hadamard_rotation": "hadamard_rotation(rows=wta_crs)",
    "low_rank": "low_rank(rank=2)",
    "mixed_precision_rows": "mixed_precision_rows(slots=30)",
    "prac": "prac(rank=4)",
    "quantized_rows": "quantized_rows(rows=crs)",
    "subsampled": "subsampled(of=crs)",
    "velora": "velora(groups=8)",
}
SPECS = [FIELDS.get(name, name) for name in available() if name != "exact"]
"""All estimators, where nothing else is said at a budget of 0.3."""
NAN, INF = float("nan"), float("inf")


def estimator(spec: str) -> Any:
    return sized(spec, 0.3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_a_loss_scaler_recovers_as_it_does_for_stock(spec: str, bias: bool) -> None:
    """One batch overflows half precision; afterwards scales and skipped steps are those of the stock model."""

    def trained(converted: bool) -> tuple[list[float], list[bool], list[bool]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64, bias=bias), nn.ReLU(), nn.Linear(64, 1, bias=bias))
        scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), 1e-3)
        if converted:
            assert approximate_(model, estimator(spec), min_elements=0) == ["0", "2"]
        scales, moved = [], []
        for number in range(4):
            x = torch.randn(60, 64) * (1e5 if number == 1 else 1)
            before = [p.detach().clone() for p in model.parameters()]
            with torch.autocast("cpu", dtype=torch.float16):
                loss = model(x).float().square().mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
            moved.append(any(not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)))
        return scales, moved, [bool(p.isfinite().all()) for p in model.parameters()]

    expected, found = trained(False), trained(True)
    assert found == expected
    assert expected[1] == [True, False, True, True]


def weight_grad(
    spec: str, x: Tensor, dy: Tensor, *, bias: bool = True, scores: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    weight = torch.randn(dy.shape[1], x.shape[1], dtype=x.dtype, requires_grad=True)
    b = torch.zeros(dy.shape[1], dtype=x.dtype, requires_grad=True) if bias else None
    generator = torch.Generator().manual_seed(0)
    sampled_linear(x, weight, b, estimator(spec), scores=scores, generator=generator).backward(dy)
    assert weight.grad is not None
    return weight.grad, None if b is None else b.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("spec", SPECS)
def test_one_number_of_x_makes_dw_nan(spec: str, value: float, dtype: torch.dtype) -> None:
    """In whichever row: also in one that would not be kept."""
    generator = torch.Generator().manual_seed(1)
    for row in (0, 17, 39):
        x = torch.randn(40, 16, generator=generator).to(dtype)
        x[row, 3] = value
        found, _ = weight_grad(spec, x, torch.randn(40, 5, generator=generator).to(dtype))
        assert bool(found.isnan().all())
        assert found.dtype == dtype


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("spec", SPECS)
def test_a_score_makes_dw_nan(spec: str, value: float) -> None:
    scores = torch.ones(40, dtype=torch.float64)
    scores[7] = value
    found, _ = weight_grad(spec, torch.randn(40, 16), torch.randn(40, 5), scores=scores)
    assert bool(found.isnan().all())


@pytest.mark.parametrize("row", range(0, 40, 7))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_an_overflow_of_dy_in_half_precision_is_told(spec: str, bias: bool, row: int) -> None:
    """By the bias where there is one, else by dW, whether the row was kept or not."""
    dy = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)).half()
    dy[row, 2] = INF
    found, of_bias = weight_grad(spec, torch.randn(40, 16).half(), dy, bias=bias)
    assert not bool(found.isfinite().all()) or (of_bias is not None and not bool(of_bias.isfinite().all()))


@pytest.mark.parametrize("spec", SPECS)
def test_finite_halves_are_not_taken_for_an_overflow(spec: str) -> None:
    """Sums of dY beyond the largest half: without a bias, dW is what it is at a hundredth of dY."""
    x, dy = torch.full((40, 16), 1e-3).half(), torch.full((40, 5), 6e4).half()
    found, _ = weight_grad(spec, x, dy, bias=False)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("scores", ["row-norms", "by-token", "by-position", "learned"])
def test_a_model_that_diverges_goes_on(scores: str) -> None:
    """Weights of NaN: every gradient is NaN as in the stock model, and the model is usable once they are put back."""
    model, batch = tiny_t5(), t5_batch()
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores=scores)
    good = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.encoder.block[0].layer[0].SelfAttention.q.weight[0, 0] = NAN
    for _ in range(2):
        model.zero_grad()
        model(**batch).loss.backward()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert all(bool(layer.weight.grad.isnan().all()) for layer in layers)
    model.load_state_dict(good)
    model.zero_grad()
    model(**batch).loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    context = ForwardContext.of(model)
    assert context is not None
    assert context.watch.read() == {}


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("spec", ["crs", "wta_crs", "pivotal", "topk"])
def test_the_estimator_itself_still_refuses(spec: str, value: float) -> None:
    x = torch.randn(40, 16)
    x[3, 3] = value
    with pytest.raises(InputError, match="must be finite"):
        estimator(spec).compress(x)
    with pytest.raises(InputError, match="must be finite"):
        estimator(spec).compress(torch.randn(40, 16), scores=torch.full((40,), value))


def test_negative_scores_are_a_mistake_not_an_overflow() -> None:
    with pytest.raises(InputError, match="finite and ≥ 0"):
        weight_grad("crs", torch.randn(40, 16), torch.randn(40, 5), scores=-torch.ones(40))
