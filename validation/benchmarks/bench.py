"""Estimators beside the exact product on one problem: time, bytes, variance, operations, and how near the machine's roof.

All candidates take turns in every round, beside the exact product, so that other work on the machine hits all alike: the
ratios of one run are comparable, seconds of different machines are not.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, InputError, WtacrsWarning, available, make, saved_bytes, spec
from wtacrs.estimators.composites.dithered_rows import DitheredRows
from wtacrs.estimators.core.registry import lookup
from wtacrs.estimators.core.sizing import missing_size, rows_kept, sized
from wtacrs.validation.benchmarks.roofline import DTYPES
from wtacrs.validation.benchmarks.timing import seconds_of, wait_for
from wtacrs.validation.benchmarks.traffic import Traffic
from wtacrs.validation.layers.candidates import RECOMMENDED, fitted
from wtacrs.validation.layers.compare import exact_product
from wtacrs.validation.layers.equal_bytes import BASELINE
from wtacrs.validation.layers.scores import LayerLike, layer_scores
from wtacrs.validation.properties.macs import stated_macs
from wtacrs.validation.records.base import ScoreKind
from wtacrs.validation.records.bench import BenchRow, Quartiles, Roofs
from wtacrs.validation.runner import generator_for
from wtacrs.validation.statistics.moments import Product, closed_form, moments

DEFAULT_ESTIMATORS = (
    "exact",
    "wta_crs(budget=0.3)",
    "wta_crs(budget=0.1)",
    "systematic(budget=0.3)",
    "systematic(budget=0.1)",
    "pivotal(budget=0.3)",
    "conditional_poisson(budget=0.3)",
    "recommended at 0.3",
    "recommended at 0.1",
    "stochastic_rounding(bits=4)",
    "count_sketch(budget=0.3)",
    "low_rank at 0.3",
)
DEFAULT_WITH_KNOWN_SCORES = (
    "wta_crs(budget=0.3)",
    "wta_crs(budget=0.1)",
    "recommended at 0.3",
    "recommended at 0.1",
)
TOO_LARGE = "even its smallest size keeps more bytes"
_REQUIRED = {"rows": "rows=systematic", "of": "of=systematic", "groups": "groups=8"}
_SIZES = {"budget": 0.3, "slots": 1.2}


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is measured: an estimator as it is, or in the largest size that fits a share of the bytes of x in bf16.

    Attributes:
        estimator: a spec, or one of `RECOMMENDED`; "recommended" is made for the scores of the entry.
        share: of the bytes; None for the size that the spec has.
        scores: what rows are sampled by.
    """

    estimator: str
    share: float | None = None
    scores: ScoreKind = "row-norms"

    @property
    def text(self) -> str:
        """As it was asked for."""
        return self.estimator if self.share is None else f"{self.estimator} at {self.share:g}"

    def at(self, n: int, d: int, dtype: torch.dtype) -> Estimator | None:
        """The estimator for an x of this shape; None if not even its smallest size fits."""
        if self.share is None:
            return make(self.estimator)
        share = self.share * 2 / dtype.itemsize  # of the bytes of x as it is
        known = self.estimator == "recommended" and self.scores != "row-norms"
        return fitted("recommended_known" if known else self.estimator, share, (n, d), dtype)


def entry_from(text: str, scores: ScoreKind = "row-norms") -> Entry:
    """`SPEC`, or `SPEC at SHARE`.

    Raises:
        InputError: on an unusable spec or share, and on "recommended" without a share.

    >>> entry_from("crs(budget=0.3)").share, entry_from("crs at 0.3").share
    (None, 0.3)
    """
    estimator, _, given = (part.strip() for part in text.rpartition(" at "))
    if not estimator or ":" in given:  # the path of a reference may hold the word
        estimator, given = text.strip(), ""
    if not given:
        if estimator in RECOMMENDED:
            raise InputError(f'estimator="{estimator}" is made for a share of the bytes: "{estimator} at 0.3"')
        make(estimator)
        return Entry(estimator, None, scores)
    try:
        share = float(given)
    except ValueError:
        raise InputError(f"estimator={text!r}: what follows ' at ' must be a share such as 0.3") from None
    fitted(estimator, share, (64, 64), torch.bfloat16)  # refuses what no problem could take
    return Entry(estimator, share, scores)


def default_entries() -> list[Entry]:
    """The estimators that stand for their kind, with row norms and, where scores matter most, with known scores."""
    unknown = [entry_from(text) for text in DEFAULT_ESTIMATORS]
    return [*unknown, *(entry_from(text, "oracle") for text in DEFAULT_WITH_KNOWN_SCORES)]


def registered_entries(scores: ScoreKind = "row-norms") -> list[Entry]:
    """Every registered estimator: of 30 % of the rows, of 1.2 slots a row, or of the rank that fits 30 % of the bytes.

    One of an installed package that needs other values is left out, with a warning.
    """
    found = []
    for name in available():
        try:
            found.append(entry_from(_registered(name), scores))
        except InputError as reason:
            warnings.warn(f"{name} is left out: {reason}", WtacrsWarning, stacklevel=2)
    return found


def _registered(name: str) -> str:
    fields = dataclasses.fields(lookup(name))  # type: ignore[arg-type]
    bare = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    given = ", ".join(_REQUIRED[field] for field in bare if field in _REQUIRED)
    text = f"{name}({given})" if given else name
    size = missing_size(text)
    return f"{text} at 0.3" if size == "rank" else spec(sized(text, _SIZES.get(size or "", 1)))


class BenchProblem(NamedTuple):
    """x and dY without padding; `layer` is None for random ones."""

    layer: str | None
    x: Float[Tensor, "n d"]
    dy: Float[Tensor, "n m"]
    stale: Float[Tensor, " n"] | None = None


def gaussian_problem(n: int, d: int, m: int, *, precision: str, device: str, seed: int = 0) -> BenchProblem:
    """Independent standard normal numbers."""
    generator = torch.Generator(device).manual_seed(seed)
    x, dy = (torch.randn(n, width, generator=generator, device=device) for width in (d, m))
    return BenchProblem(None, x.to(DTYPES[precision]), dy.to(DTYPES[precision]))


def captured_problem(layer: str, capture: LayerLike, *, precision: str, device: str) -> BenchProblem:
    """The rows of a captured layer that are not padding."""
    live, dtype = capture.mask, DTYPES[precision]
    stale = getattr(capture, "stale", None)
    return BenchProblem(
        layer,
        capture.x[live].to(device, dtype),
        capture.dy[live].to(device, dtype),
        None if stale is None else stale[live].to(device),
    )


class _Candidate(NamedTuple):
    """An entry on one problem; `given` are the scores that compress gets, None where it finds row norms itself."""

    entry: Entry
    estimator: Estimator
    scores: Float64[Tensor, " n"]
    given: Float64[Tensor, " n"] | None


@torch.no_grad()
def bench_problem(
    problem: BenchProblem,
    entries: Iterable[Entry],
    roofs: Roofs,
    *,
    precision: str,
    rounds: int,
    draws: int,
    seed: int = 0,
    report: Callable[[str, int, int], None] | None = None,
    skipped: Callable[[Entry, str], None] | None = None,
) -> list[BenchRow]:
    """Every entry on one problem; one that does not fit its bytes, or refuses the problem, has no row.

    Args:
        problem: x and dY.
        entries: what is measured.
        roofs: what the machine reaches.
        precision: of x and dY, by its name.
        rounds: of timing.
        draws: of Monte Carlo where there is no closed form.
        seed: of the draws.
        report: progress.
        skipped: told of an entry without a row, and why.

    Raises:
        ZeroProduct: if the exact product is zero.
        InputError: on scores that the problem does not have.
    """
    x, dy, device = problem.x, problem.dy, problem.x.device
    exact = exact_product(problem.layer or "gaussian", x, dy)
    candidates = list(_candidates(problem, entries, skipped))
    generator = torch.Generator(device).manual_seed(seed)
    timed = _timed(problem, candidates, rounds, generator)
    rows = []
    for done, (candidate, seconds) in enumerate(zip(candidates, timed, strict=True)):
        if report is not None:
            report(f"variance of {candidate.entry.text}", done, len(candidates))
        rows.append(_row(problem, candidate, seconds, exact, roofs, precision, draws, seed))
    return rows


def _candidates(
    problem: BenchProblem, entries: Iterable[Entry], skipped: Callable[[Entry, str], None] | None = None
) -> Iterator[_Candidate]:
    (n, d), dtype = problem.x.shape, problem.x.dtype
    for entry in entries:
        scores = layer_scores(entry.scores, problem.x, problem.dy, None, problem.stale, layer=problem.layer)
        given = None if entry.scores == "row-norms" else scores
        try:
            estimator, reason = entry.at(n, d, dtype), TOO_LARGE
            if estimator is not None:
                _tried(estimator, problem, given)
        except InputError as refusal:
            estimator, reason = None, str(refusal)
        if estimator is not None:
            yield _Candidate(entry, estimator, scores, given)
        elif skipped is not None:
            skipped(entry, reason)


def _tried(estimator: Estimator, problem: BenchProblem, given: Float64[Tensor, " n"] | None) -> None:
    """Some shapes are refused by the verbs alone, as by groups of more columns than x has."""
    generator = torch.Generator(problem.x.device).manual_seed(0)
    estimator.contract(estimator.compress(problem.x, scores=given, generator=generator), problem.dy)


class Seconds(NamedTuple):
    """Of one candidate, a number per round; `exact` is that of the same round."""

    exact: list[float]
    compress: list[float]
    contract: list[float]

    @property
    def both(self) -> list[float]:
        """Of compress and contract."""
        return [sum(pair) for pair in zip(self.compress, self.contract, strict=True)]

    @property
    def ratios(self) -> list[float]:
        """Of both verbs over the exact product of the same round."""
        return [one / other for one, other in zip(self.both, self.exact, strict=True)]


@torch.no_grad()
def time_entries(problem: BenchProblem, entries: Iterable[Entry], *, rounds: int, seed: int = 0) -> list[Seconds]:
    """Seconds of every entry, without anything else; one that does not fit, or refuses the problem, is left out.

    Args:
        problem: x and dY.
        entries: what is timed.
        rounds: of timing.
        seed: of the draws.
    """
    generator = torch.Generator(problem.x.device).manual_seed(seed)
    return _timed(problem, list(_candidates(problem, entries)), rounds, generator)


def _timed(
    problem: BenchProblem, candidates: Sequence[_Candidate], rounds: int, generator: torch.Generator
) -> list[Seconds]:
    """Seconds of all candidates, which take turns; the one that begins changes, and the first round warms up."""
    x, dy, device = problem.x, problem.dy, problem.x.device
    found = [Seconds([], [], []) for _ in candidates]
    for done in range(1 + rounds):
        exact = seconds_of(lambda: dy.T @ x, device)
        order = range(len(candidates))
        for place in (*order[done % len(order) :], *order[: done % len(order)]) if order else ():
            _, estimator, _, given = candidates[place]
            wait_for(device)
            started = time.perf_counter()
            saved = estimator.compress(x, scores=given, generator=generator)
            wait_for(device)
            between = time.perf_counter()
            estimate = estimator.contract(saved, dy)
            wait_for(device)
            ended = time.perf_counter()
            del saved, estimate
            if done:
                found[place].exact.append(exact)
                found[place].compress.append(between - started)
                found[place].contract.append(ended - between)
    return found


def _row(
    problem: BenchProblem,
    candidate: _Candidate,
    seconds: Seconds,
    exact: Float64[Tensor, "m d"],
    roofs: Roofs,
    precision: str,
    draws: int,
    seed: int,
) -> BenchRow:
    x, dy = problem.x, problem.dy
    n, d, m = *x.shape, dy.shape[1]
    entry, estimator, scores, given = candidate
    generator = generator_for(seed, f"bench {problem.layer} {entry.text} {entry.scores}", x.device)
    with Traffic() as traffic:
        saved = estimator.compress(x, scores=given, generator=generator)
        estimator.contract(saved, dy)
    kept, macs = saved_bytes(saved), stated_macs(estimator, n, d, m)
    least = least_bytes(estimator, x, dy, kept, scores_given=given is not None)
    multiplied = product_precision(estimator, x, dy, precision)
    unit = float(exact.square().sum())
    found = moments(
        estimator, [Product(x, dy, scores)], target=exact, draws=draws, generator=generator,
        mean_is_target=estimator.traits.unbiased,
    )  # fmt: skip
    error = (found.variance + found.bias_squared) / unit
    paper = paper_variance(x, dy, scores, kept)
    return BenchRow(
        layer=problem.layer,
        n=n,
        d=d,
        m=m,
        estimator=spec(estimator),
        requested=entry.text,
        scores=entry.scores,
        exact=Quartiles.of(seconds.exact),
        compress=Quartiles.of(seconds.compress),
        contract=Quartiles.of(seconds.contract),
        both=Quartiles.of(seconds.both),
        ratio=Quartiles.of(seconds.ratios),
        kept=kept,
        macs=macs,
        operations=traffic.operations,
        moved=traffic.moved,
        multiplied_in=multiplied,
        least=least,
        least_seconds=roofs.least_seconds(macs, least, multiplied),
        variance=found.variance / unit,
        variance_error=None if found.variance_error is None else found.variance_error / unit,
        bias_squared=found.bias_squared / unit,
        draws=found.draws,
        over_paper=None if paper is None else error * unit / paper,
    )


def least_bytes(
    estimator: Estimator, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], kept: int, *, scores_given: bool
) -> int:
    """Bytes that have to be read and written: x, what is kept (written and read), dY and the result.

    Of dY a row design reads the rows that it keeps; of x too, where scores are given.
    """
    (n, d), m, size = x.shape, dy.shape[1], x.element_size()
    if estimator.name == "exact":  # x itself is kept
        return (n * d + n * m + m * d) * size
    rows = rows_kept(estimator, n)
    read = n if rows is None or not scores_given else rows
    return (read * d + (n if rows is None else rows) * m + m * d) * size + 2 * kept


def product_precision(estimator: Estimator, x: Tensor, dy: Tensor, precision: str) -> str:
    """In which precision an estimator multiplies: int8 where it says so."""
    if isinstance(estimator, DitheredRows) and estimator.multiplies_int8(dy, x.shape[1], x.dtype):
        return "int8"
    return precision


def paper_variance(
    x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], scores: Shaped[Tensor, " n"], kept: int
) -> float | None:
    """Variance of the paper's WTA-CRS that keeps so many bytes of a bf16 x; None where it is 0 or no row fits."""
    n, d = x.shape
    share = kept / (2 * n * d)
    if not 0.0 < share <= 1.0:
        return None
    estimator = fitted(BASELINE, share, (n, d), torch.bfloat16)
    variance = None if estimator is None else closed_form(lambda: estimator.variance(x, dy, scores=scores))
    return float(variance) if variance is not None and float(variance) > 0 else None
