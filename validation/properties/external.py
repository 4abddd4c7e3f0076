"""The properties asked of external products and linear layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wtacrs.validation.problems import Problem
from wtacrs.validation.properties.external_estimators import (
    ExternalProduct,
    Step,
    seeded,
    step,
)
from wtacrs.validation.properties.means import LAYER_MEAN_PROPERTIES, MEAN_PROPERTIES
from wtacrs.validation.properties.mechanics import inputs_not_modified
from wtacrs.validation.properties.property import (
    Check,
    CheckContext,
    NotApplicable,
    Property,
    PropertyBroken,
    estimate,
    register_in,
    require,
)
from wtacrs.validation.properties.saved_for_backward import bytes_for_backward

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

EXTERNAL_PROPERTIES: dict[str, Property] = {}


def register_property(name: str) -> Callable[[Check], Check]:
    """Enter a check into the list of properties of external code."""
    return register_in(EXTERNAL_PROPERTIES, name)


@register_property("shape and dtype")
def shape_and_dtype(context: CheckContext) -> str:
    """The estimate is `[m, d]`, finite and of the dtype of the input; single precision must work."""
    works, raises = [], []
    for dtype in _DTYPES:
        problem = context.problem("gaussian", context.least.n, dtype=dtype)
        short = str(dtype).removeprefix("torch.")
        try:
            got = estimate(context.estimator, problem, generator=context.stream())
        except Exception as error:
            if dtype == torch.float32:
                raise
            raises.append(f"{short} raises {type(error).__name__}")
            continue
        expected = [context.least.m, context.least.d]
        require(list(got.shape) == expected, f"{short}: shape {list(got.shape)}, expected [m, d] = {expected}")
        require(got.dtype == dtype, f"{short} in, {str(got.dtype).removeprefix('torch.')} out")
        require(bool(got.isfinite().all()), f"{short}: NaN or infinite values")
        works.append(short)
    turned = isinstance(context.estimator, ExternalProduct) and context.estimator.transposed
    told = ["returns [d, m] = xᵀdy, read as its transpose"] if turned else []
    return "; ".join([f"works in {', '.join(works)}", *raises, *told])


register_property("inputs not modified")(inputs_not_modified)


@register_property("the draw advances")
def draw_advances(context: CheckContext) -> str:
    """Successive calls, and successive steps of one layer, draw anew, unless the product is exact."""
    x, dy = context.problem("gaussian", context.least.n)
    exact = dy.double().T @ x.double()
    with seeded(context.seed):
        drawn = [call() for call in [_caller(context, x, dy)] * 8]
    varies = any(not torch.equal(drawn[0], other) for other in drawn[1:])
    error = float((drawn[0].double() - exact).norm() / exact.norm())
    require(
        varies or error < 1e-5, f"eight successive draws are equal, {error:.2g} ‖G‖ away from the exact product"
    )
    return "eight successive draws differ" if varies else "nothing is drawn: the product is exact"


@register_property("the draw is reproducible")
def draw_reproducible(context: CheckContext) -> str:
    """The same seed gives the same draw: `torch.manual_seed`, or the generator that is given."""
    x, dy = context.problem("gaussian", context.least.n)
    drawn = []
    for _ in range(2):
        with seeded(context.seed):
            drawn.append(_caller(context, x, dy)())
    external = context.estimator
    given = isinstance(external, ExternalProduct) and external.form == "generator"
    source = "generators" if given else "torch.manual_seed(…)"
    require(torch.equal(*drawn), f"two draws under equal {source} differ: it draws from another source")
    if isinstance(external, ExternalProduct) and given:
        with seeded(context.seed):
            before = torch.get_rng_state()
            external.call(x, dy, generator=context.stream())
            require(torch.equal(before, torch.get_rng_state()), "draws beside the generator that it is given")
    return "same generator, same draw" if given else "same torch.manual_seed, same draw"


def _caller(context: CheckContext, x: Tensor, dy: Tensor) -> Callable[[], Tensor]:
    """Successive draws: calls of a product, steps of one layer."""
    external = context.estimator
    if isinstance(external, ExternalProduct):
        return lambda: external.product(x, dy).detach()
    module = context.layer.module(x.shape[1], dy.shape[1], x.dtype)
    return lambda: step(module, x, dy).dw.clone()


@register_property("awkward sizes")
def awkward_sizes(context: CheckContext) -> str:
    """One row works; what no rows do is reported."""
    got = estimate(context.estimator, context.problem("gaussian", 1), generator=context.stream())
    require(bool(got.isfinite().all()), "one row: NaN or infinite values")
    try:
        empty = estimate(context.estimator, context.problem("gaussian", 0), generator=context.stream())
    except Exception as error:
        return f"one row works; no rows raise {type(error).__name__}"
    require(not bool((empty != 0).any()), "no rows: the estimate is not zero")
    return "one row and no rows work"


@register_property("zero scores")
def zero_scores(context: CheckContext) -> str:
    """Rows that are all zero, in x or in dy, give zero: every score is 0 and 0/0 lies near."""
    x, dy = context.problem("gaussian", context.least.n)
    for what, problem in (("x", Problem(0 * x, dy)), ("dy", Problem(x, 0 * dy))):
        try:
            got = estimate(context.estimator, problem, generator=context.stream())
        except Exception as error:
            raise PropertyBroken(f"{what} = 0 raises {type(error).__name__}: {error}") from error
        require(bool(got.isfinite().all()), f"{what} = 0: NaN or infinite values")
        require(not bool(got.any()), f"{what} = 0: the estimate is not zero")
    return "x = 0 and dy = 0 give zero"


@register_property("output is exact")
def output_is_exact(context: CheckContext) -> str:
    """The output for a matrix x is `x Wᵀ + b`."""
    x, dy = context.problem("gaussian", context.least.n)
    module, found = _one_step(context, x, dy)
    exact = x @ _weight(context).T
    bias = getattr(module, "bias", None)
    return _compare(context, found.y, exact if bias is None else exact + bias.detach(), "x Wᵀ + b")


@register_property("input gradient")
def input_gradient(context: CheckContext) -> str:
    """dX is `dY W`; where it is drawn, its mean is tested together with dW's."""
    x, dy = context.problem("gaussian", context.least.n)
    found = _one_step(context, x, dy)[1]
    require(found.dx is not None, "the input receives no gradient")
    if "dX" in context.drawn_gradients:
        return "drawn: its mean is tested beside that of dW"
    assert found.dx is not None
    return _compare(context, found.dx, dy @ _weight(context), "dY W")


@register_property("bias gradient")
def bias_gradient(context: CheckContext) -> str:
    """db is `Σ dY`; where it is drawn, its mean is tested together with dW's."""
    x, dy = context.problem("gaussian", context.least.n)
    module, found = _one_step(context, x, dy)
    if getattr(module, "bias", None) is None:
        raise NotApplicable("no bias")
    require(found.db is not None, "the bias receives no gradient")
    if "db" in context.drawn_gradients:
        return "drawn: its mean is tested beside that of dW"
    assert found.db is not None
    return _compare(context, found.db, dy.sum(0), "Σ dY")


def _weight(context: CheckContext) -> Tensor:
    return context.layer.weight(context.least.d, context.least.m, context.precision)


def _one_step(context: CheckContext, x: Tensor, dy: Tensor) -> tuple[torch.nn.Module, Step]:
    module = context.layer.module(x.shape[1], dy.shape[1], x.dtype)
    with seeded(context.seed):
        return module, step(module, x, dy)


def _compare(context: CheckContext, found: Tensor, exact: Tensor, formula: str) -> str:
    """Equal up to the rounding of the precision that the layer computes in."""
    error = float((found - exact).norm() / exact.norm())
    accepted = context.accepted_rounding
    require(error <= accepted, f"differs from {formula} by {error:.2g} of its norm, accepted {accepted:.1g}")
    return f"{formula} to {error:.1e} of its norm"


@register_property("saved bytes")
def saved_bytes(context: CheckContext) -> str:
    """Reported, not judged: bytes that one step keeps for its backward pass, against the exact layer's."""
    n, d, m = 256, 64, 32
    x, dy = context.problem("gaussian", n, d, m, dtype=torch.float32)
    with seeded(context.seed):
        kept = bytes_for_backward(context.layer.module(d, m, x.dtype), x)
    del dy
    exact = x.numel() * x.element_size()
    return f"keeps {kept} bytes, {kept / exact:.2f} of the exact layer's {exact} (n={n}, d={d}, fp32)"


EXTERNAL_PROPERTIES.update(LAYER_MEAN_PROPERTIES)
EXTERNAL_PROPERTIES.update(MEAN_PROPERTIES)
