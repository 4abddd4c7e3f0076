"""Noise of codes in a whole model: by the closed form of one layer, beside sampling, and without a trace afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wtacrs.estimators import InputError
from wtacrs.estimators.rounding.element_codes import variance_of_dw_below
from wtacrs.integration.layers.lean.codes import TIMES_DERIVATIVE, grid_of
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.measure.lean_noise import lean_noise
from wtacrs.validation.layers.noise import model_noise
from wtacrs.validation.records.noise import LayerNoise

FOUR, EIGHT = LeanOptions(bits=4), LeanOptions(bits=8)


class Output:
    def __init__(self, loss: Tensor) -> None:
        self.loss = loss


class Model(nn.Module):
    """Two layers with a GELU between them and a linear loss, so that dY is known."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.act, self.two = nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Output:
        return Output(self.two(self.act(self.one(x))).sum())


@pytest.fixture(scope="module")
def batches() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(40, 6, generator=generator)} for _ in range(4)]


def closed_form(model: Model, x: Tensor, bits: int) -> float:
    with torch.no_grad():
        a = model.one(x)
        dh = model.two.weight.sum(0).expand_as(a)
    return float(
        variance_of_dw_below(x, dh, TIMES_DERIVATIVE["GELU"](torch.ones_like(a), a), grid_of("GELU", bits))
    )


@pytest.fixture(scope="module")
def rows(batches: list[dict[str, Tensor]]) -> dict[tuple[str, str], LayerNoise]:
    found = lean_noise(
        Model().train(), batches, [FOUR, EIGHT], ["crs(budget=0.5)"], draws=40, seed=3, min_elements=0
    )
    return {(row.estimator, row.layer): row for row in found}


@pytest.mark.parametrize(("text", "bits"), [("4-bit", 4), ("8-bit", 8)])
def test_codes_alone_have_the_variance_of_the_law(
    text: str, bits: int, rows: dict[tuple[str, str], LayerNoise], batches: list[dict[str, Tensor]]
) -> None:
    model = Model()
    row = rows[text, "one"]
    formula = sum(closed_form(model, batch["x"], bits) for batch in batches)
    assert sum(row.variances) == pytest.approx(formula, rel=0.4)  # 160 squares of 72 numbers each
    assert rows[text, "two"].ratio.value < 1e-12  # above the codes nothing is random


def test_both_together_are_as_noisy_as_the_noisier_one(rows: dict[tuple[str, str], LayerNoise]) -> None:
    assert {text for text, _ in rows} == {"4-bit", "8-bit"} | {
        f"crs(budget=0.5) + {lean}" for lean in ("neighbours", "4-bit", "8-bit")
    }
    sampling, both = rows["crs(budget=0.5) + neighbours", "one"], rows["crs(budget=0.5) + 4-bit", "one"]
    assert sampling.ratio.value > 10 * rows["4-bit", "one"].ratio.value > 0
    assert both.ratio.value == pytest.approx(sampling.ratio.value, rel=0.5)
    assert (sampling.budget, sampling.row_fraction, rows["4-bit", "one"].budget) == (0.5, 0.5, None)
    assert [m.layers for m in model_noise(list(rows.values()))] == [2] * 5


def test_model_and_random_numbers_are_as_before(batches: list[dict[str, Tensor]]) -> None:
    model = Model().train()
    classes, state = [type(m) for m in model.modules()], torch.random.get_rng_state()
    lean_noise(model, batches[:2], [EIGHT], ["crs(budget=0.5)"], draws=2, min_elements=0)
    assert [type(m) for m in model.modules()] == classes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"batches": []}, "at least two"),
        ({"draws": 1}, "draws=1 must be an integer ≥ 2"),
        ({"estimators": ["topk(budget=0.5)"]}, "is biased"),
        ({"estimators": []}, "at least one"),
        ({"lean": [LeanOptions()]}, "has no codes: name 8-bit or 4-bit"),
    ],
)
def test_bad_input_is_refused(changed: dict[str, object], told: str, batches: list[dict[str, Tensor]]) -> None:
    arguments = {"batches": batches, "lean": [EIGHT], "estimators": ["crs(budget=0.5)"], "draws": 2, **changed}
    with pytest.raises(InputError, match=told):
        lean_noise(Model().train(), **arguments)  # type: ignore[arg-type]
