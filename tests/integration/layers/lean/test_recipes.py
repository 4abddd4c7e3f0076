"""Recipes: found by the tensor itself, lapsed when what they are made of is gone or changed."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from wtacrs.integration import lean_
from wtacrs.integration.layers.lean.recipes import Owned, packed, recipe_of, register


def known(x: Tensor) -> Tensor:
    """`gelu(x)` with its recipe."""
    y = F.gelu(x)
    register(y, F.gelu, x)
    return y


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(6, 8, generator=generator).requires_grad_()


def test_a_tensor_and_its_views_are_made_again(x: Tensor) -> None:
    y = known(x)
    for view in (y, y.view(2, 3, 8), y[1:4], y.t(), y[:, ::2], y.view(-1)[5:]):
        found = packed(view)
        assert found is not None
        assert [leaf.untyped_storage().data_ptr() for leaf in found.leaves] == [x.data_ptr()]
        assert torch.equal(found.plan.make(found.leaves), view)


def test_recipes_of_recipes_keep_the_first_leaves_once(x: Tensor) -> None:
    y = known(x)
    z = y * x
    register(z, torch.mul, y, x)
    found = packed(z)
    assert found is not None
    assert len(found.leaves) == 1
    assert torch.equal(found.plan.make(found.leaves), z)


def test_a_change_in_place_of_the_tensor_or_of_a_leaf_ends_a_recipe(x: Tensor) -> None:
    y = known(x)
    assert recipe_of(y) is not None
    with torch.no_grad():
        y.mul_(2.0)
    assert packed(y) is None
    y = known(x)
    with torch.no_grad():
        x.add_(1.0)
    assert packed(y) is None


def test_a_change_of_a_leaf_after_it_was_kept_is_refused(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4)).train()
    lean_(model)
    x = torch.randn(5, 8, generator=generator)
    y = model(x)
    x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), model[1].weight)


def test_a_recipe_keeps_no_leaf_alive(generator: torch.Generator) -> None:
    x = torch.randn(6, 8, generator=generator).requires_grad_() * 1.0
    y = (x * 2.0).detach().requires_grad_()
    register(y, torch.mul, x, 2.0)
    assert packed(y) is not None
    gone = StorageWeakRef(x.untyped_storage())
    del x
    gc.collect()
    assert gone.expired()
    assert packed(y) is None


def test_a_tensor_is_forgotten_when_it_is_gone(x: Tensor) -> None:
    y = known(x)
    recipe = recipe_of(y)
    assert recipe is not None
    leaf = weakref.ref(recipe.inputs[0])
    del y, recipe
    gc.collect()
    assert leaf() is None


def test_copies_and_detached_tensors_have_no_recipe(x: Tensor) -> None:
    y = known(x)
    assert packed(y.clone()) is None
    assert packed(y.data) is None
    with torch.no_grad():
        assert recipe_of(F.gelu(x)) is None


def test_what_a_recipe_owns(x: Tensor) -> None:
    y, factor = x * 3.0, torch.tensor(3.0)
    register(y, torch.mul, x, Owned(factor.clone()))
    factor.zero_()
    found = packed(y)
    assert found is not None
    assert torch.equal(found.plan.make(found.leaves), y)


def test_products_are_followed_only_where_they_are_wanted(x: Tensor, generator: torch.Generator) -> None:
    weight = torch.randn(5, 8, generator=generator)
    y = F.linear(x, weight)
    register(y, F.linear, x, weight, None, kind="product")
    assert packed(y) is None
    found = packed(y, products=True)
    assert found is not None
    assert torch.equal(found.plan.make(found.leaves), y)


def test_autocast_is_as_it_was(generator: torch.Generator) -> None:
    x = torch.randn(6, 8, generator=generator).requires_grad_()
    weight = torch.randn(5, 8, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        y = F.linear(x, weight)
        register(y, F.linear, x, weight, kind="product")
    found = packed(y, products=True)
    assert found is not None
    again = found.plan.make(found.leaves)
    assert again.dtype == torch.bfloat16
    assert torch.equal(again, y)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_keep_their_input_alone(reentrant: bool, generator: torch.Generator) -> None:
    """A block that ends in a norm: its output lives on, with a recipe if it had one, and what is inside does not."""
    block = nn.Sequential(
        nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.LayerNorm(8)
    )
    block.train()
    x = torch.randn(6, 8, generator=generator).requires_grad_()
    checkpoint(block, x, use_reentrant=reentrant).square().sum().backward()
    wanted = [parameter.grad for parameter in block.parameters()]
    block.zero_grad()
    lean_(block)
    inside: list[StorageWeakRef] = []
    for module in list(block)[:-1]:
        module.register_forward_hook(lambda m, a, y: inside.append(StorageWeakRef(y.untyped_storage())))
    y = checkpoint(block, x, use_reentrant=reentrant)
    gc.collect()
    assert len(inside) == 5
    assert all(storage.expired() for storage in inside)
    y.square().sum().backward()
    for parameter, gradient in zip(block.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_hooks_of_the_user_see_what_is_kept(generator: torch.Generator) -> None:
    """Offloading: everything goes through the hooks, and comes back from them."""
    model = nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.2), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).train()
    x = torch.randn(6, 8, generator=generator)
    torch.manual_seed(0)
    model(x).square().sum().backward()
    wanted = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    lean_(model)
    away: list[Tensor] = []

    def pack(tensor: Tensor) -> int:
        away.append(tensor.detach().clone())
        return len(away) - 1

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda place: away[place]):
        y = model(x)
    y.square().sum().backward()
    assert any(tensor.dtype == torch.uint8 for tensor in away)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-5, atol=1e-6)
