"""What lies between a projection and attention, read off autograd's graph: made again to the bit, or kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wtacrs.integration.layers.lean import products
from wtacrs.integration.layers.lean.products import packed_together, traced
from wtacrs.integration.layers.lean.recipes import register

SHAPE = (3, 4, 6)
FACTOR = torch.linspace(-1, 2, 6)


@pytest.fixture
def product(generator: torch.Generator) -> Tensor:
    """`[3, 4, 6]`, of an input `[3, 4, 5]`; both stay alive with it."""
    x = torch.randn(3, 4, 5, generator=generator).requires_grad_()
    weight = torch.randn(6, 5, generator=generator).requires_grad_()
    y = F.linear(x, weight) * 1.0  # not a view
    register(y, _linear, x, weight, kind="product")
    y.of = x, weight  # type: ignore[attr-defined]
    return y


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight) * 1.0


def rotated(y: Tensor) -> Tensor:
    half = torch.cat((-y[..., 3:], y[..., :3]), dim=-1)
    return y * FACTOR.cos() + half * FACTOR.sin()


KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda y: y,
    "scaled": lambda y: y * 0.35,
    "scaled before": lambda y: 0.35 * y,
    "tensor": lambda y: y * FACTOR,
    "tensor before": lambda y: FACTOR * y,
    "rotary": rotated,
    "rotary of heads": lambda y: rotated(y.view(3, 4, 1, 6).transpose(1, 2)),
    "negative": lambda y: (-y).transpose(-1, -2)[..., -3:],
    "every second": lambda y: (y * 2.0)[:, ::2, 1:-1],
    "cache": lambda y: torch.cat([torch.tensor([]), y.transpose(0, 1)], dim=-2),
    "sum of two": lambda y: y * 2.0 + (y * FACTOR).view(SHAPE),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_tensor_is_made_again_to_the_bit(name: str, product: Tensor) -> None:
    q = KNOWN[name](product)
    found = packed_together([q])
    (made,) = found.plans.make(found.leaves)
    assert torch.equal(made, q)
    assert not any(leaf.untyped_storage().data_ptr() == q.untyped_storage().data_ptr() for leaf in found.leaves)
    assert {leaf.shape for leaf in found.leaves} <= {(3, 4, 5), (6, 5), (6,), ()}


def _changed_without_autograd(y: Tensor) -> Tensor:
    with torch.no_grad():
        y.mul_(2.0)
    return y * 0.35


def _changed_at_last(y: Tensor) -> Tensor:
    q = y * 0.35
    with torch.no_grad():
        q.add_(1.0)
    return q


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "function": lambda y: y.exp(),
    "constant added": lambda y: y + FACTOR,
    "weighted sum": lambda y: torch.add(y * 2.0, y * 1.0, alpha=2),
    "factor with a gradient": lambda y: y * FACTOR.clone().requires_grad_(),
    "joined with a constant": lambda y: torch.cat([y, torch.ones(3, 1, 6)], dim=1),
    "changed product": _changed_without_autograd,
    "changed at last": _changed_at_last,
    "one of several": lambda y: torch.unbind(y * 2.0)[1],
    "long way": lambda y: [y := y * 1.5 for _ in range(40)][-1],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_all_else_is_kept(name: str, product: Tensor) -> None:
    q = UNKNOWN[name](product)
    assert traced(q) is None
    found = packed_together([q])
    assert [leaf is q for leaf in found.leaves] == [True]
    assert found.plans.make(found.leaves)[0] is q


def test_several_tensors_of_one_product_make_it_once(product: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = product.view(3, 4, 3, 2)
    found = packed_together([rotated(product), product[..., :2], heads.transpose(1, 2)])
    products_made: list[int] = []
    stock = F.linear
    monkeypatch.setattr(F, "linear", lambda *given: (products_made.append(1), stock(*given))[1])
    found.plans.make(found.leaves)
    assert products_made == [1]


@pytest.mark.parametrize("planted", ["NegBackward0", "SliceBackward0", "MulBackward0"])
def test_a_wrong_operation_is_found(planted: str, product: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = products._OPERATIONS[planted]

    def wrong(node: object) -> object:
        found = right(node)
        assert found is not None
        run, inputs = found
        if planted == "NegBackward0":
            return torch.clone, inputs
        if planted == "MulBackward0":
            return torch.add, inputs
        return run, (*inputs[:2], 0, 3, 1)

    monkeypatch.setitem(products._OPERATIONS, planted, wrong)  # type: ignore[arg-type]
    q = rotated(product)
    found = packed_together([q])
    assert not torch.allclose(found.plans.make(found.leaves)[0], q)
