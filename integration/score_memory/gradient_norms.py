"""What a sampler may remember of gradient norms while it trains: the base class of every kind of memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.scores import floored_scores
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.seen_rows import SeenRows
from wtacrs.validation.arguments import is_number
from wtacrs.validation.records.base import hyphenated

FLOOR = 0.5
"""ε while training: what is remembered may mislead, and then at most doubles the second moment of even sampling."""


UNKNOWN = -1.0
"""The expected norm of a row of which nothing is remembered."""


class GradientNorms(ABC):
    """Expected row norms of dY, learnt in the backward passes of the layers that are sampled by them.

    The scores of a layer are `floored_scores(‖x_i‖, expected_i)`: with ε = `floor` of the probability spread evenly the
    estimate is unbiased and its weights bounded, whatever is remembered, and the second moment `Σ w_i²/p_i` is at most
    1/ε times that of even sampling. Rows of which nothing is remembered count with the root mean square of the others, so
    that all are on one scale; where nothing is remembered of any row, the scores are the row norms. A layer that draws
    the sample for several layers (see `SharedInputs`) remembers `√Σ_c ‖y_i^(c)‖²` over all of them, which minimises the
    sum of their variances.

    What backward passes show is entered when the next forward pass begins, and in `state_dict`. So what is looked up
    does not change within a pass: a layer that activation checkpointing runs again gets the scores it had. Gradients that
    are NaN or infinite (a loss scale that was too large) are not entered.

    Norms are those of dY as it comes: of the loss divided by the number of accumulated batches, times the loss scale.
    Within a batch only their ratios count.

    Attributes:
        kind: name of this kind of scores.
        needs_ids: whether examples must be told apart.
        sees_rows: whether a few rows of every input are kept for it until the backward pass (see `seen_rows`).
        ids: positions of the next batch's examples in their data set, `[batch]`, where they were stated by hand.
        floor: ε.
    """

    kind: ClassVar[str]
    needs_ids: ClassVar[bool] = False
    sees_rows: ClassVar[bool] = False

    def __init__(self, *, floor: float) -> None:
        if not is_number(floor) or not 0 < floor <= 1:
            raise InputError(f"floor={floor!r} must be in (0, 1]: without a floor a remembered zero makes a bias")
        self.floor = floor
        self.ids: Tensor | None = None

    def scores(
        self,
        current: ForwardPass,
        layer: str,
        stream: Stream | None,
        x: Float[Tensor, "*batch d"],
        norms: Float64[Tensor, " n"],
        mask: Bool[Tensor, " n"] | None,
    ) -> Float64[Tensor, " n"]:
        """Scores for the rows of an input of a layer; their norms where there is no way to tell more.

        Args:
            current: the forward pass.
            layer: its name.
            stream: the sequence that the rows run along.
            x: the input.
            norms: row norms of the input.
            mask: False at rows called padding, whose scores are 0; None if none is in use.
        """
        found = self._expected(current, layer, stream, x, mask)
        if found is None:
            return norms
        seen = found >= 0
        total = torch.where(seen, found, 0.0).square().sum()
        usual = (total / seen.sum().clamp(min=1)).sqrt()
        return floored_scores(norms, torch.where(seen, found, usual), mask, self.floor)

    def seen_rows(
        self, x: Float[Tensor, "*batch d"], mask: Bool[Tensor, " n"] | None, generator: torch.Generator
    ) -> SeenRows | None:
        """What the backward pass is to see of an input besides dY; None, as for most kinds, if nothing.

        Args:
            x: the input.
            mask: False at rows called padding; None if none is in use.
            generator: source of the random numbers, after the estimator has drawn from it.
        """
        return None

    @abstractmethod
    def grad_rows_hook(
        self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size, call: object
    ) -> Callable[[Tensor, SeenRows | None], None]:
        """What is to be called with the rows of dY that belong to the sample which `layer` drew, and its `seen_rows`.

        Args:
            current: the forward pass.
            layer: that drew.
            stream: the sequence that the rows run along.
            shape: `*batch` of the input.
            call: the same object for all layers that share the sample, another one for every other sample.
        """

    @abstractmethod
    def enter(self) -> None:
        """Put into the memory what backward passes have shown since it was last done."""

    def attach(self, model: nn.Module) -> None:  # noqa: B027 (most kinds have nothing to get ready)
        """Get ready for a model that is being converted."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the memory."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, on the CPU and apart from what is remembered later: tensors, numbers, texts."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            InputError: if it is of another kind or size.
        """

    @abstractmethod
    def _expected(
        self,
        current: ForwardPass,
        layer: str,
        stream: Stream | None,
        x: Float[Tensor, "*batch d"],
        mask: Bool[Tensor, " n"] | None,
    ) -> Float64[Tensor, " n"] | None:
        """Expected norms of the rows of dY up to a factor, `UNKNOWN` where nothing is remembered; None if of no row."""

    def _check_kind(self, state: dict[str, Any]) -> None:
        if hyphenated(state.get("kind")) != self.kind:  # states of older runs have spaces
            raise InputError(f"scores={self.kind!r}: the state is of scores={state.get('kind')!r}")


def gradient_norms_of(model: nn.Module) -> GradientNorms | None:
    """What the layers of a converted model remember of gradient norms; None for row norms and unconverted models."""
    context = ForwardContext.of(model)
    memory = None if context is None else context.score_memory
    return memory if isinstance(memory, GradientNorms) else None
