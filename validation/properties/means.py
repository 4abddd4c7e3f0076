"""Tests of the mean by sampling, the same for our estimators, for others' and for external products and layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from wtacrs.estimators import Estimator, InputError
from wtacrs.estimators.core.counter_rng import new_seed
from wtacrs.estimators.core.sizing import budget_of, resized
from wtacrs.validation.problems import Problem, make_problem
from wtacrs.validation.properties.external_estimators import (
    ExternalEstimator,
    ExternalLinear,
    Step,
    TrainedLinear,
    seeded,
)
from wtacrs.validation.properties.mean_problems import LIGHTER, MANY_ROWS, ROWS, MeanProblem, Part, mean_problem
from wtacrs.validation.properties.mean_report import figure, mean_report, percent
from wtacrs.validation.properties.property import (
    CheckContext,
    Evidence,
    NotApplicable,
    Property,
    PropertyBroken,
    Undecided,
    estimate,
    register_in,
)
from wtacrs.validation.properties.working_precision import working_precision
from wtacrs.validation.statistics.staged_means import (
    Direction,
    DirectionFinding,
    StagedMean,
    pooled,
    staged_mean_test,
)

Draw = Callable[[], Tensor]

MEAN_PROPERTIES: dict[str, Property] = {}
LAYER_MEAN_PROPERTIES: dict[str, Property] = {}

# of the bias to rule out, along directions that are met in few calls
_RARELY_MET = 3.0
# a tenth of the rows: what keeps fewer meets the rows beside a dominating one too rarely
_FEWEST_KEPT, _KEPT = 0.1, 0.3
_ROUNDING_SHOWN = 1e-4
# the norm of an error of rounding, per sum of products of absolute values
_ROUNDING = 4.0
_ROUNDED_IN = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
ALL_ROWS = "all rows"
POOLED = "mean: all problems together"
# a share that varies by less, relative to itself, is nearly that of one row; it would outweigh all others
_LEAST_ERROR = 1e-4
# what one problem holds at most one direction of, so that those of several problems are independent
_POOLED = {ALL_ROWS: ALL_ROWS, **dict.fromkeys(LIGHTER, "the lighter rows")}


class Block(NamedTuple):
    """One gradient of a step: its exact value, and what its rounding error may be.

    Attributes:
        name: dW, dX or db.
        exact: fp64.
        sizes: sums of the absolute values of the products that it consists of, of the same shape.
        parts: exact values of parts, with their names.
    """

    name: str
    exact: Tensor
    sizes: Tensor
    parts: Sequence[tuple[str, Tensor]]


def judge(
    context: CheckContext, draw: Draw, blocks: Sequence[Block], precision: torch.dtype | None = None
) -> Evidence:
    """Test the mean of concatenated gradients; what each block is off by is told in shares of its exact value.

    Args:
        context: the level, the bias to rule out, the time.
        draw: gives one estimate of all blocks, flat, each divided by the norm of its exact value.
        blocks: what is estimated.
        precision: that it is computed in; as the context found it by default.

    Raises:
        PropertyBroken: if the mean is rejected.
        Undecided: if it is neither rejected nor tested well enough in the time there is.
    """
    precision = precision or context.working_precision
    unit = _ROUNDING * torch.finfo(precision).eps
    directions = _directions(blocks, unit)
    tolerated = max(direction.rounding for direction in directions)
    if tolerated > context.demand.bias / 2:
        raise NotApplicable(
            f"computes in {_ROUNDED_IN[precision]}, whose rounding alone may be {percent(tolerated)} here"
        )
    target = torch.cat([_scaled(block).flatten() for block in blocks])
    rounding = unit * sum(float(block.sizes.norm() / block.exact.norm()) for block in blocks)
    demand = dataclasses.replace(context.demand, level=context.level, limit=context.clock.allowance())
    found = staged_mean_test(draw, target, directions, demand, rounding=rounding)
    context.findings.extend(found.directions)
    return _concluded(found, precision)


def _concluded(found: StagedMean, precision: torch.dtype) -> Evidence:
    matters = max((d.rounding for d in found.directions), default=0.0) > _ROUNDING_SHOWN
    inside = f"; computed in {_ROUNDED_IN[precision]}" if matters else ""
    report = mean_report(found) + inside
    if found.outcome == "broken":
        raise PropertyBroken(report, found)
    if found.outcome == "undecided":
        raise Undecided(report, found)
    return Evidence(report, found)


def _scaled(block: Block) -> Tensor:
    return block.exact / block.exact.norm()


def _directions(blocks: Sequence[Block], unit: float) -> list[Direction]:
    found, before = [], 0
    total = sum(block.exact.numel() for block in blocks)
    for block in blocks:
        several = len(blocks) > 1
        for name, part in [(ALL_ROWS, block.exact), *block.parts]:
            if not bool(part.any()):
                continue
            vector = torch.zeros(total, dtype=torch.float64)
            vector[before : before + part.numel()] = part.flatten() / block.exact.norm()
            tolerated = unit * float((part.abs() * block.sizes).sum() / part.square().sum())
            prefix = f"{block.name} of " if several else ""
            kind = _POOLED.get(name)
            found.append(Direction(prefix + name, vector, tolerated, f"{prefix}{kind}" if kind else ""))
        before += block.exact.numel()
    return found


# --- draws -----------------------------------------------------------------------------------------------------------


def weight_block(problem: Problem, parts: Sequence[Part] = ()) -> Block:
    """dW and the parts of it that the parts of the rows give."""
    x, dy = problem.x.double(), problem.dy.double()
    named = [(part.name, dy.T @ part.of(x)) for part in parts]
    return Block("dW", dy.T @ x, dy.abs().T @ x.abs(), named)


def product_draw(
    estimator: Estimator,
    problem: Problem,
    generator: torch.Generator,
    *,
    scores: Tensor | None = None,
    before: Problem | None = None,
) -> Draw:
    """Successive estimates of dW, divided by its norm; `before` is a batch that is estimated before each."""
    size = (problem.dy.double().T @ problem.x.double()).norm()

    def draw() -> Tensor:
        if before is not None:
            estimate(estimator, before, generator=generator)
        return (estimate(estimator, problem, scores, generator).double() / size).flatten()

    return draw


def layer_blocks(
    problem: Problem, weight: Float64[Tensor, "m d"], parts: Sequence[Part], drawn: set[str]
) -> list[Block]:
    """dW, and dX and db where they are drawn too."""
    blocks = [weight_block(problem, parts)]
    dy, weight = problem.dy.double(), weight.double()
    if "dX" in drawn:
        exact = dy @ weight
        named = [(part.name, exact * part.rows.unsqueeze(1)) for part in parts if part.columns is None]
        blocks.append(Block("dX", exact, dy.abs() @ weight.abs(), named))
    if "db" in drawn:
        blocks.append(Block("db", dy.sum(0), dy.abs().sum(0), ()))
    return blocks


def layer_draw(
    layer: ExternalLinear, problem: Problem, blocks: Sequence[Block], generator: torch.Generator
) -> Draw:
    """Successive steps of a layer: the gradients of the blocks, each divided by the norm of its exact value."""
    sizes = [block.exact.norm() for block in blocks]

    def draw() -> Tensor:
        with seeded(int(new_seed(problem.x.device, generator))):
            found = layer.run(problem.x, problem.dy)
        gradients = [_gradient(found, block.name) for block in blocks]
        return torch.cat([(g.double() / size).flatten() for g, size in zip(gradients, sizes, strict=True)])

    return draw


def _gradient(found: Step, name: str) -> Tensor:
    gradient = {"dW": found.dw, "dX": found.dx, "db": found.db}[name]
    assert gradient is not None, name
    return gradient


# --- properties ------------------------------------------------------------------------------------------------------


def _problem(context: CheckContext, name: str, rows: int | None = None) -> MeanProblem:
    n, d, m = context.sizes
    return mean_problem(name, n if rows is None else rows, d, m, context.stream(1_000_003))


def _claims_a_mean(context: CheckContext) -> None:
    if not context.estimator.traits.unbiased:
        raise NotApplicable("declared biased")


def _sized(context: CheckContext, n: int) -> tuple[Estimator, str]:
    """The estimator, keeping three tenths of n rows where its own number of rows is below a tenth."""
    estimator = context.estimator
    budget = None if isinstance(estimator, ExternalEstimator) else budget_of(estimator)
    if budget is None or not isinstance(budget, int) or budget >= _FEWEST_KEPT * n:
        return estimator, ""
    try:
        sized = resized(estimator, max(1, int(_KEPT * n)))
    except InputError:
        return estimator, ""
    return sized, f"; at {sized!r}, since its own budget is below a tenth of the {n} rows"


def mean_on(
    context: CheckContext,
    name: str,
    *,
    rows: int | None = None,
    layer: ExternalLinear | None = None,
    scores: Tensor | None = None,
    before: Callable[[Problem], Problem] | None = None,
) -> Evidence:
    """Test the mean on the problem of this name.

    Args:
        context: the estimator, the level, the time.
        name: of the problem, a key of `MEAN_PROBLEMS`.
        rows: of the problem, if not those of the context.
        layer: in place of the estimator of the context.
        scores: given to an estimator; its own by default.
        before: the batch that an estimator is given before every draw, made of that of the draw; none by default.

    Raises:
        NotApplicable: if the estimator claims no mean, or rounding hides a bias of the size asked for.
        PropertyBroken: if the mean is rejected.
        Undecided: if it is neither rejected nor tested well enough in the time there is.
    """
    _claims_a_mean(context)
    made = _problem(context, name, rows)
    estimator, remark = (layer, "") if layer is not None else _sized(context, len(made.problem.x))
    if name == "tiny gradients" and context.working_precision == torch.float16:
        raise NotApplicable("computes in fp16, where a gradient of 1e-10 is zero")
    problem = Problem(*(t.to(context.precision) for t in made.problem))
    generator = context.stream(1 + len(context.findings))
    if isinstance(estimator, ExternalLinear):
        weight = estimator.weight(problem.x.shape[1], problem.dy.shape[1], context.precision)
        blocks = layer_blocks(problem, weight, made.parts, context.drawn_gradients)
        draw = layer_draw(estimator, problem, blocks, generator)
    else:
        blocks = [weight_block(problem, made.parts)]
        draw = product_draw(
            estimator, problem, generator, scores=scores, before=None if before is None else before(problem)
        )
    found = judge(context, draw, blocks)
    return found._replace(detail=found.detail + remark)


def mean_of_problem(
    context: CheckContext, x: Tensor, dy: Tensor, scores: Tensor | None, generator: torch.Generator
) -> Evidence:
    """Test the mean on given rows, along their exact product.

    Args:
        context: the estimator, the level, the time.
        x: input rows `[n, d]`.
        dy: output gradients `[n, m]`.
        scores: given to the estimator.
        generator: source of the draws.

    Raises:
        NotApplicable: if the estimator claims no mean, the exact product is zero, or rounding hides a bias of the size
            asked for.
        PropertyBroken: if the mean is rejected.
        Undecided: if it is neither rejected nor tested well enough in the time there is.
    """
    _claims_a_mean(context)
    problem = Problem(x, dy)
    block = weight_block(problem)
    if not bool(block.exact.any()):
        raise NotApplicable("the exact product is zero")
    precision = working_precision(lambda: estimate(context.estimator, problem, scores, generator), len(x))
    return judge(context, product_draw(context.estimator, problem, generator, scores=scores), [block], precision)


@register_in(MEAN_PROPERTIES, "mean: heavy-tailed rows")
def mean_heavy_tailed(context: CheckContext) -> Evidence:
    """The mean is the exact product where few rows hold most of it, for heavy, middling and light rows each."""
    return mean_on(context, "heavy-tailed rows")


@register_in(MEAN_PROPERTIES, "mean: equal rows")
def mean_equal_rows(context: CheckContext) -> Evidence:
    """The mean is the exact product where all row norms are equal, so that no row stands out."""
    return mean_on(context, "equal rows")


@register_in(MEAN_PROPERTIES, "mean: zero rows")
def mean_zero_rows(context: CheckContext) -> Evidence:
    """The mean is the exact product where every third row is zero, as padding is, and rows are odd in number."""
    # other problems have 512 or 1024 rows: what leaves out an incomplete block of 2, 4, 8, … rows has none there
    rows = context.sizes.rows
    return mean_on(context, "zero rows", rows=max(rows - 1 + rows % 2, 8))


@register_in(MEAN_PROPERTIES, "mean: rows that cancel")
def mean_cancelling(context: CheckContext) -> Evidence:
    """The mean is the exact product where the products of the rows mostly cancel."""
    return mean_on(context, "rows that cancel")


@register_in(MEAN_PROPERTIES, "mean: unequal columns")
def mean_unequal_columns(context: CheckContext) -> Evidence:
    """The mean is the exact product where no entry is zero and columns of x are of very different sizes."""
    return mean_on(context, "unequal columns")


@register_in(MEAN_PROPERTIES, "mean: tiny gradients")
def mean_tiny_gradients(context: CheckContext) -> Evidence:
    """The mean is the exact product where rows of dy have norms of 1e-10."""
    return mean_on(context, "tiny gradients")


@register_in(MEAN_PROPERTIES, "mean: after another batch")
def mean_after_another_batch(context: CheckContext) -> Evidence:
    """The mean is exact where another batch comes before every draw: what is carried over makes no bias."""
    if isinstance(context.estimator, ExternalLinear):
        n, d, m = context.sizes
        other = make_problem("gaussian", n, d, m, generator=context.stream(7), dtype=context.estimator.precision)
        return mean_on(context, "heavy-tailed rows", layer=trained(context.estimator, other))
    return mean_on(context, "heavy-tailed rows", before=_another)


def _another(problem: Problem) -> Problem:
    return Problem(problem.x.flip(0) * 0.5, problem.dy.roll(1, 0))


@register_in(MEAN_PROPERTIES, "mean: one dominating row")
def mean_one_dominating(context: CheckContext) -> Evidence:
    """The mean is the exact product where one row holds 0.9991 of the mass, for this row and for those beside it.

    A sampler meets the rows beside it in one call of four, or the dominating one in one of three: three times the bias
    is to be ruled out, which takes a ninth of the draws.
    """
    rows = max(context.sizes.rows * MANY_ROWS // ROWS, 8)
    demand = dataclasses.replace(context.demand, bias=_RARELY_MET * context.demand.bias)
    found = mean_on(dataclasses.replace(context, demand=demand), "one dominating row", rows=rows)
    return found._replace(
        detail=f"{found.detail}; asked for here: {percent(demand.bias)}, {_RARELY_MET:g} times the bias"
    )


@register_in(LAYER_MEAN_PROPERTIES, "mean: 3-D input")
def mean_batched(context: CheckContext) -> Evidence:
    """An input `[2, n/2, d]` gives the output of the same rows in one matrix, and an unbiased dW."""
    flat = context.layer
    deep = dataclasses.replace(flat, leading=(2,))
    x, dy = context.problem("gaussian", context.least.n + context.least.n % 2)
    with seeded(context.seed):
        y = flat.run(x, dy).y
    try:
        with seeded(context.seed):
            found = deep.run(x, dy).y
    except Exception as error:
        raise NotApplicable(f"an input [2, n/2, d] raises {type(error).__name__}: {error}") from error
    off = float((found - y).norm() / y.norm())
    if off > context.accepted_rounding:
        raise PropertyBroken(f"the output differs from that of a matrix by {percent(off)} of its norm")
    return mean_on(context, "heavy-tailed rows", layer=deep)


@register_in(LAYER_MEAN_PROPERTIES, "mean: after rows without gradient")
def mean_after_zero_gradients(context: CheckContext) -> Evidence:
    """A row whose gradient was zero in the last batch must not be unreachable in this one."""
    layer = context.layer
    made = _problem(context, "equal rows")
    first = torch.arange(len(made.problem.x)) < len(made.problem.x) // 2
    before = Problem(made.problem.x.flip(1), made.problem.dy.masked_fill(first.unsqueeze(1), 0.0))
    return mean_on(context, "equal rows", layer=trained(layer, Problem(*(t.to(layer.precision) for t in before))))


def trained(layer: ExternalLinear, before: Problem) -> TrainedLinear:
    """The layer in the middle of training, where it sees this batch before every draw."""
    values = {f.name: getattr(layer, f.name) for f in dataclasses.fields(ExternalLinear)}
    return TrainedLinear(**values, before=before)


def mean_pooled(context: CheckContext) -> str:
    """What all problems say together: a bias too small for each may be clear in all of them."""
    _claims_a_mean(context)
    if context.broken:
        raise NotApplicable(f"broken by itself already: {', '.join(context.broken)}")
    kinds: dict[str, list[DirectionFinding]] = {}
    for finding in context.findings:
        if finding.kind and finding.error > _LEAST_ERROR * abs(finding.share):
            kinds.setdefault(finding.kind, []).append(finding)
    told = []
    for kind, findings in kinds.items():
        found = pooled(findings, context.level / len(kinds), context.demand.power)
        if found is None:
            continue
        text = f"{kind} {figure(found.share, found.error)} × in {found.problems} problems"
        if found.p_value <= context.level / len(kinds):
            raise PropertyBroken(f"{text}: off by {percent(abs(found.share - 1))} (p = {found.p_value:.2g})")
        told.append(f"{text}, biases above {percent(found.detectable)} ruled out")
    if not told:
        raise NotApplicable("fewer than two problems have anything random about them")
    return "; ".join(told)


register_in(MEAN_PROPERTIES, POOLED)(mean_pooled)
