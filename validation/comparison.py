"""Estimators side by side on real layers: bias, variance, bytes and multiplications."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, joint_norms, make, row_norms, saved_bytes, spec
from wtacrs.estimators.scores import check_rows_agree
from wtacrs.validation.monte_carlo import monte_carlo
from wtacrs.validation.results import ComparisonRow

ScoreKind = Literal["oracle", "row norms"]
SCORE_KINDS: tuple[ScoreKind, ...] = ("oracle", "row norms")


@runtime_checkable
class LayerLike(Protocol):
    """One layer's captured activations, such as `captures.LayerCapture`; `mask` is False at padding rows."""

    @property
    def x(self) -> Float[Tensor, "n d"]:
        """Input rows."""

    @property
    def dy(self) -> Float[Tensor, "n m"]:
        """Output gradients."""

    @property
    def mask(self) -> Bool[Tensor, " n"]:
        """Rows that are no padding."""


class ZeroProduct(InputError):
    """The exact product is zero, so that nothing can be expressed relative to it."""


def layer_scores(
    kind: ScoreKind, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], mask: Bool[Tensor, " n"] | None = None
) -> Float64[Tensor, " n"]:
    """Scores of one kind, zero at masked rows: "oracle" `‖x_i‖‖y_i‖`, "row norms" `‖x_i‖`.

    Raises:
        InputError: on another kind or a mask of another shape or dtype.
    """
    if kind not in SCORE_KINDS:
        raise InputError(f"scores={kind!r} must be one of {', '.join(map(repr, SCORE_KINDS))}")
    check_rows_agree(x, dy)
    scores = joint_norms(x, dy) if kind == "oracle" else row_norms(x)
    if mask is None:
        return scores
    if mask.shape != x.shape[:1] or mask.dtype != torch.bool:
        raise InputError(f"mask must be bool of shape [{x.shape[0]}], got {mask.dtype} {list(mask.shape)}")
    return torch.where(mask, scores, 0.0)


def exact_product(layer: str, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float64[Tensor, "m d"]:
    """`dy.T @ x` in fp64, fit to be the unit of relative moments.

    Raises:
        ZeroProduct: if it is zero.
        InputError: if it is not finite.
    """
    check_rows_agree(x, dy)
    product = dy.double().T @ x.double()
    size = float(product.norm())
    if not math.isfinite(size):
        raise InputError(f"layer {layer!r}: x or dy holds NaN or infinite values")
    if size == 0.0:
        raise ZeroProduct(f"layer {layer!r}: the exact product is zero, nothing can be measured relative to it")
    return product


class _Moments(NamedTuple):
    bias_squared: float
    variance: float
    mse: float
    draws: int | None = None
    bias_squared_error: float | None = None
    variance_error: float | None = None


def _moments(
    estimator: Estimator,
    x: Tensor,
    dy: Tensor,
    scores: Tensor,
    exact: Tensor,
    draws: int,
    generator: torch.Generator | None,
) -> _Moments:
    try:
        variance = float(estimator.variance(x, dy, scores=scores))
        bias_squared = float((estimator.expectation(x, dy, scores=scores) - exact).square().sum())
        return _Moments(bias_squared, variance, bias_squared + variance)
    except NotImplementedError:  # NoClosedForm, or a row design without moments
        found = monte_carlo(estimator, x, dy, draws=draws, scores=scores, generator=generator, target=exact)
    return _Moments(
        found.bias_squared, found.variance, found.mse, draws, found.bias_squared_error, found.variance_error
    )


@torch.no_grad()
def compare_layer(
    layer: str,
    x: Float[Tensor, "n d"],
    dy: Float[Tensor, "n m"],
    estimators: Iterable[Estimator | str],
    *,
    mask: Bool[Tensor, " n"] | None = None,
    scores: Sequence[ScoreKind] = SCORE_KINDS,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> list[ComparisonRow]:
    """Moments relative to ‖G‖², stored bytes and multiplications of every estimator, for every kind of scores.

    An estimator that ignores scores is listed once, under the first kind.

    Args:
        layer: name for the table and the messages.
        x: input rows in the dtype they are stored in.
        dy: output gradients.
        estimators: specs or estimators.
        mask: False at padding rows, which get score 0 and are never sampled.
        scores: kinds of scores.
        draws: Monte Carlo draws where there is no closed form, ≥ 3.
        generator: source of the draws and of the compression whose bytes are counted.

    Raises:
        ZeroProduct: if the exact product is zero.
        InputError: on unusable input or specs.
    """
    exact = exact_product(layer, x, dy)
    unit = float(exact.square().sum())
    ready = {kind: layer_scores(kind, x, dy, mask) for kind in scores}
    if not ready:
        raise InputError("scores must name at least one kind of scores")
    n, d, m = *x.shape, dy.shape[1]
    rows = []
    for estimator in map(make, estimators):
        for kind in list(ready) if estimator.traits.uses_scores else list(ready)[:1]:
            found = _moments(estimator, x, dy, ready[kind], exact, draws, generator)
            saved = estimator.compress(x, scores=ready[kind], generator=generator)
            rows.append(
                ComparisonRow(
                    layer=layer,
                    estimator=spec(estimator),
                    budget=budget_of(estimator),
                    scores=kind,
                    n=n,
                    d=d,
                    m=m,
                    bias_squared=found.bias_squared / unit,
                    variance=found.variance / unit,
                    mse=found.mse / unit,
                    method="closed form" if found.draws is None else "monte carlo",
                    draws=found.draws,
                    bias_squared_error=_relative(found.bias_squared_error, unit),
                    variance_error=_relative(found.variance_error, unit),
                    saved_bytes=saved_bytes(saved),
                    exact_bytes=x.numel() * x.element_size(),
                    multiplications=_multiplications(estimator, n, d, m),
                    exact_multiplications=n * d * m,
                )
            )
    return rows


def budget_of(estimator: Estimator) -> int | float | None:
    """The budget of the estimator, or of the first one that it wraps; None if there is none."""
    own: int | float | None = getattr(estimator, "budget", None)
    inner = (getattr(estimator, field.name) for field in dataclasses.fields(estimator))  # type: ignore[arg-type]
    wrapped = (budget_of(value) for value in inner if isinstance(value, Estimator))
    return own if own is not None else next((budget for budget in wrapped if budget is not None), None)


def _multiplications(estimator: Estimator, n: int, d: int, m: int) -> int | None:
    try:
        return estimator.multiplications(n, d, m)
    except NotImplementedError:  # an outsider need not state them
        return None


def _relative(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def median_multiplications(rows: Iterable[ComparisonRow]) -> float | None:
    """Median of the multiplications relative to exact, over the rows that state them; None if none does."""
    stated = [share for row in rows if (share := row.relative_multiplications) is not None]
    return median(stated) if stated else None


def at_budgets(estimators: Iterable[Estimator | str], budgets: Sequence[int | float] | None) -> list[Estimator]:
    """Every estimator at every budget; one without a `budget` field appears once, repetitions are dropped.

    Raises:
        InputError: on an unusable spec or budget.
    """
    expanded: dict[Estimator, None] = {}
    for estimator in map(make, estimators):
        has_budget = any(field.name == "budget" for field in dataclasses.fields(estimator))  # type: ignore[arg-type]
        choices = [make(estimator, budget=b) for b in budgets] if budgets and has_budget else [estimator]
        expanded.update(dict.fromkeys(choices))
    return list(expanded)


def compare(
    captures: Mapping[str, LayerLike],
    estimators: Iterable[Estimator | str],
    *,
    budgets: Sequence[int | float] | None = None,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = SCORE_KINDS,
    draws: int = 1000,
    generator: torch.Generator | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> list[ComparisonRow]:
    """`compare_layer` over captured layers × estimators × budgets.

    Args:
        captures: layer name to x, dy and mask.
        estimators: specs or estimators.
        budgets: override the `budget` of every estimator that has one.
        layers: which layers; all if None.
        scores: kinds of scores.
        draws: Monte Carlo draws where there is no closed form.
        generator: source of randomness.
        progress: called after each layer with its name, the number of layers done, and their total.
        skipped: called with the name and the reason of a layer whose exact product is zero; a warning if None.

    Raises:
        InputError: on an unknown layer, unusable input or specs.
    """
    chosen = list(captures) if layers is None else list(layers)
    for layer in chosen:
        if layer not in captures:
            raise InputError(f"layer {layer!r} is not among the captured layers: {', '.join(captures)}")
    expanded = at_budgets(estimators, budgets)
    rows: list[ComparisonRow] = []
    for done, layer in enumerate(chosen, start=1):
        capture = captures[layer]
        try:
            rows += compare_layer(
                layer,
                capture.x,
                capture.dy,
                expanded,
                mask=capture.mask,
                scores=scores,
                draws=draws,
                generator=generator,
            )
        except ZeroProduct as reason:
            if skipped is None:
                warnings.warn(f"skipped: {reason}", stacklevel=2)
            else:
                skipped(layer, str(reason))
        if progress is not None:
            progress(layer, done, len(chosen))
    return rows
