"""A basis that is kept for several calls of `control_variate`: state of the caller's, apart from the estimator."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor

from wtacrs.estimators.composites.control_variate import ControlVariate
from wtacrs.estimators.core.errors import InputError


class BasisState:
    """The basis of one layer, found anew at every `every`-th call and kept in between.

    Activations turn slowly: a basis of some steps ago explains nearly as much, and the estimate is unbiased with
    any (see `ControlVariate`). A refresh starts from the old basis, so that one subspace iteration does; the first
    one takes two from a fixed start. Per call this costs `2 n·d·rank / every` MACs in place of the
    `4 n·d·rank` for a new basis each time.

    The estimator stays frozen and knows nothing of it. One state belongs to one layer; it is saved and restored
    like an optimizer's, `every` excepted, which is the caller's to choose. A layer that is recomputed in the
    backward pass must be given the basis of its forward pass: ask once, outside of what is recomputed.

    Attributes:
        every: calls from one refresh to the next.
        calls: calls so far.
        vectors: the basis `[d, r]`, None before the first call.

    >>> import torch
    >>> from wtacrs.estimators import make
    >>> estimator = make("control_variate(rank=2, rows=crs(budget=0.25))")
    >>> state = BasisState(every=10)
    >>> for step in range(3):
    ...     x, dy = torch.randn(64, 16), torch.randn(64, 4)
    ...     saved = estimator.compress(x, basis=state.basis(estimator, x))
    ...     dw = estimator.contract(saved, dy)
    >>> resumed = BasisState(every=10)
    >>> resumed.load_state_dict(state.state_dict())
    >>> resumed.calls, resumed.vectors.shape
    (3, torch.Size([16, 2]))
    """

    def __init__(self, every: int) -> None:
        """Start without a basis.

        Raises:
            InputError: unless `every` is an int ≥ 1.
        """
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"BasisState: every={every!r} must be an int ≥ 1, the calls from refresh to refresh")
        self.every = every
        self.calls = 0
        self.vectors: Tensor | None = None

    def basis(
        self, estimator: ControlVariate, x: Float[Tensor, "n d"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float[Tensor, "d r"]:
        """The basis for this call, to be given to `estimator.compress(x, basis=…)`; counts the call.

        Args:
            estimator: with a low-rank base.
            x: the input that is to be compressed.
            scores: as they are given to `compress`.

        Raises:
            InputError: as `ControlVariate.make_basis`, or if x has not as many features as the basis.
        """
        if self.vectors is None or self.calls % self.every == 0:
            self.vectors = estimator.make_basis(x, scores=scores, start=self.vectors)
        else:
            estimator.check_basis(self.vectors, x)
        self.calls += 1
        return self.vectors

    def state_dict(self) -> dict[str, Any]:
        """`calls` and `vectors`, for `torch.save`; the tensor is that of the state, which never changes it."""
        return {"calls": self.calls, "vectors": self.vectors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            InputError: if `state` is no such dict.
        """
        if not isinstance(state, dict) or set(state) != {"calls", "vectors"} or not _usable(**state):
            raise InputError(
                'BasisState: state must be a dict {"calls": int ≥ 0, "vectors": tensor [d, r] or None}'
            )
        self.calls, self.vectors = state["calls"], state["vectors"]


def _usable(calls: object, vectors: object) -> bool:
    valid = isinstance(calls, int) and not isinstance(calls, bool) and calls >= 0
    return valid and (vectors is None or (isinstance(vectors, Tensor) and vectors.ndim == 2))
