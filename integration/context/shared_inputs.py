"""One compressed copy for an input that several layers read: q, k, v of self-attention, gate and up projections."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef

from wtacrs.estimators.core.base import Estimator
from wtacrs.estimators.core.scores import has_answers


class Sample(NamedTuple):
    """What was kept of an input.

    Attributes:
        kept: what the estimator returned.
        estimator: that drew it.
        leader: the layer that it was drawn for.
        call: an object that stands for this sample without holding it.
        seen: rows that a memory of scores wants to see in the backward pass, a tuple of tensors; None for none.
    """

    kept: Any
    estimator: Estimator
    leader: str
    call: object
    seen: Any = None


class _Entry(NamedTuple):
    source: TensorWeakRef
    version: int
    terms: tuple[Any, ...]
    sample: Sample


class SharedInputs:
    """The samples drawn in one forward pass, found again by the input they are of.

    The first layer that reads a tensor draws, and the others that read it, on the same terms (estimator, dtype, mask),
    keep the same tensors in their graph: one copy. Which layers share is seen while they run and not read off the
    structure of the model, since only then is it certain: names differ from one architecture to the next, and the very
    same attention module gets one input in self-attention and two in cross-attention. An input is the same if it is the
    same object, still alive (a weak reference says so, where an address may have been used again) and not changed in
    place since (autograd's version counter). Two views of the same memory are not taken for one input: whether either was
    changed through `.data` cannot be known.

    The estimates of layers that share are each unbiased with the variance they had, so the sum of the variances, which is
    the expected squared error of the whole gradient, is what it was. Their errors are no longer independent: a row that
    is missing from dW_q is missing from dW_k and dW_v.

    Saved-tensor hooks see the copy once for every layer that keeps it; hooks that copy (offloading) copy it so often.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def find(self, x: Tensor, terms: tuple[Any, ...]) -> Sample | None:
        """The sample of this very tensor on these terms, if one was drawn and the tensor is unchanged."""
        for entry in self._entries:
            if entry.source() is x and entry.version == x._version and entry.terms == terms:
                return entry.sample
        return None

    def add(self, x: Tensor, terms: tuple[Any, ...], sample: Sample) -> None:
        """Remember a sample for as long as its input lives; those of inputs that are gone are let go."""
        self._entries = [entry for entry in self._entries if entry.source() is not None]
        self._entries.append(_Entry(TensorWeakRef(x), x._version, terms, sample))

    def clear(self) -> None:
        """Forget everything: the forward pass, or its recomputation, is over."""
        self._entries = []


def can_share(x: Tensor) -> bool:
    """Whether the identity of a tensor says what it holds: not for wrappers of `torch.func` and of other libraries."""
    return (
        (type(x) in (Tensor, torch.nn.Parameter) or has_answers(x))
        and not x.is_inference()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )
