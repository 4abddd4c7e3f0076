"""`EstimatedWeightGrad`: what `ApproxLinear` and `ApproxConv1D` add to the linear layers that they derive from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from wtacrs.estimators import Estimator, WtacrsWarning, row_norms
from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.core.mask_floor import MASK_FLOOR, scores_with_floor
from wtacrs.estimators.core.scores import has_values
from wtacrs.estimators.core.sizing import exact_at, rows_kept, sized_for
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.mask_watch import MaskWatch
from wtacrs.integration.context.score_memory_protocol import NOT_COMPILED
from wtacrs.integration.context.shared_inputs import Sample, can_share
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.layers.compression import as_autocast, autocast_dtype, compressed
from wtacrs.integration.layers.dynamic_classes import set_class
from wtacrs.integration.layers.function import GradRowsHook, refuse_vmap, sampled_linear
from wtacrs.integration.layers.least_elements import is_too_small
from wtacrs.integration.score_memory.gradient_norms import GradientNorms
from wtacrs.integration.score_memory.seen_rows import SeenRows

MIN_ELEMENTS = 16_384
BudgetOf = Literal["all-rows", "live-rows"]
BUDGETS_OF: tuple[BudgetOf, ...] = ("all-rows", "live-rows")


def check_mask_floor(value: object) -> None:
    """Refuse what is no share.

    Raises:
        InputError: naming what is accepted.
    """
    if isinstance(value, bool) or not isinstance(value, float) or not 0.0 < value < 1.0:
        raise InputError(
            f"mask_floor={value!r} must be a float in (0, 1), the share that rows called padding keep"
        )


def checked_budget_of(value: object) -> BudgetOf:
    """One of `BUDGETS_OF`.

    Raises:
        InputError: naming them.
    """
    found = next((known for known in BUDGETS_OF if known == value), None)
    if found is None:
        raise InputError(f"budget_of={value!r} must be one of {', '.join(map(repr, BUDGETS_OF))}")
    return found


class Sampling(NamedTuple):
    """What the rows of an input are sampled by."""

    scores: Float64[Tensor, " n"]
    estimator: Estimator


_ATTRIBUTES = (
    "estimator",
    "min_elements",
    "min_rows",
    "mask_floor",
    "budget_of",
    "context",
    "usual_stream",
    "path",
    "gradient_norms",
    "share_inputs",
    "called",
)


class EstimatedWeightGrad(nn.Module):
    """Mixin of a linear layer: an estimator for its dW, what the layer knows of its forward pass, and the exact path.

    A converted class derives from it and from the stock class, in this order, names that class as `stock`, and calls
    `forward_sampled` in its `forward` where the layer `samples`. The mixin has no parameters and no state of its own: a
    layer becomes converted, and stock again, by a change of its class.

    The ordinary path is taken, and nothing beyond what it keeps is kept, in eval mode, without gradients, with a frozen,
    complex or parametrized weight, with the `exact` estimator or one that keeps every row, for sparse, nested and meta
    inputs, and for those of fewer than `min_elements` numbers or `min_rows` rows, where sampling saves next to nothing.

    A mask is a hint: rows that it calls padding keep the share `mask_floor` of the rows that are not certain to be kept
    (`scores_with_floor`), so that the estimate is unbiased whatever the mask says, and `MaskWatch` stops the use of a
    mask whose padding carries gradient. Estimators that do not go by the sizes of scores sample all rows alike, padding
    included. Non-finite inputs give a dW of NaN, as they do in the stock layer.

    Attributes:
        stock: the class that the layer is of unless it is converted.
        estimator: what compresses its input.
        min_elements: inputs with fewer numbers than this take the exact path.
        min_rows: inputs with fewer rows than this take the exact path.
        mask_floor: δ, the share of the budget that rows called padding keep.
        budget_of: what a budget that is a share is a share of: "all-rows" or "live-rows" (see `approximate_`).
        context: of the model, None for a layer that is used by itself, which draws from torch's default generator.
        usual_stream: the sequence that it is taken to read where the shape of its input fits two.
        path: its name in the model.
        gradient_norms: what its scores are remembered in, None for row norms.
        share_inputs: whether it keeps one copy with other layers that read the same input.
        called: whether its `forward` has run since it was converted, compiled or not.
        lean: whether it keeps the recipe of its input where it takes the ordinary path (see `lean_`).
    """

    stock: ClassVar[type[nn.Module]]
    weight: Tensor
    bias: Any
    estimator: Estimator
    min_elements: int
    min_rows: int = 0
    mask_floor: float = MASK_FLOOR
    budget_of: BudgetOf = "all-rows"
    context: ForwardContext | None = None
    usual_stream: Stream = "source"
    path: str = ""
    gradient_norms: GradientNorms | None = None
    share_inputs: bool = False
    called: bool = False
    lean: bool = False

    def forward_sampled(
        self, input: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"]
    ) -> Float[Tensor, "*batch m"]:
        """The forward of a layer that `samples`, by its weight as `[m, d]`.

        Raises:
            InputError: under `torch.func.vmap`.
        """
        if torch.compiler.is_compiling() and self.gradient_norms is None:
            current = None if self.context is None else self.context.current
            scores, estimator = self._sampling(current, input)
            return sampled_linear(input, weight, self.bias, estimator, scores=scores)
        return self._forward_eagerly(input, weight)

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _forward_eagerly(
        self, input: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"]
    ) -> Float[Tensor, "*batch m"]:
        refuse_vmap(input, weight)
        current = None if self.context is None else self.context.current
        if current is not None and can_share(input):
            return self._forward_within(current, input, weight)
        generator = None if current is None else current.generator(self.path, input.device)
        scores, estimator = self._sampling(current, input)
        return sampled_linear(input, weight, self.bias, estimator, scores=scores, generator=generator)

    def _forward_within(
        self, current: ForwardPass, input: Float[Tensor, "*batch d"], weight: Float[Tensor, "m d"]
    ) -> Float[Tensor, "*batch m"]:
        """The forward of a layer that knows its forward pass: one sample for all layers that read the input."""
        x = as_autocast(input)
        sample = self._find_shared(current, input)
        if sample is None:
            generator = current.generator(self.path, x.device)
            scores, estimator = self._sampling(current, x)
            kept = compressed(estimator, x, scores=scores, generator=generator)
            sample = Sample(kept, estimator, self.path, object(), self._seen_rows(current, x, generator))
            if self._shares(current):
                current.shared.add(input, self._terms(input), sample)
        if current.freed is not None and can_share(weight):  # tensors of torch.func have no storage
            current.freed.note(self.path, input, (*sample.kept, sample.seen or ()), autocast_dtype(input))
        return sampled_linear(
            x,
            weight,
            self.bias,
            sample.estimator,
            kept=sample.kept,
            on_grad=self._on_grad(current, sample, input),
            seen=sample.seen,
        )

    def takes_recipes(self) -> bool:
        """Whether the ordinary path keeps the recipe of its input where there is one."""
        return self.lean and self.training and not is_parametrized(self)

    def note_call(self) -> None:
        """Remember that something has called the layer, and not only read its weight."""
        self.called = True  # written and never read here: in compiled code it guards nothing

    def finds_shared(self, x: Tensor) -> bool:
        """Whether another layer has kept a copy of this very input already, which this one would share."""
        current = None if self.context is None else self.context.current
        return current is not None and can_share(x) and self._find_shared(current, x) is not None

    def scores_of(self, x: Float[Tensor, "*batch d"]) -> Float64[Tensor, " n"]:
        """The scores that an input is sampled by: row norms, times what `gradient_norms` expects of dY if there are any.

        Rows that a mask calls padding have the floor (see `scores_with_floor`).
        """
        return self._sampling(None if self.context is None else self.context.current, x).scores

    def estimator_for(self, x: Float[Tensor, "*batch d"]) -> Estimator:
        """The estimator with the number of rows that it keeps of an input, where `budget_of` says that of live rows."""
        if self.budget_of == "all-rows":
            return self.estimator
        return self._sampling(None if self.context is None else self.context.current, x).estimator

    def mask_of(self, x: Float[Tensor, "*batch d"]) -> Bool[Tensor, " n"] | None:
        """Which rows of an input are sampled as real ones in the forward pass under way; None if no mask is in use."""
        current = None if self.context is None else self.context.current
        if current is None or not self.estimator.traits.uses_scores:
            return None
        return self._mask(current, current.unflattened(x))

    def samples(self, x: Tensor) -> bool:
        """Whether dW would be estimated for this input, rather than the ordinary path taken."""
        return (
            self.training
            and torch.is_grad_enabled()
            and not is_parametrized(self)  # such a weight is computed at every access
            and self.weight.is_floating_point()
            and x.layout == torch.strided
            and not (x.is_nested or x.is_meta)
            and self.weight.requires_grad
            and self.estimator.traits.family != "exact"
            and not is_too_small(x, self.min_elements, self.min_rows)
            and not exact_at(self.estimator, x.numel() // x.shape[-1])
        )

    def _sampling(self, current: ForwardPass | None, x: Float[Tensor, "*batch d"]) -> Sampling:
        x = as_autocast(x.detach())  # a cast may overflow
        norms = row_norms(x.reshape(-1, x.shape[-1]))
        if current is None or not self.estimator.traits.uses_scores:
            return Sampling(norms, self.estimator)
        x = current.unflattened(x)
        shape = x.shape[:-1]
        mask = self._mask(current, x)
        scores = norms
        if self.gradient_norms is not None and current.known:
            stream = current.stream(shape, self.usual_stream)
            scores = self.gradient_norms.scores(current, self.path, stream, x, norms, mask)
        estimator = self.estimator
        if self.budget_of == "live-rows":
            estimator = self._sized_for_live_rows(current, shape, scores, mask)
        if mask is None:
            return Sampling(scores, estimator)
        kept = rows_kept(estimator, len(norms))
        return Sampling(
            scores_with_floor(torch.where(mask, scores, norms), mask, kept, self.mask_floor), estimator
        )

    def _sized_for_live_rows(
        self,
        current: ForwardPass,
        shape: torch.Size,
        scores: Float64[Tensor, " n"],
        mask: Bool[Tensor, " n"] | None,
    ) -> Estimator:
        """The estimator sized for the rows of positive score that no mask calls padding, where they can be counted.

        Once in a pass for a layer and a shape: checkpointing compares shapes, and may find more masks when it runs the
        layer again.
        """
        if torch.compiler.is_compiling():
            return self.estimator
        key = (self.path, shape)
        if key not in current.live:
            current.live[key] = self._live_rows(current, shape, scores, mask)
        live = current.live[key]
        return self.estimator if live in (0, len(scores)) else sized_for(self.estimator, live)

    def _live_rows(
        self,
        current: ForwardPass,
        shape: torch.Size,
        scores: Float64[Tensor, " n"],
        mask: Bool[Tensor, " n"] | None,
    ) -> int:
        if has_values(scores):
            return int(((scores > 0) if mask is None else mask & (scores > 0)).sum())
        counted = None if mask is None else current.live_rows(shape)
        if mask is not None and counted is None:
            self._tell_uncounted(mask)
        return len(scores) if counted is None else counted

    def _tell_uncounted(self, mask: Tensor) -> None:
        if self.context is None or self.context.told_uncounted:
            return
        self.context.told_uncounted = True
        warnings.warn(
            f"budget_of='live-rows': a mask on {mask.device} is not counted, since that would wait for the device: all "
            "rows count as live; state the mask on the CPU with ForwardContext.given",
            WtacrsWarning,
            stacklevel=2,
        )

    def _mask(
        self, current: ForwardPass, x: Float[Tensor, "*batch d"], leader: str | None = None
    ) -> Bool[Tensor, " n"] | None:
        """The mask of the rows that the layer, or the one that drew for it, samples by; None where none is in use."""
        mask = current.mask(x.shape[:-1], x.device)
        if mask is None:
            return None
        mask = mask.reshape(-1)
        compiled = torch.compiler.is_compiling() or self.context is None
        misled = None if compiled else self.context.watch.misled(leader or self.path)  # type: ignore[union-attr]
        if misled is None:
            return mask
        return None if misled.device.type == "cpu" else mask | misled

    def _find_shared(self, current: ForwardPass, x: Tensor) -> Sample | None:
        return current.shared.find(x, self._terms(x)) if self._shares(current) else None

    def _shares(self, current: ForwardPass) -> bool:
        return self.share_inputs and current.known

    def _terms(self, x: Tensor) -> tuple[object, ...]:
        """What must be equal, besides the input, for layers to keep one copy."""
        return self.estimator, self.mask_floor, self.budget_of, autocast_dtype(x)

    def _seen_rows(
        self, current: ForwardPass, x: Float[Tensor, "*batch d"], generator: torch.Generator
    ) -> SeenRows | None:
        """What the memory of gradient norms wants to see of the input in the backward pass, on top of the sample.

        In a pass of which nothing is known too: checkpointing compares what a layer saves when it runs again.
        """
        if self.gradient_norms is None or not self.estimator.traits.uses_scores:
            return None
        x = current.unflattened(x.detach())
        return self.gradient_norms.seen_rows(x, self._mask(current, x), generator)

    def _on_grad(self, current: ForwardPass, sample: Sample, x: Tensor) -> GradRowsHook | None:
        """What looks at dY: a memory of gradient norms, and the watch over the mask in use."""
        assert self.context is not None
        leader = sample.leader
        shape = current.unflattened(x).shape[:-1]
        hooks: list[GradRowsHook] = []
        if self.gradient_norms is not None and current.known:
            stream = current.stream(shape, self.usual_stream)
            hooks.append(self.gradient_norms.grad_rows_hook(current, leader, stream, shape, sample.call))
        watch: MaskWatch = self.context.watch
        if watch.on_gradient != "ignore" and self.estimator.traits.uses_scores:
            mask = self._mask(current, current.unflattened(x), leader)
            if mask is not None:
                hooks.append(lambda dy, _: watch.observe(leader, mask, dy))
        return partial(_all, hooks) if len(hooks) > 1 else next(iter(hooks), None)


def _all(hooks: Sequence[GradRowsHook], dy: Tensor, seen: SeenRows | None) -> None:
    for hook in hooks:
        hook(dy, seen)


def make_stock(layer: EstimatedWeightGrad) -> None:
    """Give up the estimate: the class that the layer was of, without our attributes."""
    for attribute in _ATTRIBUTES:
        layer.__dict__.pop(attribute, None)
    set_class(layer, layer.stock)
