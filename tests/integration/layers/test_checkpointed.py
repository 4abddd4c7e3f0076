"""Checkpoints of chosen modules: the gradients of the stock module, less kept, and the way back."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from support.language_models import MODELS, language_batch, language_model
from support.lean_gradients import deviation, model_gradients, module_gradients
from torch import Tensor, nn

from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.checkpointed import Checkpointed, restore_checkpointed, set_checkpointed
from wtacrs.integration.measure.track_memory import track_memory


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.3), nn.Linear(32, 8))
        self.calls = 0

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        self.calls += 1
        return x + scale * self.inner(x)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Residual(), Residual()).train()


def test_gradients_and_random_numbers_are_those_of_the_stock_module() -> None:
    model, x = chain(), torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    stock = module_gradients(model, x)
    set_checkpointed([model[0]])
    assert deviation(module_gradients(model, x), stock) == 0.0
    assert (model[0].calls, model[1].calls) == (3, 2)


def test_its_inputs_alone_are_kept() -> None:
    model, x = chain(), torch.randn(5, 8, requires_grad=True)
    kept = []
    for _ in range(2):
        with track_memory(model) as tracked:
            model(x).sum().backward()
        kept.append([storage.owners[0].module.partition(".")[0] for storage in tracked.storages])
        set_checkpointed([model[0]])
    assert "0" in kept[0]
    assert "0" not in kept[1]
    assert "1" in kept[1]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "OPT"])
def test_language_models(name: str) -> None:
    """With dropout, and with a cache for generation switched on, which a second run would extend once more."""
    model, batch = language_model(name, 0.1), language_batch("right")
    stock, state = model_gradients(model, batch)
    set_checkpointed(blocks_of(model).values())
    model.config.use_cache = True
    found, now = model_gradients(model, batch)
    assert deviation(found, stock) < 1e-5
    assert torch.equal(state, now)


def test_no_second_run_without_a_backward_pass() -> None:
    model, x = chain(), torch.randn(5, 8)
    set_checkpointed(model)
    model.eval()(x)
    with torch.no_grad():
        model.train()(x)
    assert [block.calls for block in model] == [2, 2]


def test_the_way_back_and_copies() -> None:
    model = chain()
    keys = list(model.state_dict())
    set_checkpointed(model)
    set_checkpointed(model)
    assert all(isinstance(block, Checkpointed) and isinstance(block, Residual) for block in model)
    assert list(model.state_dict()) == keys
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(isinstance(block, Checkpointed) for block in other)
    assert [restore_checkpointed(block) for block in model] == [True, True]
    assert [restore_checkpointed(block) for block in model] == [False, False]
    assert {type(block) for block in model} == {Residual}
