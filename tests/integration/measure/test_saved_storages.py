"""The ledger of saved tensors: every storage once, whose it is, and gone when the graph is."""

from __future__ import annotations

import gc

import torch
from torch import Tensor, nn

from wtacrs.integration.measure.saved_storages import SavedStorages, is_cast, storages_of, unpacked


def saved_by(function: object, x: Tensor) -> tuple[SavedStorages[str], Tensor]:
    saved = SavedStorages(lambda _: "it")
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, unpacked):
        return saved, function(x)  # type: ignore[operator]


def test_a_storage_counts_once_and_whole() -> None:
    x = torch.randn(10, 4, requires_grad=True)
    saved, _y = saved_by(lambda x: x.exp() * x[:5].sin().sum(), x)
    sizes = sorted(found.bytes for found in saved.alive().values())
    assert sizes == [4, 160, 160]  # the sum; x, of which a view is saved too; the exponential
    assert {found.keepers for found in saved.alive().values()} == {frozenset({"it"})}
    known = set(storages_of(x))
    assert len(saved.alive(known)) == 2


def test_an_output_in_its_own_graph_is_freed_without_a_backward_pass() -> None:
    """`relu` and `exp` save what they return: packed as it is, it would hold the graph that holds it."""
    saved, y = saved_by(lambda x: (x * 2).relu().exp(), torch.randn(10, 4, requires_grad=True))
    assert len(saved.alive()) == 2
    del y
    gc.collect()
    assert saved.alive() == {}


def test_a_storage_that_was_emptied_counts_for_nothing() -> None:
    x = torch.randn(10, requires_grad=True)
    saved, y = saved_by(lambda x: (x * 2).sin(), x)
    ((reference, _),) = saved.alive().items()
    torch.UntypedStorage._new_with_weak_ptr(reference.cdata).resize_(0)
    assert saved.alive() == {}
    del y


def test_gradients_through_it_are_those_without_it() -> None:
    x = torch.randn(6, 3, requires_grad=True)
    layer = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    _, y = saved_by(lambda x: layer(x).exp().sum(), x)
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    (alone,) = torch.autograd.grad(layer(x).exp().sum(), x, create_graph=True)
    assert torch.equal(first, alone)
    assert torch.equal(second, torch.autograd.grad(alone.square().sum(), x)[0])


def test_casts_are_known_by_their_values() -> None:
    layer = nn.Linear(3, 2)
    weight = layer.weight.detach()
    assert is_cast(weight.bfloat16(), layer)
    assert is_cast(weight.bfloat16().t(), layer)
    assert not is_cast(weight, layer)
    assert not is_cast(weight.bfloat16() + 1, layer)
    assert not is_cast(weight.bfloat16(), None)
