"""The properties asked of external products and linear layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from wtacrs.estimators import joint_norms
from wtacrs.validation.problems import Problem
from wtacrs.validation.properties.external_estimators import (
    ExternalLinear,
    ExternalProduct,
    Step,
    TrainedLinear,
    seeded,
    step,
)
from wtacrs.validation.properties.mean_report import MeanTracker
from wtacrs.validation.properties.mechanics import inputs_not_modified
from wtacrs.validation.properties.property import (
    CheckContext,
    NotApplicable,
    Property,
    PropertyBroken,
    estimate,
    require,
)
from wtacrs.validation.properties.saved_for_backward import bytes_for_backward
from wtacrs.validation.statistics.significance import mean_test

External = ExternalProduct | ExternalLinear

# properties that test a mean: those of products and layers, and those of layers alone
_MEANS, _LAYER_MEANS = 4, 3

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_ROWS = 64
_DRAWS = 400
# with fewer rows a sampler would hardly ever meet the rows beside the dominating one
_MANY_ROWS = 4096
_MANY_DRAWS = 600
_SIDE_MASS = 9e-4
# the rows beside the dominating one are met as rarely as a Poisson variable of mean 660 at k = 0.3n, where the tail of
# the t statistic is above Student's by less than this factor
_RARE = 100.0


def mean_tests(estimator: External) -> int:
    """How many tests of the mean one run makes."""
    return _MEANS + (_LAYER_MEANS if isinstance(estimator, ExternalLinear) else 0)


class ExternalCheckContext(CheckContext):
    """External code under examination, and problems in the widest precision that it works in."""

    @property
    def external(self) -> External:
        """The product or layer under examination."""
        assert isinstance(self.estimator, (ExternalProduct, ExternalLinear))
        return self.estimator

    @property
    def linear(self) -> ExternalLinear:
        """The linear layer under examination.

        Raises:
            NotApplicable: if it is a product.
        """
        if not isinstance(self.estimator, ExternalLinear):
            raise NotApplicable("a product, no layer")
        return self.estimator

    def problem(
        self, name: str, n: int, d: int = 4, m: int = 3, dtype: torch.dtype | None = None, offset: int = 0
    ) -> Problem:
        """A problem of a named family."""
        return super().problem(name, n, d, m, dtype or self.external.precision, offset)

    def dominated(self) -> tuple[Problem, Problem]:
        """One row holds 1 − 9e-4 of the mass, the others are alike; and these others alone.

        The dominating row lies in the first column of x and the others in the rest, so that the estimate shows
        the two apart.
        """
        precision = self.external.precision
        x, dy = super().problem("coherent", _MANY_ROWS, dtype=torch.float64)
        x[:, 0] = 0.0
        heavy = _MANY_ROWS // 2
        side = joint_norms(x, dy).sum() - joint_norms(x, dy)[heavy]
        x[heavy] = 0.0
        x[heavy, 0] = side * (1 - _SIDE_MASS) / _SIDE_MASS / dy[heavy].norm()
        others = torch.arange(_MANY_ROWS) != heavy
        whole = Problem(x.to(precision), dy.to(precision))
        return whole, Problem(whole.x[others], whole.dy[others])

    def judge(
        self,
        estimator: External,
        problem: Problem,
        *,
        draws: int = _DRAWS,
        level: float | None = None,
        part: Problem | None = None,
        part_name: str = "",
    ) -> str:
        """Test the mean; returns the report on it.

        Raises:
            PropertyBroken: if it is not the exact product.
        """
        tracker = MeanTracker(estimator, problem, part, part_name)
        level = self.level if level is None else level
        test = mean_test(tracker, *problem, draws=draws, level=level, generator=self.stream(1))
        report = tracker.report()
        if not test.rejected:
            return f"{report}; p = {test.p_value:.2g} in {draws} draws"
        hint = _unweighted(tracker, estimator, problem.x.shape[0])
        raise PropertyBroken(f"{report}{hint}; p = {test.p_value:.2g} in {draws} draws, level {level:.1g}")


def _unweighted(tracker: MeanTracker, estimator: External, n: int) -> str:
    """What a mean below the exact product may come from."""
    scale, error = tracker.scale
    if tracker.beside is not None:
        return ""
    k = estimator.rows(n) if isinstance(estimator, ExternalProduct) else None
    if k is not None and abs(scale - k / n) <= 4 * error:
        return f" (rows kept without their weights give k/n = {k / n:.3g})"
    if k is None and scale - 4 * error > 0.0 and scale + 4 * error < 0.95:
        return " (rows kept without their weights would give k/n)"
    return ""


Check = Callable[[ExternalCheckContext], str]
EXTERNAL_PROPERTIES: dict[str, Property] = {}


def register_property(name: str) -> Callable[[Check], Check]:
    """Enter a check into the list of properties of external code."""

    def enter(check: Check) -> Check:
        EXTERNAL_PROPERTIES[name] = Property(name, (check.__doc__ or "").strip().splitlines()[0], check)  # type: ignore[arg-type]
        return check

    return enter


@register_property("shape and dtype")
def shape_and_dtype(context: ExternalCheckContext) -> str:
    """The estimate is `[m, d]`, finite and of the dtype of the input; single precision must work."""
    works, raises = [], []
    for dtype in _DTYPES:
        problem = context.problem("gaussian", _ROWS, dtype=dtype)
        short = str(dtype).removeprefix("torch.")
        try:
            got = estimate(context.external, problem, generator=context.stream())
        except Exception as error:
            if dtype == torch.float32:
                raise
            raises.append(f"{short} raises {type(error).__name__}")
            continue
        require(list(got.shape) == [3, 4], f"{short}: shape {list(got.shape)}, expected [m, d] = [3, 4]")
        require(got.dtype == dtype, f"{short} in, {str(got.dtype).removeprefix('torch.')} out")
        require(bool(got.isfinite().all()), f"{short}: NaN or infinite values")
        works.append(short)
    turned = isinstance(context.external, ExternalProduct) and context.external.transposed
    told = ["returns [d, m] = xᵀdy, read as its transpose"] if turned else []
    return "; ".join([f"works in {', '.join(works)}", *raises, *told])


register_property("inputs not modified")(inputs_not_modified)


@register_property("the draw advances")
def draw_advances(context: ExternalCheckContext) -> str:
    """Successive calls, and successive steps of one layer, draw anew, unless the product is exact."""
    x, dy = context.problem("gaussian", _ROWS)
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
def draw_reproducible(context: ExternalCheckContext) -> str:
    """The same seed gives the same draw: `torch.manual_seed`, or the generator that is given."""
    x, dy = context.problem("gaussian", _ROWS)
    drawn = []
    for _ in range(2):
        with seeded(context.seed):
            drawn.append(_caller(context, x, dy)())
    external = context.external
    given = isinstance(external, ExternalProduct) and external.form == "generator"
    source = "generators" if given else "torch.manual_seed(…)"
    require(torch.equal(*drawn), f"two draws under equal {source} differ: it draws from another source")
    if isinstance(external, ExternalProduct) and given:
        with seeded(context.seed):
            before = torch.get_rng_state()
            external.call(x, dy, generator=context.stream())
            require(torch.equal(before, torch.get_rng_state()), "draws beside the generator that it is given")
    return "same generator, same draw" if given else "same torch.manual_seed, same draw"


def _caller(context: ExternalCheckContext, x: Tensor, dy: Tensor) -> Callable[[], Tensor]:
    """Successive draws: calls of a product, steps of one layer."""
    external = context.external
    if isinstance(external, ExternalProduct):
        return lambda: external.product(x, dy).detach()
    module = external.module(x.shape[1], dy.shape[1], x.dtype)
    return lambda: step(module, x, dy).dw.clone()


@register_property("awkward sizes")
def awkward_sizes(context: ExternalCheckContext) -> str:
    """One row works; what no rows do is reported."""
    got = estimate(context.external, context.problem("gaussian", 1), generator=context.stream())
    require(bool(got.isfinite().all()), "one row: NaN or infinite values")
    try:
        empty = estimate(context.external, context.problem("gaussian", 0), generator=context.stream())
    except Exception as error:
        return f"one row works; no rows raise {type(error).__name__}"
    require(not bool((empty != 0).any()), "no rows: the estimate is not zero")
    return "one row and no rows work"


@register_property("zero scores")
def zero_scores(context: ExternalCheckContext) -> str:
    """Rows that are all zero, in x or in dy, give zero: every score is 0 and 0/0 lies near."""
    x, dy = context.problem("gaussian", _ROWS)
    for what, problem in (("x", Problem(0 * x, dy)), ("dy", Problem(x, 0 * dy))):
        got = estimate(context.external, problem, generator=context.stream())
        require(bool(got.isfinite().all()), f"{what} = 0: NaN or infinite values")
        require(not bool(got.any()), f"{what} = 0: the estimate is not zero")
    return "x = 0 and dy = 0 give zero"


@register_property("forward")
def forward(context: ExternalCheckContext) -> str:
    """The output is `x Wᵀ + b`."""
    x, dy = context.problem("gaussian", _ROWS)
    module, found = _one_step(context, x, dy)
    exact = x @ module.weight.detach().T  # type: ignore[operator]
    bias = getattr(module, "bias", None)
    return _compare(found.y, exact if bias is None else exact + bias.detach(), "x Wᵀ + b")


@register_property("input gradient")
def input_gradient(context: ExternalCheckContext) -> str:
    """dX is exactly `dY W`: what is estimated stays in this layer."""
    x, dy = context.problem("gaussian", _ROWS)
    module, found = _one_step(context, x, dy)
    require(found.dx is not None, "the input receives no gradient")
    assert found.dx is not None
    return _compare(found.dx, dy @ module.weight.detach(), "dY W")  # type: ignore[operator]


@register_property("bias gradient")
def bias_gradient(context: ExternalCheckContext) -> str:
    """db is exactly `Σ dY`."""
    x, dy = context.problem("gaussian", _ROWS)
    module, found = _one_step(context, x, dy)
    if getattr(module, "bias", None) is None:
        raise NotApplicable("no bias")
    require(found.db is not None, "the bias receives no gradient")
    assert found.db is not None
    return _compare(found.db, dy.sum(0), "Σ dY")


def _one_step(context: ExternalCheckContext, x: Tensor, dy: Tensor) -> tuple[torch.nn.Module, Step]:
    module = context.linear.module(x.shape[1], dy.shape[1], x.dtype)
    with seeded(context.seed):
        return module, step(module, x, dy)


def _compare(found: Tensor, exact: Tensor, formula: str) -> str:
    error = float((found - exact).norm() / exact.norm())
    accepted = 64 * torch.finfo(exact.dtype).eps
    require(error <= accepted, f"differs from {formula} by {error:.2g} of its norm, accepted {accepted:.1g}")
    return f"{formula} to {error:.1e} of its norm"


@register_property("saved bytes")
def saved_bytes(context: ExternalCheckContext) -> str:
    """Reported, not judged: bytes that one step keeps for its backward pass, against the exact layer's."""
    n, d, m = 256, 64, 32
    x, dy = context.problem("gaussian", n, d, m, dtype=torch.float32)
    with seeded(context.seed):
        kept = bytes_for_backward(context.linear.module(d, m, x.dtype), x)
    del dy
    exact = x.numel() * x.element_size()
    return f"keeps {kept} bytes, {kept / exact:.2f} of the exact layer's {exact} (n={n}, d={d}, fp32)"


@register_property("mean: heavy-tailed rows")
def mean_heavy_tailed(context: ExternalCheckContext) -> str:
    """The mean is the exact product where few rows hold most of it; a layer is built anew for every draw."""
    return context.judge(context.external, context.problem("heavy_tailed", _ROWS))


@register_property("mean: one dominating row")
def mean_one_dominating(context: ExternalCheckContext) -> str:
    """The mean is the exact product where one of 4096 rows holds 0.9991 of the mass.

    Meant for what keeps a tenth of the rows or more: with far fewer, the other rows are met too rarely to judge.
    """
    whole, others = context.dominated()
    return context.judge(
        context.external,
        whole,
        draws=_MANY_DRAWS,
        level=context.level / _RARE,
        part=others,
        part_name="the rows beside the dominating one",
    )


@register_property("mean: equal rows")
def mean_equal_rows(context: ExternalCheckContext) -> str:
    """The mean is the exact product where all row norms are equal, so that no row is a winner."""
    return context.judge(context.external, context.problem("ties", _ROWS))


@register_property("mean: zero rows")
def mean_zero_rows(context: ExternalCheckContext) -> str:
    """The mean is the exact product where every third row is zero, as padding is."""
    return context.judge(context.external, context.problem("zero_rows", _ROWS))


@register_property("mean: 3-D input")
def mean_batched(context: ExternalCheckContext) -> str:
    """An input `[2, n/2, d]` gives the exact output and dX, and an unbiased dW."""
    batched = dataclasses.replace(context.linear, leading=(2,))
    problem = context.problem("heavy_tailed", _ROWS)
    module = batched.module(problem.x.shape[1], problem.dy.shape[1], problem.x.dtype)
    with seeded(context.seed):
        flat, deep = step(module, *problem), step(module, *problem, batched.leading)
    _compare(deep.y, flat.y, "the output for 2-D input")
    if flat.dx is not None and deep.dx is not None:
        _compare(deep.dx, flat.dx, "dX for 2-D input")
    return context.judge(batched, problem)


@register_property("mean: after warm-up")
def mean_after_warm_up(context: ExternalCheckContext) -> str:
    """The mean is exact in the middle of training too: what a layer carries from step to step makes no bias."""
    problem = context.problem("heavy_tailed", _ROWS)
    return context.judge(_trained(context, context.problem("gaussian", _ROWS, offset=7)), problem)


@register_property("mean: after rows without gradient")
def mean_after_zero_gradients(context: ExternalCheckContext) -> str:
    """A row whose gradient was zero in the last batch must not be unreachable in this one."""
    other, (x, dy) = context.problem("gaussian", _ROWS, offset=7), context.problem("gaussian", _ROWS)
    silent = (torch.arange(_ROWS) % 3 == 1).unsqueeze(1)
    before = Problem(other.x, other.dy.masked_fill(silent, 0.0))
    # the two kinds of rows lie in columns of their own, so that the estimate shows them apart
    x = torch.where(silent == (torch.arange(x.shape[1]) < 2), x, 0.0)
    part = Problem(x * silent, dy * silent)
    return context.judge(
        _trained(context, before), Problem(x, dy), part=part, part_name="the rows that had no gradient before"
    )


def _trained(context: ExternalCheckContext, before: Problem) -> TrainedLinear:
    linear = context.linear
    return TrainedLinear(linear.label, linear.build, precision=linear.precision, before=before)
