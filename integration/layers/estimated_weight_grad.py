"""`EstimatedWeightGrad`: what `ApproxLinear` and `ApproxConv1D` add to the linear layers that they derive from."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from wtacrs.estimators import Estimator, row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.score_memory_protocol import NOT_COMPILED
from wtacrs.integration.context.shared_inputs import Sample, can_share
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.layers.compression import as_autocast, autocast_dtype, compressed
from wtacrs.integration.layers.function import GradRowsHook, sampled_linear
from wtacrs.integration.score_memory.gradient_norms import GradientNorms

MIN_ELEMENTS = 16_384


class EstimatedWeightGrad(nn.Module):
    """Mixin of a linear layer: an estimator for its dW, what the layer knows of its forward pass, and the exact path.

    A converted class derives from it and from the stock class, in this order, names that class as `stock`, and calls
    `forward_sampled` in its `forward` where the layer `samples`. The mixin has no parameters and no state of its own: a
    layer becomes converted, and stock again, by a change of its class.

    The ordinary path is taken, and nothing beyond what it keeps is kept, in eval mode, without gradients, with a frozen
    weight, with the `exact` estimator, and for inputs of fewer than `min_elements` numbers, where sampling could save
    next to nothing.

    Attributes:
        stock: the class that the layer is of unless it is converted.
        estimator: what compresses its input.
        min_elements: inputs with fewer numbers than this take the exact path.
        context: of the model, None for a layer that is used by itself.
        stream: which sequence the rows run along, None if that is not known.
        flattened: whether an input `[batch · positions, d]` holds the tokens in their order.
        path: its name in the model.
        gradient_norms: what its scores are remembered in, None for row norms.
        share_inputs: whether it keeps one copy with other layers that read the same input.
    """

    stock: ClassVar[type[nn.Module]]
    weight: Tensor
    bias: Any
    estimator: Estimator
    min_elements: int
    context: ForwardContext | None = None
    stream: Stream | None = None
    flattened: bool = False
    path: str = ""
    gradient_norms: GradientNorms | None = None
    share_inputs: bool = False

    def forward_sampled(
        self, input: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"]
    ) -> Float[Tensor, "*batch m"]:
        """The forward of a layer that `samples`, by its weight as `[m, d]`."""
        current = self._known_pass(input)
        if current is None:
            return sampled_linear(input, weight, self.bias, self.estimator, scores=self.scores_of(input))
        return self._forward_within(current, input, weight)

    def _known_pass(self, x: Tensor) -> ForwardPass | None:
        """The forward pass to draw in; None for compiled code and wrapped tensors, which draw as they come."""
        compiled = torch.compiler.is_compiling() and self.gradient_norms is None
        current = None if compiled or self.context is None else self.context.current
        return None if current is None or current.seed is None or not can_share(x) else current

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _forward_within(
        self, current: ForwardPass, input: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"]
    ) -> Float[Tensor, "*batch m"]:
        """The forward of a layer that knows its forward pass: one sample for all layers that read the input."""
        x = as_autocast(input)
        sample = self._find_shared(current, input)
        if sample is None:
            generator = current.generator(self.path, x.device)
            kept = compressed(self.estimator, x, scores=self.scores_of(input), generator=generator)
            sample = Sample(kept, self.path)
            if self._shares(current):
                current.shared.add(input, self._terms(input), sample)
        on_grad = self._grad_rows_hook(current, sample.leader, input)
        return sampled_linear(x, weight, self.bias, self.estimator, kept=sample.kept, on_grad=on_grad)

    def finds_shared(self, x: Tensor) -> bool:
        """Whether another layer has kept a copy of this very input already, which this one would share."""
        current = self._known_pass(x)
        return current is not None and self._find_shared(current, x) is not None

    def _find_shared(self, current: ForwardPass, x: Tensor) -> Sample | None:
        return current.shared.find(x, self._terms(x)) if self._shares(current) else None

    def _shares(self, current: ForwardPass) -> bool:
        return self.share_inputs and current.known

    def _terms(self, x: Tensor) -> tuple[object, ...]:
        """What must be equal, besides the input, for layers to keep one copy."""
        return self.estimator, self.stream, autocast_dtype(x)

    def _grad_rows_hook(self, current: ForwardPass, leader: str, x: Tensor) -> GradRowsHook | None:
        if self.gradient_norms is None or not current.known:
            return None
        shape = self._by_example(current, x).shape[:-1]
        return self.gradient_norms.grad_rows_hook(current, leader, self.stream, shape)

    def _by_example(self, current: ForwardPass, x: Tensor) -> Tensor:
        return current.unflattened(self.stream, x) if self.flattened else x

    def scores_of(self, x: Float[Tensor, "*batch d"]) -> Float64[Tensor, " n"] | None:
        """The scores that an input is sampled by, 0 at padding; None (row norms) where no mask fits.

        They are the row norms, times what `gradient_norms` expects of dY if there are any.
        """
        current = None if self.context is None else self.context.current
        if current is None:
            return None
        x = self._by_example(current, x)
        if self.gradient_norms is not None and current.known:
            return self.gradient_norms.scores(current, self.path, self.stream, x)
        mask = current.mask(self.stream, x.shape[:-1])
        return None if mask is None else row_norms(x.reshape(-1, x.shape[-1])) * mask.reshape(-1)

    def samples(self, x: Tensor) -> bool:
        """Whether dW would be estimated for this input, rather than the ordinary path taken."""
        return (
            self.training
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and self.estimator.traits.family != "exact"
            and x.numel() >= max(self.min_elements, 1)
        )
