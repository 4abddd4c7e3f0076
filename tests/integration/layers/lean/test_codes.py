"""Activations and gated products with codes: gradients on average, what is kept, and whose random numbers are drawn."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from support.decoders import gpt2, llama
from support.false_alarms import share
from support.lean_gradients import Kept
from support.mean_gradients import gradient_projections, gradients, repeated
from support.models import bert_batch, tiny_bert
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from wtacrs.estimators.rounding import element_codes
from wtacrs.estimators.rounding.derivative_bounds import DERIVATIVE_BOUNDS
from wtacrs.estimators.rounding.element_codes import code_bytes, variance_of_dx
from wtacrs.integration import approximate_, lean_, restore_
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.sampling_state import load_sampling_state, sampling_state
from wtacrs.integration.layers.lean.activation import ACTIVATIONS
from wtacrs.integration.layers.lean.codes import TIMES_DERIVATIVE, grid_of
from wtacrs.validation.statistics.significance import ProjectionTest, mean_test_from_projections

BITS = pytest.mark.parametrize("bits", [8, 4])
ESTIMATOR = "wta_crs(budget=0.5)"


class Gated(nn.Module):
    """A gated feed-forward part."""

    def __init__(self, d: int = 16, width: int = 64) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(d, width), nn.Linear(d, width), nn.Linear(width, d)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.one(x)) * self.two(x))


def plain(d: int = 16, width: int = 64) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, width), nn.GELU(), nn.Dropout(0.25), nn.Linear(width, d)).train()


def kept(model: nn.Module, x: Tensor) -> int:
    return Kept(model, lambda: model(x).sum(), [x]).total


def test_every_activation_that_keeps_its_input_has_its_derivative(generator: torch.Generator) -> None:
    assert TIMES_DERIVATIVE.keys() == {name for name, known in ACTIVATIONS.items() if known.keeps_input}
    x = torch.randn(300, generator=generator, dtype=torch.float64) * 3
    dy = torch.randn(300, generator=generator, dtype=torch.float64)
    for name, times in TIMES_DERIVATIVE.items():
        slope = torch.func.vmap(torch.func.grad(ACTIVATIONS[name].value))(x)
        assert torch.allclose(times(dy, x), dy * slope, rtol=1e-9, atol=1e-12), name
        if name in DERIVATIVE_BOUNDS:
            low, high = DERIVATIVE_BOUNDS[name]
            assert low - 1e-12 <= float(slope.min())
            assert float(slope.max()) <= high + 1e-12


@BITS
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "silu", "quick_gelu", "mish", "hardswish", "relu2"])
def test_the_mean_over_all_random_numbers_is_the_gradient(
    name: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    values = torch.tensor([-2.5, -0.3, 0.0, 0.7, 2.9], dtype=torch.float64)
    for value in values:
        x = value.expand(1, 2**16).clone().requires_grad_()
        monkeypatch.setattr(element_codes, "dither", lambda count, device, generator: every[:count])
        model = nn.Sequential(ACT2FN[name]).train()
        lean_(model, bits=bits)
        y = model(x)
        exact = value.clone().requires_grad_()
        expected = ACT2FN[name](exact)
        (slope,) = torch.autograd.grad(expected, exact)
        y.sum().backward()
        assert torch.allclose(y.detach(), expected.detach().expand_as(y), rtol=1e-12)
        assert x.grad is not None
        assert float(x.grad.mean()) == pytest.approx(float(slope), abs=2.0**-16 * max(1.0, abs(float(slope))))


def test_the_variance_is_that_of_the_law(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.GELU()).train()
    lean_(model, bits=4)
    x = torch.randn(1, 64, generator=generator, dtype=torch.float64).requires_grad_()
    dy = torch.randn(1, 64, generator=generator, dtype=torch.float64)
    slope = TIMES_DERIVATIVE["GELU"](torch.ones_like(dy), x.detach())
    draws = torch.cat([torch.autograd.grad(model(x), x, dy)[0] for _ in range(4000)])
    grid = grid_of("GELU", 4)
    formula = float(variance_of_dx(dy, slope, grid))
    found = float((draws - dy * slope).square().sum(1).mean())
    # Hoeffding: each of the independent squares lies between 0 and (dY · step)²
    ranges = (dy.square() * float(grid.levels.diff().max()) ** 2).square().sum()
    tolerance = math.sqrt(math.log(2.0 / share("lean codes: variance")) / (2 * len(draws)) * float(ranges))
    assert tolerance < 0.2 * formula
    assert found == pytest.approx(formula, abs=tolerance)


def test_bytes_of_an_activation_before_a_layer_that_samples(generator: torch.Generator) -> None:
    x = torch.randn(32, 16, generator=generator)
    width = 32 * 64
    found = {}
    for lean in ("neighbours", "8-bit", "4-bit"):
        model = plain()
        approximate_(model, ESTIMATOR, min_elements=0, lean=lean)
        found[lean] = kept(model, x)
    assert found["neighbours"] - found["8-bit"] == 4 * width - code_bytes(width, 8)
    assert found["neighbours"] - found["4-bit"] == 4 * width - code_bytes(width, 4)


@BITS
def test_before_an_exact_layer_the_recipe_is_less_and_wins_from_the_second_pass(
    bits: int, generator: torch.Generator
) -> None:
    x = torch.randn(32, 16, generator=generator)
    model, lean = plain(), plain()
    lean_(lean)
    lean_(model, bits=bits)
    first = kept(model, x)
    assert first == kept(lean, x) + code_bytes(32 * 64, bits)
    assert kept(model, x) == kept(lean, x)
    approximate_(model, ESTIMATOR, min_elements=0)  # now the layer samples: known after a pass
    kept(model, x)
    approximate_(lean, ESTIMATOR, min_elements=0)
    assert kept(lean, x) - kept(model, x) == 4 * 32 * 64 - code_bytes(32 * 64, bits)


@BITS
@pytest.mark.parametrize("sampled", [False, True])
def test_bytes_of_a_gated_block(bits: int, sampled: bool, generator: torch.Generator) -> None:
    x = torch.randn(32, 16, generator=generator)
    width = 32 * 64
    blocks = [Gated().train(), Gated().train()]
    assert lean_(blocks[1], bits=bits).found["act"] == f"SiLU, gated, {bits}-bit codes where they are less"
    lean_(blocks[0])
    if sampled:
        for block in blocks:
            approximate_(block, ESTIMATOR, min_elements=0)
    fewer = 2 * 4 * width - 2 * code_bytes(width, bits, grouped=True)
    for _ in range(3):
        assert kept(blocks[0], x) - kept(blocks[1], x) == fewer - (0 if sampled else 4 * width)


def test_a_gated_product_in_half_precision_keeps_its_inputs_where_they_are_less(
    generator: torch.Generator,
) -> None:
    x = torch.randn(32, 16, generator=generator).bfloat16()
    lean, model = Gated().bfloat16().train(), Gated().bfloat16().train()
    lean_(lean)
    lean_(model, bits=8)
    first = kept(model, x)
    assert kept(model, x) == kept(lean, x) < first


def test_output_dropout_and_torchs_generator_are_those_of_stock(generator: torch.Generator) -> None:
    x = torch.randn(9, 16, generator=generator)
    model = plain()
    torch.manual_seed(3)
    known, state = model(x), torch.random.get_rng_state()
    lean_(model, bits=4)
    torch.manual_seed(3)
    assert torch.equal(model(x), known)
    assert torch.equal(torch.random.get_rng_state(), state)


def two_steps(model: nn.Module, x: Tensor) -> list[Tensor]:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model.zero_grad()
        model(x).square().sum().backward()
        found.append(model[0].weight.grad.clone())  # type: ignore[index]
    return found


def test_draws_differ_from_pass_to_pass_and_are_resumed(generator: torch.Generator) -> None:
    x = torch.randn(9, 16, generator=generator)
    model = plain()
    approximate_(model, {"3": "exact", "*": "exact"}, lean="4-bit")
    assert ForwardContext.of(model) is not None
    model[3] = nn.Identity()  # nobody asks for a recipe
    state = sampling_state(model)
    one, other = two_steps(model, x)
    assert not torch.equal(one, other)
    load_sampling_state(model, state)
    assert all(torch.equal(a, b) for a, b in zip(two_steps(model, x), (one, other), strict=True))


def test_copies_and_pickles_keep_their_codes(generator: torch.Generator) -> None:
    x = torch.randn(9, 16, generator=generator)
    model = plain()
    approximate_(model, ESTIMATOR, min_elements=0, lean="8-bit")
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kept(again, x) == kept(model, x)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointed_blocks_have_the_gradients_of_stock_or_of_codes(
    use_reentrant: bool, generator: torch.Generator
) -> None:
    model, x = plain(), torch.randn(9, 16, generator=generator).requires_grad_()

    def dw() -> Tensor:
        torch.manual_seed(1)
        model.zero_grad()
        checkpoint(model, x, use_reentrant=use_reentrant).square().sum().backward()
        return model[0].weight.grad.clone()

    known = dw()
    lean_(model, bits=8)
    for _ in range(3):
        off = float((dw() - known).norm() / known.norm())
        assert off <= (0.05 if use_reentrant else 1e-5)


def test_restored_models_and_those_made_lean_without_codes_have_no_context() -> None:
    model = plain()
    lean_(model, bits=8)
    assert ForwardContext.of(model) is not None
    lean_(model)
    assert ForwardContext.of(model) is None
    lean_(model, bits=4)
    restore_(model)
    assert ForwardContext.of(model) is None
    approximate_(model, ESTIMATOR)
    lean_(model, bits=4)
    lean_(model)
    assert ForwardContext.of(model) is not None


def test_who_looks_at_the_gradient_by_the_activation_gets_it(generator: torch.Generator) -> None:
    class Watched(Gated):
        def forward(self, x: Tensor) -> Tensor:
            act = self.act(self.one(x))
            act.register_hook(self.seen.append)
            return self.out(act * self.two(x))

    block = Watched().train()
    block.seen = []
    lean_(block, bits=8)
    block(torch.randn(5, 16, generator=generator)).sum().backward()
    assert len(block.seen) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [plain, Gated])
def test_other_dtypes_and_autocast(
    build: Callable[[], nn.Module], dtype: torch.dtype, generator: torch.Generator
) -> None:
    x = torch.randn(64, 16, generator=generator)
    for autocast in (False, True):
        if autocast and dtype == torch.float64:
            continue
        model = build().train() if autocast else build().train().to(dtype)
        given = x if autocast else x.to(dtype)
        found = []
        for bits in (None, 8):
            lean_(model, bits=bits)
            model.zero_grad()
            torch.manual_seed(1)
            with torch.autocast("cpu", dtype, enabled=autocast):
                y = model(given)
            y.float().sum().backward()
            found.append({name: p.grad.double() for name, p in model.named_parameters()})
        for name, gradient in found[0].items():
            assert float((found[1][name] - gradient).norm()) <= 0.05 * float(gradient.norm()), name


# a whole model


def case(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = {"bert": tiny_bert, "gpt2": gpt2, "llama": llama}[name]().train()
    batch = bert_batch()
    batch["input_ids"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], 1)
    return model, repeated(batch, 2)


def mean_test(name: str, level: float, *, sampled: bool, draws: int = 64) -> ProjectionTest:
    model, batch = case(name)
    found = gradients(model, batch)
    exact = {name: gradient for name, gradient in found.items() if gradient.norm() > 1e-7}
    if sampled:
        approximate_(model, "crs(budget=0.5)", min_elements=0, lean="4-bit")
    else:
        lean_(model, bits=4)
    projections = gradient_projections(model, exact, batch, draws)
    moving = projections.var(0) > 0  # nothing is random above the codes
    assert bool((projections[:, ~moving].abs() <= 1e-5).all())
    return mean_test_from_projections(projections[:, moving], level, rounding=1e-5)


@pytest.mark.parametrize(("name", "sampled"), [("bert", True), ("gpt2", True), ("llama", True), ("llama", False)])
def test_the_mean_gradient_of_a_model_is_the_exact_one(unchecked: None, name: str, sampled: bool) -> None:
    test = mean_test(name, share("lean codes: mean gradient", tests=4), sampled=sampled)
    assert not test.rejected, (test.p_value, test.effect)


def test_random_numbers_of_half_the_range_are_noticed(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = element_codes.dither
    monkeypatch.setattr(element_codes, "dither", lambda *arguments: right(*arguments) // 2)
    assert mean_test("llama", 1e-9, sampled=False).rejected


def test_rounding_to_the_nearest_is_noticed(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(element_codes, "dither", lambda count, *_: torch.zeros(count, dtype=torch.int16))
    model, batch = case("llama")
    found = gradients(model, batch)
    exact = {name: gradient for name, gradient in found.items() if gradient.norm() > 1e-7}
    lean_(model, bits=4)
    projections = gradient_projections(model, exact, batch, 2)
    assert torch.equal(projections[0], projections[1])  # no mean of any number of draws is another
    assert float(projections.abs().max()) > 1e-3
