"""Random numbers of the layers: one step further every pass, by a seed of their own, and torch's left alone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from support.models import bert_batch, tiny_bert
from support.saved_rows import saved_rows
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wtacrs.estimators import InputError
from wtacrs.integration.context.draws import Draws, PassDraws
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.parallel.processes import Processes

SPEC = "crs(budget=0.3)"
X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


def converted(**options: Any) -> nn.Module:
    """Without dropout: nothing else draws."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    approximate_(model, SPEC, min_elements=0, **options)
    return model


def context_of(model: nn.Module) -> ForwardContext:
    context = ForwardContext.of(model)
    assert context is not None
    return context


def rows(model: nn.Module, times: int = 1) -> list[list[int]]:
    return [t.tolist() for _ in range(times) for t in saved_rows(lambda: model(X))]


def drawn(draws: Draws) -> int:
    return int(torch.randint(2**62, (), generator=PassDraws(draws).generator("layer", CPU)))


def test_a_generator_is_a_function_of_seed_pass_layer_and_call() -> None:
    def first(seed: int, passes: int, layer: str, calls: int) -> int:
        draws = Draws(seed)
        draws.passes = passes
        within = PassDraws(draws)
        for _ in range(calls):
            within.generator(layer, CPU)
        return int(torch.randint(2**62, (), generator=within.generator(layer, CPU)))

    cases = [(s, p, layer, c) for s in (0, 1) for p in (0, 1) for layer in ("a", "b") for c in (0, 1)]
    found = [first(*case) for case in cases]
    assert len(set(found)) == len(cases)
    assert found == [first(*case) for case in cases]


def test_calls_are_counted_from_the_first_for_a_recomputation() -> None:
    draws = Draws(0)
    within = PassDraws(draws)
    once = [within.generator("a", CPU).initial_seed() for _ in range(3)]
    within.forget_calls()
    assert [within.generator("a", CPU).initial_seed() for _ in range(3)] == once
    assert draws.passes == 1


def test_the_seed_is_that_of_torch_unless_it_is_given() -> None:
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    assert Draws().seed == 1234
    assert Draws(5).seed == 5
    assert torch.equal(torch.get_rng_state(), state)


def test_conversion_and_draws_leave_the_generators_of_torch_alone() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    state = torch.get_rng_state()
    approximate_(model, SPEC, min_elements=0)
    model(X).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_every_training_pass_draws_anew() -> None:
    model = converted()
    found = rows(model, times=5)
    assert len(found) == 10
    assert len({tuple(each) for each in found}) == 10
    assert context_of(model).draws.passes == 5


@pytest.mark.parametrize("how", ["eval", "no_grad", "inference", "frozen", "small"])
def test_a_pass_that_draws_nothing_counts_for_nothing(how: str) -> None:
    model, other = converted(), converted()
    rows(model), rows(other)
    if how == "frozen":
        other.requires_grad_(False)
    elif how == "small":
        other[0].min_elements = other[2].min_elements = 10**9
    other.train(how != "eval")
    with {"no_grad": torch.no_grad(), "inference": torch.inference_mode()}.get(how, nullcontext()):
        other(X)
    other.train().requires_grad_(True)
    other[0].min_elements = other[2].min_elements = 0
    assert rows(model) == rows(other)
    assert context_of(other).draws.passes == 2


def test_draws_are_those_of_the_seed() -> None:
    """Of torch's seed when the model was converted, or of the argument, whatever torch's is."""
    assert rows(converted(), 3) == rows(converted(), 3)
    other = converted(seed=1)
    torch.manual_seed(77)
    assert rows(other, 3) == rows(converted(seed=1), 3)
    assert rows(converted(seed=1), 3) != rows(converted(), 3)


def test_a_model_that_is_converted_again_goes_on_unless_there_is_a_seed() -> None:
    model, other = converted(), converted()
    expected = rows(other, 3)
    assert rows(model) == expected[:2]
    approximate_(model, SPEC, min_elements=0)
    assert rows(model) == expected[2:4]
    approximate_(model, SPEC, min_elements=0, seed=0)
    assert context_of(model).draws.state_dict() == {"seed": 0, "passes": 0}
    assert rows(model) == expected[:2]


def test_processes_draw_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in range(3):
        monkeypatch.setattr(Processes, "here", staticmethod(lambda rank=rank: Processes(rank, 3)))
        found.append(drawn(Draws(0)))
    assert len(set(found)) == 3
    monkeypatch.setattr(Processes, "here", staticmethod(lambda: Processes(0, 1)))
    assert drawn(Draws(0)) == found[0]


def test_the_state_resumes() -> None:
    draws = Draws(9)
    drawn(draws)
    other = Draws(0)
    other.load_state_dict(draws.state_dict())
    assert other.state_dict() == draws.state_dict() == {"seed": 9, "passes": 1}
    assert drawn(other) == drawn(draws)


@pytest.mark.parametrize("seed", [-1, 2**32, 99999999999999999999, True, 1.0, "1"])
def test_what_is_no_seed_is_named(seed: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8))
    with pytest.raises(InputError, match=rf"seed={seed!r} must be"):
        approximate_(model, SPEC, seed=seed)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("part", ["layer", "whole", "layer of bert"])
def test_a_recomputation_draws_the_rows_again(part: str, reentrant: bool) -> None:
    """Rows kept by the graph of the run without checkpointing; and two passes before their backward passes."""

    def compressed(run: Any) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        kind = type(model[0].estimator)
        original = kind.compress

        def compress(self: Any, *args: Any, **kwargs: Any) -> Any:
            kept = original(self, *args, **kwargs)
            found.append(tuple(kept.indices.tolist()))
            return kept

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "compress", compress)
            run()
        return found

    if part == "layer of bert":
        results = []
        for how in (None, reentrant):
            bert = tiny_bert().double()
            approximate_(bert, SPEC, min_elements=0)
            if how is not None:
                bert.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": how})
            for _ in range(3):
                bert(**bert_batch()).loss.backward()
            results.append([p.grad for p in bert.parameters() if p.grad is not None])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs)
        return
    model = converted()
    plain = compressed(lambda: model(X).sum().backward())
    context_of(model).draws.passes = 0
    leaf = X.clone().requires_grad_()
    if part == "whole":
        again = compressed(lambda: checkpoint(model, leaf, use_reentrant=reentrant).sum().backward())
        assert again == (plain if reentrant else plain * 2)
        assert context_of(model).draws.passes == 1
        return

    whole = Part(model, reentrant)
    approximate_(whole, SPEC, min_elements=0)
    found = []
    for checkpointed in (False, True):
        whole.checkpointed = checkpointed
        context_of(whole).draws.passes = 0
        found.append(compressed(lambda: whole(leaf).sum().backward()))
    expected, again = found
    assert sorted(set(again)) == sorted(expected)
    assert again == ([expected[1], expected[0]] if reentrant else [*expected, expected[0]])


class Part(nn.Module):
    """A model whose first layer may be checkpointed."""

    def __init__(self, inner: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inner, self.reentrant, self.checkpointed = inner, reentrant, False

    def forward(self, x: Tensor) -> Tensor:
        first = self.inner[:2]
        hidden = checkpoint(first, x, use_reentrant=self.reentrant) if self.checkpointed else first(x)
        return self.inner[2](hidden)
