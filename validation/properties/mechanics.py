"""Properties about form: shapes, dtypes, randomness, refusals, bytes. None is statistical."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from wtacrs.estimators import InputError, joint_norms, make, saved_bytes, spec
from wtacrs.estimators.core.registry import is_remade
from wtacrs.validation.problems import PROBLEMS, Problem
from wtacrs.validation.properties.macs import counted_macs, stated_macs
from wtacrs.validation.properties.property import (
    SEEDED,
    CheckContext,
    NotApplicable,
    PropertyBroken,
    estimate,
    register_property,
    require,
    same_saved,
)

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@register_property("spec round trip")
def spec_round_trip(context: CheckContext) -> str:
    """`make(spec(e)) == e`, and equal estimators hash alike."""
    if not is_remade(context.estimator):
        raise NotApplicable(f"{type(context.estimator).__name__} is not registered")
    again = make(spec(context.estimator))
    require(again == context.estimator, f"make({spec(context.estimator)!r}) gives {again!r}")
    require(hash(again) == hash(context.estimator), "equal estimators have different hashes")
    return spec(context.estimator)


@register_property("shape and dtype")
def shape_and_dtype(context: CheckContext) -> str:
    """The estimate is `[m, d]`, finite, and of the dtype of the exact product, in all four precisions."""
    n = context.rows(24)
    for x_dtype in _DTYPES:
        for dy_dtype in {x_dtype, torch.float32}:
            x = context.problem("gaussian", n, dtype=x_dtype).x
            dy = context.problem("gaussian", n, dtype=dy_dtype).dy
            got = estimate(context.estimator, Problem(x, dy), generator=context.stream())
            given = f"x {x_dtype}, dy {dy_dtype}"
            require(list(got.shape) == [3, 4], f"{given}: shape {list(got.shape)}, expected [m, d] = [3, 4]")
            expected = torch.promote_types(x_dtype, dy_dtype)
            require(got.dtype == expected, f"{given}: dtype {got.dtype}, expected {expected}")
            require(bool(got.isfinite().all()), f"{given}: NaN or infinite values")
    return "fp64, fp32, bf16, fp16, alone and beside fp32"


@register_property("huge and tiny values")
def huge_and_tiny(context: CheckContext) -> str:
    """Rows whose squares overflow or underflow their dtype give finite estimates that are not all zero."""
    n = context.rows(24)
    for name in ("huge", "tiny"):
        for dtype in _DTYPES:
            got = estimate(context.estimator, context.problem(name, n, dtype=dtype), generator=context.stream())
            require(bool(got.isfinite().all()), f"{name} {dtype}: NaN or infinite values")
            require(bool((got != 0).any()), f"{name} {dtype}: the estimate is zero")
    return f"n={n}, four precisions"


@register_property("linear in dy")
def linear_in_dy(context: CheckContext) -> str:
    """For one compressed activation the estimate is linear in dy."""
    if not context.estimator.traits.linear_in_dy:
        raise NotApplicable("traits.linear_in_dy is False")
    x, first = context.problem("gaussian", context.rows(24))
    second = context.problem("heavy_tailed", x.shape[0], offset=1).dy
    saved = context.estimator.compress(x, generator=context.stream())
    together = context.estimator.contract(saved, 2.0 * first - 3.0 * second)
    apart = 2.0 * context.estimator.contract(saved, first) - 3.0 * context.estimator.contract(saved, second)
    error = float((together - apart).norm())
    size = float(apart.norm() + together.norm()) + float(joint_norms(x, first).sum())
    require(error <= 1e-12 * size, f"relative difference {error / size:.2e}, accepted 1e-12")
    return f"relative difference {error / size:.1e}"


@register_property("saved shapes ignore values")
def saved_shapes(context: CheckContext) -> str:
    """The shapes and dtypes of what is saved depend on the shape and dtype of x only."""
    n = context.rows(24)
    seen = {}
    for name in PROBLEMS:
        for kind in (None, *SEEDED):
            scores = None if kind is None else context.scores(kind, n)
            saved = context.estimator.compress(
                context.problem(name, n).x, scores=scores, generator=context.stream()
            )
            seen[tuple((tuple(t.shape), t.dtype) for t in saved if isinstance(t, Tensor))] = (
                f"{name}, scores {kind}"
            )
    require(len(seen) == 1, f"different shapes: {seen}")
    return f"{[list(shape) for shape, _ in next(iter(seen))]} for n={n}, d=4"


@register_property("inputs not modified")
def inputs_not_modified(context: CheckContext) -> str:
    """Neither x, nor dy, nor the scores, nor what is saved is changed in place."""
    x, dy = context.problem("heavy_tailed", context.rows(24))
    scores = joint_norms(x, dy)
    before = [t.clone() for t in (x, dy, scores)]
    saved = context.estimator.compress(x, scores=scores, generator=context.stream())
    kept = [t.clone() for t in saved if isinstance(t, Tensor)]
    context.estimator.contract(saved, dy)
    for name, now, was in zip(("x", "dy", "scores"), (x, dy, scores), before, strict=True):
        require(torch.equal(now, was), f"{name} was changed in place")
    require(same_saved(tuple(t for t in saved if isinstance(t, Tensor)), tuple(kept)), "contract changed saved")
    return "x, dy, scores, saved"


@register_property("randomness is explicit")
def randomness(context: CheckContext) -> str:
    """Deterministic: no random number is used. Random: same seed, same draw, and the stream advances."""
    problem = context.problem("gaussian", context.rows(24))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(context.seed)
        return (
            _deterministic(context, problem)
            if context.estimator.traits.deterministic
            else _random(context, problem)
        )


def _deterministic(context: CheckContext, problem: Problem) -> str:
    stream, default = context.stream(), torch.get_rng_state()
    state = stream.get_state()
    first = context.estimator.compress(problem.x, generator=stream)
    require(torch.equal(stream.get_state(), state), "declared deterministic, but the generator has advanced")
    second = context.estimator.compress(problem.x)
    require(
        torch.equal(torch.get_rng_state(), default), "declared deterministic, but the default generator advanced"
    )
    require(same_saved(first, second), "declared deterministic, but two compressions differ")
    return "no random number used"


def _random(context: CheckContext, problem: Problem) -> str:
    default = torch.get_rng_state()
    stream = context.stream()
    state = stream.get_state()
    draws = [context.estimator.compress(problem.x, generator=stream) for _ in range(8)]
    require(not torch.equal(stream.get_state(), state), "the generator that was given does not advance")
    require(torch.equal(torch.get_rng_state(), default), "the default generator advances beside the given one")
    again = context.estimator.compress(problem.x, generator=context.stream())
    require(same_saved(draws[0], again), "two draws from equal seeds differ")
    exact = problem.dy.T @ problem.x
    error = float((context.estimator.contract(draws[0], problem.dy) - exact).norm() / exact.norm())
    varies = any(not same_saved(draws[0], other) for other in draws[1:])
    require(varies or error < 1e-12, "eight successive draws are equal and not exact")
    context.estimator.compress(problem.x)
    require(not torch.equal(torch.get_rng_state(), default), "without a generator the default one must be used")
    return "same seed, same draw; the stream advances"


@register_property("awkward scores")
def awkward_scores(context: CheckContext) -> str:
    """Zero, few, dominating, tied and unrelated scores give finite estimates of the right shape."""
    problem = context.problem("gaussian", context.rows(24), dtype=torch.float32)
    for kind in SEEDED:
        # the fourth power: a dominating score of 1e16, where the others lie below the rounding of single precision
        scores = context.scores(kind, problem.x.shape[0]).pow(4).float()
        got = estimate(context.estimator, problem, scores, context.stream())
        require(list(got.shape) == [3, 4], f"scores {kind}: shape {list(got.shape)}, expected [3, 4]")
        require(bool(got.isfinite().all()), f"scores {kind}: NaN or infinite values")
    return ", ".join(SEEDED)


@register_property("awkward sizes")
def awkward_sizes(context: CheckContext) -> str:
    """Empty input gives zeros; n = 1, k = 1 and k = n work, unless the estimator's own fields exclude them."""
    seen = []
    for n, k in ((0, None), (1, None), (1, 1), (6, 1), (6, 6)):
        where = f"n={n}" + ("" if k is None else f", k={k}")
        try:
            estimator = context.estimator if k is None else context.at_budget(k)
            got = estimate(estimator, context.problem("gaussian", n), None, context.stream())
        except InputError as refusal:
            seen.append(f"{where} refused: {refusal}")
            continue
        except NotApplicable:
            continue
        except Exception as error:  # code from outside may raise anything
            raise PropertyBroken(f"{where}: {type(error).__name__}: {error}") from error
        require(list(got.shape) == [3, 4], f"{where}: shape {list(got.shape)}, expected [3, 4]")
        require(bool(got.isfinite().all()), f"{where}: NaN or infinite values")
        require(n > 0 or not bool(got.any()), "empty input: the estimate is not zero")
        seen.append(where)
    return "; ".join(seen)


@register_property("refuses bad scores")
def refuses_bad_scores(context: CheckContext) -> str:
    """NaN, infinite and negative scores, and scores of another shape, raise an error that says so."""
    x = context.problem("gaussian", context.rows(24)).x
    n = x.shape[0]
    for bad in (float("nan"), float("inf"), -1.0):
        scores = torch.ones(n, dtype=torch.float64)
        scores[n // 2] = bad
        require(_refused(partial(context.estimator.compress, x, scores=scores)), f"a score of {bad} is accepted")
    require(
        _refused(lambda: context.estimator.compress(x, scores=torch.ones(n + 1))),
        f"{n + 1} scores for {n} rows pass",
    )
    return "NaN, infinite, negative, wrong shape"


@register_property("refuses bad shapes")
def refuses_bad_shapes(context: CheckContext) -> str:
    """A vector, integers, a dy with another number of rows, and matmul factors that do not fit raise an error."""
    x, dy = context.problem("gaussian", context.rows(24))
    e = context.estimator
    saved = e.compress(x, generator=context.stream())
    require(_refused(lambda: e.compress(x[:, 0])), "a vector passes for x")
    require(_refused(lambda: e.compress(torch.ones(4, 3, dtype=torch.int64))), "integers pass for x")
    require(_refused(lambda: e.contract(saved, torch.cat([dy, dy]))), "a dy of twice as many rows passes")
    require(_refused(lambda: e.contract(saved, dy[:-1])), "a dy of one row less passes")
    require(_refused(lambda: e.matmul(dy, x)), "matmul accepts factors that do not fit")
    return "x, dy, matmul"


def _refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except ValueError:
        return True
    return False


@register_property("zero scores are left out")
def zero_scores(context: CheckContext) -> str:
    """Rows of score 0 (padding) never touch the estimate."""
    if not context.estimator.traits.leaves_out_zeros:
        raise NotApplicable("the estimator does not use scores")
    x, dy = context.problem("gaussian", context.rows(24))
    padding = torch.arange(x.shape[0]) % 3 == 1
    scores = torch.where(padding, 0.0, joint_norms(x, dy))
    spoilt = Problem(torch.where(padding.unsqueeze(1), 1e6, x), torch.where(padding.unsqueeze(1), -1e6, dy))
    for offset in range(8):
        clean = estimate(context.estimator, Problem(x, dy), scores, context.stream(offset))
        other = estimate(context.estimator, spoilt, scores, context.stream(offset))
        require(torch.equal(clean, other), "changing rows of score 0 changes the estimate")
    return "8 draws with a third of the rows at score 0"


@register_property("only declared scores matter")
def declared_scores(context: CheckContext) -> str:
    """An estimator that declares not to use (the sizes of) scores gives the same result for all of them."""
    traits = context.estimator.traits
    if traits.uses_scores:
        raise NotApplicable("the estimator uses scores")
    x = context.problem("gaussian", context.rows(24)).x
    plain = context.estimator.compress(x, generator=context.stream())
    for kind in SEEDED:
        scores = context.scores(kind, x.shape[0])
        if traits.uses_support:
            plain = context.estimator.compress(x, scores=(scores > 0).double(), generator=context.stream())
        scored = context.estimator.compress(x, scores=scores, generator=context.stream())
        require(same_saved(plain, scored), f"scores {kind} change what is saved")
    return f"same saved for all scores{' with the same zeros' if traits.uses_support else ''}"


@register_property("scale of the scores")
def scale_of_scores(context: CheckContext) -> str:
    """Scores matter only up to a common factor: c · scores gives the same draw."""
    x, dy = context.problem("heavy_tailed", context.rows(24))
    scores = joint_norms(x, dy)
    plain = context.estimator.compress(x, scores=scores, generator=context.stream())
    # powers of two scale without rounding, so that equality is exact
    for exponent in (-200, -20, 3, 200):
        scaled = context.estimator.compress(x, scores=scores * 2.0**exponent, generator=context.stream())
        require(same_saved(plain, scaled), f"scores times 2^{exponent} give another result")
    return "factors 2^-200 … 2^200"


@register_property("exact at full budget")
def exact_at_full_budget(context: CheckContext) -> str:
    """With all rows kept the product is exact, where the traits say so."""
    traits = context.estimator.traits
    if not traits.exact_at_full_budget:
        raise NotApplicable("not declared")
    worst = 0.0
    for name in PROBLEMS:
        problem = context.problem(name, context.rows(24))
        try:
            estimator = context.at_budget(problem.x.shape[0])
        except NotApplicable:
            estimator = context.estimator
        got = estimate(estimator, problem, generator=context.stream())
        size = float(joint_norms(*problem).sum())
        error = float((got - problem.dy.T @ problem.x).norm()) / size
        require(error <= 1e-12, f"{name}: error {error:.2e} of Σw at k = n, accepted 1e-12")
        worst = max(worst, error)
    return f"largest error {worst:.1e} of Σw over {len(PROBLEMS)} problems"


@register_property("no look at the values")
def fake_tensors(context: CheckContext) -> str:
    """Works under FakeTensorMode: shapes follow from shapes, and nothing waits for a device."""
    n = context.rows(24)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.random.fork_rng(devices=[]), FakeTensorMode():
            x, dy = torch.empty(n, 4, dtype=dtype), torch.empty(n, 3, dtype=dtype)
            for scores in (None, torch.empty(n)):
                got = context.estimator.contract(context.estimator.compress(x, scores=scores), dy)
                require(list(got.shape) == [3, 4], f"shape {list(got.shape)}, expected [3, 4]")
                require(got.dtype == dtype, f"dtype {got.dtype}, expected {dtype}")
    return f"n={n}, fp32 and bf16"


@register_property("matmul")
def matmul(context: CheckContext) -> str:
    """`matmul(a, b)` is `contract(compress(b), a.T)` with the joint norms as default scores."""
    x, dy = context.problem("heavy_tailed", context.rows(24))
    for scores in (None, context.scores("ties and zeros", x.shape[0])):
        got = context.estimator.matmul(dy.T, x, scores=scores, generator=context.stream())
        used = joint_norms(x, dy) if scores is None else scores
        verbs = estimate(context.estimator, Problem(x, dy), used, context.stream())
        require(list(got.shape) == [3, 4], f"shape {list(got.shape)}, expected [3, 4]")
        size = float(joint_norms(x, dy).sum())
        require(float((got - verbs).norm()) <= 1e-12 * size, "differs from the two verbs under the same seed")
    return "equals the two verbs under the same seed"


@register_property("saved bytes")
def saved_bytes_honest(context: CheckContext) -> str:
    """What is saved is a tuple of tensors that hide no bytes: none twice, none a view of something larger."""
    x = context.problem("gaussian", context.rows(24), d=16, dtype=torch.float32).x
    saved = context.estimator.compress(x, generator=context.stream())
    require(isinstance(saved, tuple), f"compress returns {type(saved).__name__}, not a tuple of tensors")
    strangers = [type(item).__name__ for item in saved if not isinstance(item, Tensor)]
    require(not strangers, f"compress saves what is no tensor: {strangers}")
    storages: set[int] = set()
    for tensor in saved:
        storage = tensor.untyped_storage()
        own = tensor.numel() * tensor.element_size()
        if own == 0:
            require(storage.nbytes() == 0, f"a tensor without elements keeps {storage.nbytes()} bytes alive")
            continue
        require(storage.data_ptr() not in storages, "two saved tensors share their memory")
        require(storage.nbytes() <= own, f"a saved tensor of {own} bytes keeps {storage.nbytes()} bytes alive")
        storages.add(storage.data_ptr())
    return f"{saved_bytes(saved)} of {x.numel() * x.element_size()} bytes at n={x.shape[0]}, d=16, fp32"


@register_property("macs")
def macs(context: CheckContext) -> str:
    """The stated multiply–accumulates are those of the matrix products that run."""
    seen = []
    for at_least, d, m in ((24, 4, 3), (31, 9, 12), (50, 16, 1)):
        n = context.rows(at_least)
        stated = stated_macs(context.estimator, n, d, m)
        if stated is None:
            raise NotApplicable(f"{context.estimator!r} does not state its macs")
        problem = context.problem("gaussian", n, d, m, dtype=torch.float32)
        counted = counted_macs(context.estimator, *problem, generator=context.stream())
        require(stated == counted, f"n={n}, d={d}, m={m}: states {stated}, runs {counted}")
        seen.append(f"{counted / (n * d * m):.3g}")
    return f"{', '.join(seen)} of the exact product's"
