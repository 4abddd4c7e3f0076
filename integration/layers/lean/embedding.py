"""Embeddings that are tied to an output layer and add their gradient to its dW, instead of making one of the same size.

A gradient of `nn.Embedding` is a dense matrix `[V, d]` whose rows are mostly 0. Where the weight is that of the output
layer too, autograd makes it, for every use of the embedding, beside the dW that is there already, and adds it to that.

Here it is sparse: the ids, and dY itself as the values. Autograd adds it to the dense dW in place, where it sums what
comes to one parameter before hooks, `DistributedDataParallel`, `fully_shard` or `.grad` see it: they get the one dense
sum that they always got. So the order of accumulation, gradients of earlier batches, and several uses (encoder and
decoder) need no care of ours.

**When it is safe.** A sum of sparse gradients alone would be sparse, which optimizers and `DistributedDataParallel` do
not expect. So the output layer notes in its backward pass to which accumulator it gives a dense dW, and in which pass
of the autograd engine; an embedding gives a sparse gradient only to that accumulator in that pass, and the dense one
otherwise: where the loss does not come from the output layer by pieces, in the nested passes of reentrant
checkpointing, where the weight is frozen or is computed from another. Even where several threads hand in their parts in
another order the sum is dense.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.derivatives import first_derivative_only

_dense_in: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Parameter → the latest pass of the autograd engine that a dense gradient of it was given in."""


def note_dense_gradient(ctx: Any, place: int) -> None:
    """Note in a backward pass that a Function is about to return a dense gradient.

    Args:
        ctx: of the Function.
        place: of the tensor among the tensors that the Function was given.
    """
    parameter = _accumulated(ctx, place)
    if parameter is not None:
        _dense_in[parameter] = torch._C._current_graph_task_id()


def meets_dense_gradient(ctx: Any, place: int) -> bool:
    """Whether a gradient returned now is added to a dense one, that of the same parameter in the same backward pass."""
    parameter = _accumulated(ctx, place)
    running = torch._C._current_graph_task_id()
    return parameter is not None and running >= 0 and _dense_in.get(parameter) == running


def _accumulated(ctx: Any, place: int) -> Tensor | None:
    """The parameter that a gradient goes to directly."""
    node = ctx.next_functions[place][0]
    found: Tensor | None = getattr(node, "variable", None)
    return found


class LookUp(torch.autograd.Function):
    """`F.embedding` whose gradient is sparse where it is added to a dense one."""

    @staticmethod
    def forward(
        ctx: Any, weight: Float[Tensor, "V d"], ids: Int[Tensor, "*batch"], padding: int | None
    ) -> Float[Tensor, "*batch d"]:
        """Rows of the weight."""
        ctx.shape, ctx.padding = weight.shape, padding
        ctx.save_for_backward(ids)
        return F.embedding(ids, weight, padding)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dy: Float[Tensor, "*batch d"]) -> tuple[Tensor, None, None]:
        """dY, added to the rows that were looked up."""
        (ids,) = ctx.saved_tensors
        padding = -1 if ctx.padding is None else ctx.padding
        if not meets_dense_gradient(ctx, 0):
            return torch.ops.aten.embedding_dense_backward(dy, ids, ctx.shape[0], padding, False), None, None
        rows, ids = dy.reshape(-1, dy.shape[-1]), ids.reshape(-1)
        if padding >= 0:
            counted = (ids != padding).nonzero().squeeze(1)
            rows, ids = rows[counted], ids[counted]
        return torch.sparse_coo_tensor(ids[None].long(), rows, ctx.shape, check_invariants=False), None, None


class LeanEmbedding(LeanModule):
    """`nn.Embedding` with dense gradients, without a largest norm, that is tied to a lean output layer."""

    weight: Tensor
    padding_idx: int | None

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Embedding.forward`."""
        if not self.is_lean(self.weight) or not self.weight.requires_grad or unfit_embedding(self):
            return self.stock.forward(self, input)
        y: Tensor = LookUp.apply(self.weight, input, self.padding_idx)
        return y


def unfit_embedding(module: Any) -> bool:
    """Whether an embedding does more than look up, or asks for sparse gradients itself."""
    return bool(module.max_norm is not None or module.scale_grad_by_freq or module.sparse)
