"""The moments of an estimator: in closed form where it has one, else by Monte Carlo; the result says which.

`closed_form` is the one place where a missing closed form is caught. It catches `NoClosedForm` and nothing wider: a
kernel that torch does not have on a device, which is a `NotImplementedError`, is an error and not a reason to sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, NoClosedForm
from wtacrs.validation.statistics.monte_carlo import estimates, streaming_moments

Method = Literal["closed form", "monte carlo"]
ValueT = TypeVar("ValueT")


class Product(NamedTuple):
    """One of several products that are estimated independently and added up; `scores` as in `Estimator.compress`."""

    x: Float[Tensor, "n d"]
    dy: Float[Tensor, "n m"]
    scores: Shaped[Tensor, " n"] | None = None


class Moments(NamedTuple):
    """Moments of one estimate; `*_error` are standard errors, None where `method` is "closed form".

    Attributes:
        method: how they were found.
        mean: `E Ĝ`, or the average over the draws.
        bias_squared: `‖E Ĝ − target‖²_F`; where it was measured an unbiased estimate, which may be negative.
        variance: total variance `E‖Ĝ − EĜ‖²_F`.
        mse: `E‖Ĝ − target‖²_F`.
        inner: `⟨E Ĝ, target⟩`.
        draws: number of draws, None for a closed form.
    """

    method: Method
    mean: Float64[Tensor, "m d"]
    bias_squared: float
    variance: float
    mse: float
    inner: float
    draws: int | None = None
    bias_squared_error: float | None = None
    variance_error: float | None = None
    mse_error: float | None = None
    inner_error: float | None = None


def closed_form(moment: Callable[[], ValueT]) -> ValueT | None:
    """What `moment()` returns, None if it raises `NoClosedForm`; every other exception is passed on.

    >>> from wtacrs.estimators import make
    >>> import torch
    >>> x = torch.ones(4, 2)
    >>> closed_form(lambda: float(make("crs(budget=2)").variance(x, x)))
    0.0
    >>> closed_form(lambda: make("systematic(budget=2)").variance(x, x)) is None
    True
    """
    try:
        return moment()
    except NoClosedForm:
        return None


def moments(
    estimator: Estimator,
    products: Sequence[Product],
    *,
    target: Float64[Tensor, "m d"],
    draws: int,
    generator: torch.Generator | None = None,
    mean_is_target: bool = False,
) -> Moments:
    """Moments of the sum of independent estimates of `dy.T @ x`, one for every product; usually there is one.

    Args:
        estimator: of every product.
        products: at least one, all of one `d` and one `m`.
        target: what bias and error are measured against, the sum of the exact products.
        draws: of every estimate if there is no closed form, ≥ 3.
        generator: source of these draws; torch's default generator if None.
        mean_is_target: the estimate is known to be unbiased here. Then only the variance needs a closed form, and a
            bias that was measured, which is noise, is left out.

    Raises:
        InputError: without a product, and on fewer than 3 draws where there is no closed form.
    """
    if not products:
        raise InputError("products must hold at least one product")
    known = closed_form(lambda: _known(estimator, products, target, mean_is_target))
    if known is not None:
        return known
    found = streaming_moments(_sums(estimator, products, draws, generator), target, draws)
    return Moments(
        method="monte carlo",
        mean=target if mean_is_target else found.mean,
        bias_squared=0.0 if mean_is_target else found.bias_squared,
        variance=found.variance,
        mse=found.mse,
        inner=found.inner,
        draws=draws,
        bias_squared_error=0.0 if mean_is_target else found.bias_squared_error,
        variance_error=found.variance_error,
        mse_error=found.mse_error,
        inner_error=found.inner_error,
    )


def _known(
    estimator: Estimator, products: Sequence[Product], target: Float64[Tensor, "m d"], mean_is_target: bool
) -> Moments:
    refuse_inherited_forms(estimator)
    variance = sum(float(estimator.variance(p.x, p.dy, scores=p.scores)) for p in products)
    mean = target if mean_is_target else _mean(estimator, products)
    bias_squared = 0.0 if mean_is_target else float((mean - target).square().sum())
    return Moments(
        method="closed form",
        mean=mean,
        bias_squared=bias_squared,
        variance=variance,
        mse=bias_squared + variance,
        inner=float((mean * target).sum()),
    )


_BEHAVIOUR = ("plan", "draw", "keep", "compress", "contract")
_FORMS = ("variance", "moments")
_OWN = Estimator.__module__.partition(".")[0]


def refuse_inherited_forms(estimator: Estimator) -> None:
    """Refuse a variance that was inherited by a class which draws, keeps or multiplies in another way.

    A subclass of somebody else's that changes what is drawn has the formulas of its base, which say nothing of it. What
    this package derives from its own classes is tested there.

    Raises:
        NoClosedForm: naming both classes.
    """
    drawn, form = (_latest(type(estimator), names) for names in (_BEHAVIOUR, _FORMS))
    if drawn is None or form is None or drawn.__module__.partition(".")[0] == _OWN:
        return
    if drawn is not form and issubclass(drawn, form):
        raise NoClosedForm(
            f"{drawn.__name__} does not draw as {form.__name__} does, whose variance it inherits; use Monte Carlo"
        )


def _latest(cls: type, names: Sequence[str]) -> type | None:
    """The most derived class that defines one of these methods."""
    return next((base for base in cls.__mro__ if any(name in vars(base) for name in names)), None)


def _mean(estimator: Estimator, products: Sequence[Product]) -> Float64[Tensor, "m d"]:
    first, *others = products
    mean = estimator.expectation(first.x, first.dy, scores=first.scores)
    for other in others:
        mean = mean + estimator.expectation(other.x, other.dy, scores=other.scores)
    return mean


def _sums(
    estimator: Estimator, products: Sequence[Product], draws: int, generator: torch.Generator | None
) -> Iterator[Float64[Tensor, "m d"]]:
    streams = [estimates(estimator, p.x, p.dy, draws, p.scores, generator) for p in products]
    for drawn in zip(*streams, strict=True):
        yield drawn[0] if len(drawn) == 1 else torch.stack(drawn).sum(0)
