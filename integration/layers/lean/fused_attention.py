"""Attention by torch's fused kernels, and the same with q, k, v made again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from wtacrs.integration.layers.lean.derivatives import first_derivative_only
from wtacrs.integration.layers.lean.products import packed_together
from wtacrs.integration.layers.lean.softmax_attention import Terms


def fused(
    q: Float[Tensor, "b h s d"],
    k: Float[Tensor, "b g t d"],
    v: Float[Tensor, "b g t e"],
    mask: Float[Tensor, "#b #h #s #t"] | None,
    terms: Terms,
) -> Float[Tensor, "b s h e"]:
    """`scaled_dot_product_attention` with the heads beside each other; its kernel keeps q, k, v, output and row sums.

    Args:
        q: queries.
        k: keys, of as many heads or a divisor of it.
        v: values.
        mask: added to the scores, or None.
        terms: what is computed.
    """
    out = scaled_dot_product_attention(
        q, k, v, mask, terms.dropout, terms.causal, scale=terms.scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out.transpose(1, 2).contiguous()


class FusedAgain(torch.autograd.Function):
    """`fused`, of which the leaves of q, k, v are kept and no output: the backward pass runs the kernel twice."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "b h s d"],
        k: Float[Tensor, "b g t d"],
        v: Float[Tensor, "b g t e"],
        mask: Float[Tensor, "#b #h #s #t"] | None,
        terms: Terms,
    ) -> Float[Tensor, "b s h e"]:
        """The output, and the generator's state where there is dropout."""
        ctx.terms = terms
        ctx.state = _state(q.device) if terms.dropout else None
        kept = packed_together((q, k, v))
        ctx.plans = kept.plans
        ctx.save_for_backward(mask, *kept.leaves)
        return fused(q, k, v, mask, terms)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, dout: Float[Tensor, "b s h e"]) -> tuple[Tensor | None, ...]:
        """dQ, dK, dV and the gradient of what is added to the scores."""
        mask, *leaves = ctx.saved_tensors
        needs = ctx.needs_input_grad[:4]
        made = ctx.plans.make(tuple(leaves))
        q, k, v = (t.detach().requires_grad_(needed) for t, needed in zip(made, needs, strict=False))
        mask = None if mask is None else mask.detach().requires_grad_(needs[3])
        devices = [q.device] if q.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
            if ctx.state is not None:
                _restore(ctx.state, q.device)
            out = fused(q, k, v, mask, ctx.terms)
        asked = [t for t in (q, k, v, mask) if t is not None and t.requires_grad]
        found = iter(torch.autograd.grad(out, asked, dout))
        return *(next(found) if needed else None for needed in needs), None


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _restore(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
