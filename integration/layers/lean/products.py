"""q, k, v as what they are made of: found by the tensors themselves, or read off autograd's graph.

Between a projection and attention a model may split, transpose and view, which a recipe is known through (see `recipes`).
Rotary embeddings, a scaling of q or a cache make new tensors. How they came about is in autograd's graph already, which
holds what the gradient of every operation needs: from q back to the projection, operation by operation, where each is one
of a few that move numbers, add, negate, or multiply by what needs no gradient (`_OPERATIONS`). All others end the search,
and the tensor is kept.

That the product was not changed in place is known by its version; so it is of the tensor that attention gets. A tensor in
between cannot be asked, since nobody holds it any more: one that is changed in place without autograd's knowledge, under
`torch.no_grad()` and before its next use, makes gradients wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wtacrs.integration.layers.lean.recipes import (
    Autocast,
    Leaf,
    Place,
    Plan,
    Planning,
    Product,
    Recipe,
    is_checkpointed,
    layout_of,
    recipe_of,
)

_MOST = 32
"""Operations that are looked at between a tensor and the products that it is made of."""


class Plans(NamedTuple):
    """How several tensors are made again of leaves that they share."""

    plans: tuple[Plan | Place, ...]

    def make(self, leaves: tuple[Tensor, ...]) -> list[Tensor]:
        """The tensors again, without a graph; what several of them are made of is made once."""
        made: dict[int, Tensor] = {}
        return [leaves[plan.number] if isinstance(plan, Place) else plan.make(leaves, made) for plan in self.plans]


class Together(NamedTuple):
    """Several tensors as leaves.

    Attributes:
        plans: of the tensors in turn.
        leaves: for `save_for_backward`, every one once.
    """

    plans: Plans
    leaves: tuple[Tensor, ...]

    @staticmethod
    def of(*tensors: Tensor) -> Together:
        """Tensors that are all kept themselves."""
        return Together(Plans(tuple(Place(number) for number in range(len(tensors)))), tensors)


def packed_together(tensors: Sequence[Tensor]) -> Together:
    """What a Function keeps in place of several tensors: of those without a recipe, themselves.

    Args:
        tensors: plain tensors or views; recipes of products are followed.
    """
    planning = Planning()
    plans = tuple(_plan(tensor, planning) for tensor in tensors)
    return Together(Plans(plans), planning.leaves)


def _plan(tensor: Tensor, planning: Planning) -> Plan | Place:
    if not is_checkpointed():
        recipe = recipe_of(tensor, products=True)
        step = None if recipe is None else planning.step(recipe)
        if step is not None:
            return Plan(step, layout_of(tensor))
        recipe = traced(tensor)
        step = None if recipe is None else planning.step(recipe)
        if step is not None:
            return Plan(step, None)
    return planning.place(Leaf(tensor, owned=False).key, tensor)


def traced(tensor: Tensor) -> Recipe | None:
    """The recipe of a tensor by autograd's graph; None where an operation is not known, or a tensor was changed."""
    if tensor._version or tensor.output_nr:
        return None
    trace = _Trace(Autocast.now(tensor.device.type))
    return trace.recipe(tensor.grad_fn)


class _Trace:
    """From a node of autograd's graph back to products."""

    def __init__(self, autocast: Autocast) -> None:
        self._autocast, self._left = autocast, _MOST

    def recipe(self, node: Any) -> Recipe | None:
        """Of the only tensor that a node returned."""
        self._left -= 1
        if node is None or self._left < 0:
            return None
        product = Product.of(node)
        if product is not None:
            return product
        operation = _OPERATIONS.get(node.name())
        found = None if operation is None else operation(node)
        if found is None:
            return None
        run, inputs = found
        values = [self.recipe(value.node) if isinstance(value, _Input) else value for value in inputs]
        if any(value is None for value in values):
            return None
        return Recipe(run, tuple(values), "product", 0, self._autocast)


class _Input(NamedTuple):
    """A tensor that another node returned."""

    node: Any


_Found = tuple[Callable[..., Tensor], tuple[Any, ...]] | None
"""What makes the tensor that a node returned, of which inputs and constants; None where that is not in the node."""


def _inputs(node: Any) -> list[_Input | None]:
    return [None if before is None or place else _Input(before) for before, place in node.next_functions]


def _integer(value: int) -> int:
    """Negative numbers are shown as what they are modulo 2^64."""
    return value - 2**64 if value >= 2**63 else value


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node._input_metadata[0].shape)


def _transposed(node: Any) -> _Found:
    return torch.transpose, (_inputs(node)[0], _integer(node._saved_dim0), _integer(node._saved_dim1))


def _viewed(node: Any) -> _Found:
    return torch.reshape, (_inputs(node)[0], _shape(node))


def _negated(node: Any) -> _Found:
    return torch.neg, (_inputs(node)[0],)


def _sliced(node: Any) -> _Found:
    limits = (node._saved_start, node._saved_end, node._saved_step)
    return torch.ops.aten.slice.Tensor, (_inputs(node)[0], _integer(node._saved_dim), *map(_integer, limits))


def _joined(node: Any) -> _Found:
    """Of what needs a gradient; a cache begins with an empty tensor, which does not."""
    parts = [part for part in _inputs(node) if part is not None]
    dim = _integer(node._saved_dim)
    lengths = [part.node._input_metadata[0].shape[dim] for part in parts]
    return (_cat, (dim, *parts)) if sum(lengths) == _shape(node)[dim] else None


def _cat(dim: int, *parts: Tensor) -> Tensor:
    return torch.cat(parts, dim)


def _multiplied(node: Any) -> _Found:
    first, second = _inputs(node)
    if (first is None) is (second is None):
        return None
    factor = node._saved_other if second is None else node._saved_self
    if factor is None:
        return None
    return torch.mul, (first or second, Leaf(factor, owned=True))


def _added(node: Any) -> _Found:
    first, second = _inputs(node)
    return (torch.add, (first, second)) if node._saved_alpha == 1 else None


_OPERATIONS: dict[str, Callable[[Any], _Found]] = {
    "TransposeBackward0": _transposed,
    "ViewBackward0": _viewed,
    "UnsafeViewBackward0": _viewed,
    "NegBackward0": _negated,
    "SliceBackward0": _sliced,
    "CatBackward0": _joined,
    "MulBackward0": _multiplied,
    "AddBackward0": _added,
}
"""Nodes of torch's own operations, by their names."""
