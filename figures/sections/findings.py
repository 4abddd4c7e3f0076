"""What each figure of the report shows, in a sentence from the data that it draws: its text for who does not see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from wtacrs.figures.plots.growth import NAMES, followed
from wtacrs.figures.sections.blocks import SCORES, number, percent
from wtacrs.validation.records.bench import BenchResult
from wtacrs.validation.records.budgets import BudgetsResult
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRow
from wtacrs.validation.records.factorial import Contrast, FactorialResult
from wtacrs.validation.records.front import FrontResult, pareto
from wtacrs.validation.records.growth import GrowthResult
from wtacrs.validation.records.layer_tests import LayerTestResult
from wtacrs.validation.records.limits import LimitsResult
from wtacrs.validation.records.masks import MasksResult, masks_sentence
from wtacrs.validation.records.memory import MemoryResult
from wtacrs.validation.records.noise import NoiseResult
from wtacrs.validation.records.norms import NormsResult
from wtacrs.validation.records.plan import Plan
from wtacrs.validation.records.pretrain import PretrainingResult
from wtacrs.validation.records.simulation import SimulationResult
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.records.theory import Claim
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.records.transfer import TransferResult
from wtacrs.validation.records.units import gigabytes, megabytes
from wtacrs.validation.records.winners import WinnersResult
from wtacrs.validation.summaries.bench import bench_summaries, not_beaten
from wtacrs.validation.summaries.compare import LayerMedian, OracleRatio
from wtacrs.validation.summaries.layer_tests import layer_test_summary
from wtacrs.validation.summaries.norms import norms_quarters
from wtacrs.validation.summaries.sweep import choice_summaries
from wtacrs.validation.summaries.winners import rule_label, told_regret, winner_cases

_MOST = 8
"""Parts that a text tells; tables have all of them."""


def _joined(parts: Iterable[str]) -> str:
    told = list(parts)
    more = [f"{len(told) - _MOST} more are in the table"] if len(told) > _MOST else []
    return "; ".join([*told[:_MOST], *more])


def of_training(runs: Sequence[TrainingResult]) -> str:
    """Where the runs end."""
    return _joined(f"{run.method} ends at {run.final:.3f}" for run in runs)


def of_experiment(result: ExperimentResult) -> str:
    """The mean of the exact runs, and every difference from it with its verdict."""
    return _joined(_beside_exact(row, result.metric) for row in result.rows)


def _beside_exact(row: ExperimentRow, metric: str) -> str:
    if row.standing is None:
        return f"{row.label} has {metric} {row.mean:.3f}"
    return f"{row.label} {100 * row.standing.difference:+.1f} points, {row.standing.verdict}"


def of_factorial(result: FactorialResult) -> str:
    """The effect over all, and what differs between levels."""
    whole = [one for one in result.contrasts if one.factor is None]
    found = [one for one in result.contrasts if one.kind == "interaction" and one.verdict == "differs"]
    told = [f"{one.treatment} {100 * one.difference:+.1f} points over all, {one.verdict}" for one in whole]
    told += [_interaction(one) for one in found]
    if not found and any(one.kind == "interaction" for one in result.contrasts):
        told.append("no interaction is seen")
    return _joined(told)


def of_growth(result: GrowthResult) -> str:
    """By which factor the variance of the estimator that is followed changes per doubling of width."""
    wanted = f"{followed(result)}, of ‖G‖²"
    return _joined(
        f"{NAMES[one.family]}, {one.condition}: Var Ĝ / ‖G‖² of {followed(result)} changes by {one.factor:.2f} "
        f"[{one.low:.2f}, {one.high:.2f}] per doubling of the {one.axis}"
        for one in result.trends
        if one.quantity == wanted and one.axis in ("width", "depth")
    )


def _interaction(one: Contrast) -> str:
    return (
        f"at {one.factor} {one.at} the effect of {one.treatment} is another by {100 * one.difference:+.1f} points"
    )


def of_limits(result: LimitsResult) -> str:
    """The limit of every way as the batch grows."""
    return "as the batch grows " + _joined(
        f"{curve.way} comes to {'no bound' if curve.limit is None else f'{curve.limit:.1f}'}"
        for curve in result.curves
        if curve.grows == "batch"
    )


def of_budgets(result: BudgetsResult) -> str:
    """The score of exact training and that of every budget; without runs the variances."""
    if result.exact is None:
        told = [
            f"{kind} {point.variance[kind]:.3g} at budget {point.budget:g}"
            for point in result.points
            for kind in point.variance
        ]
        return f"relative variance by scores: {_joined(told)}"
    points = _joined(
        f"{point.scores.mean:.3f} at budget {point.budget:g}"
        for point in result.points
        if point.scores is not None
    )
    return f"{result.metric} {result.exact.mean:.3f} with exact training, {points}"


def of_norms(result: NormsResult) -> str:
    """How long the estimate is beside the gradient, over all steps."""
    quarters = norms_quarters(result)
    whole = quarters[-1] if quarters else None
    if whole is None or whole.relative is None:
        return f"{len(result.estimated)} steps, none with a gradient"
    expected = "" if whole.expected is None else f", where theory expects {whole.expected:.2f}"
    return (
        f"over {whole.last} steps the estimate is {whole.relative:.2f} times as long as the gradient in the "
        f"median{expected}"
    )


def of_pretraining(runs: Sequence[PretrainingResult]) -> str:
    """The validation loss of every run before and after."""
    return _joined(f"{run.estimator} goes from {run.valid_before:.3f} to {run.valid_after:.3f}" for run in runs)


def of_comparison(medians: Sequence[LayerMedian]) -> str:
    """Who has the least error at the smallest and at the largest size, for every kind of scores."""
    parts = []
    for kind in dict.fromkeys(one.scores for one in medians):
        sized = [one for one in medians if one.scores == kind and (one.share or one.row_fraction)]
        for told, size in _ends(sized, lambda one: one.share or one.row_fraction or 0.0):
            mine = sorted(
                (one for one in sized if (one.share or one.row_fraction) == size), key=lambda one: one.mse
            )
            least, most = mine[0], mine[-1]
            parts.append(
                f"{SCORES.get(kind, kind)}, {told} size {size:.3g}: from {number(least.mse)} ({least.series}) to "
                f"{number(most.mse)} ({most.series})"
            )
    return _joined(parts) or "no estimator has a size"


def of_oracle_ratios(found: Sequence[OracleRatio]) -> str:
    """The median ratio of every estimator at its smallest and its largest size."""
    parts = []
    for name, kind in dict.fromkeys((one.series, one.scores) for one in found):
        mine = [one for one in found if (one.series, one.scores) == (name, kind) and one.ratios]
        sizes = [
            f"{number(median(one.ratios))} at {one.share or one.budget or 1:g}"
            for one in (mine[:1] + mine[1:][-1:])
        ]
        if sizes:
            parts.append(f"{name}, {SCORES.get(kind, kind)}: {', '.join(sizes)}")
    return _joined(parts)


def _ends(found: Sequence[LayerMedian], size: Callable[[LayerMedian], float]) -> list[tuple[str, float]]:
    sizes = sorted({size(one) for one in found})
    return list(zip(("smallest", "largest"), dict.fromkeys([*sizes[:1], *sizes[-1:]]), strict=False))


def of_sweep(result: SweepResult) -> str:
    """How many winners each rule takes, and the best, at every budget."""
    parts = []
    for one in choice_summaries(result.sweeps):
        best = "" if one.best_fraction is None else f", the best {one.best_fraction:.2f}"
        parts.append(
            f"{SCORES.get(one.scores, one.scores)}, budget {one.budget:g}: the paper's rule takes "
            f"{one.paper_fraction:.2f} of k, the optimal one {one.optimal_fraction:.2f}{best}"
        )
    return _joined(parts)


def of_regrets(result: SweepResult) -> str:
    """What the two rules cost at every budget, in the median over layers."""
    return _joined(
        f"{SCORES.get(one.scores, one.scores)}, budget {one.budget:g}: the paper's rule costs "
        f"{median(one.paper_regrets):.3f} times the least variance, the optimal one {median(one.optimal_regrets):.3f}"
        for one in choice_summaries(result.sweeps)
        if one.paper_regrets and one.optimal_regrets
    )


def of_winners(result: WinnersResult) -> str:
    """What every rule costs over all cases."""
    return _joined(
        f"{rule_label(one.rule)} costs {told_regret(one.median)} times the least variance in the median, "
        f"{told_regret(one.quantile)} at the 95 % quantile"
        for one in winner_cases(result).summaries.values()
    )


def of_transfer(result: TransferResult, one: str, other: str) -> str:
    """How alike two models order the estimators, and what choosing on the first costs on the second."""
    return (
        _joined(
            f"{SCORES.get(pair.scores, pair.scores)}, budget {pair.budget:g}: "
            f"{'τ is not known' if pair.tau is None else f'Kendall’s τ {pair.tau:+.2f}'}, the best of the first has "
            f"{pair.regret:.2f} times the least variance on the second"
            for pair in result.pairs
            if (pair.source, pair.target) == (one, other)
        )
        or f"{len(result.standings)} variances, none on both"
    )


def of_noise(result: NoiseResult) -> str:
    """What every estimator adds, all layers together."""
    return _joined(f"{one.estimator} ({SCORES.get(one.scores, one.scores)}) {one.ratio}" for one in result.models)


def of_layer_tests(result: LayerTestResult) -> str:
    """How many claims fell or stay open."""
    return _joined(layer_test_summary(result))


def of_masks(result: MasksResult) -> str:
    """What all rows say together."""
    return masks_sentence(result)


def of_front(result: FrontResult) -> str:
    """The ways that no other beats."""
    first = result.rows[0]
    ways = _joined(
        f"{row.way.name} keeps {percent(row.kept / first.kept)} at {row.ratio:.2f} of the time, added noise "
        f"{'unknown' if row.noise is None else f'{row.noise:.2g}'}"
        for row in pareto(result.rows)
    )
    return f"not beaten of {len(result.rows)} ways: {ways}"


def of_saving(result: FrontResult) -> str:
    """What is kept after every part."""
    return _joined(f"{part.part} {megabytes(part.kept)} MB" for part in result.parts)


def of_bench(result: BenchResult) -> str:
    """The estimators that no other beats in bytes, time and variance."""
    found = bench_summaries(result.rows)
    best = not_beaten(found)
    told = _joined(
        f"{one.estimator} on {one.group} keeps {percent(one.kept)} at {number(one.ratio)} of the time, error "
        f"{number(one.error)}"
        for one in best
    )
    return f"{len(best)} of {len(found)} are not beaten: {told}"


def of_memory(result: MemoryResult) -> str:
    """What every way keeps, and its peak."""
    first = result.steps[0]
    return _joined(
        f"{step.name} {megabytes(step.total)} MB ({percent(step.total / first.total)} of {first.name}), at the peak "
        f"{megabytes(step.peak)} MB"
        for step in result.steps
    )


def of_simulation(result: SimulationResult) -> str:
    """The peak of every way."""
    return _joined(f"{step.choice.name} {gigabytes(step.peak)} GB" for step in result.steps)


def of_plan(result: Plan) -> str:
    """The ends of the front."""
    ends = sorted(result.front, key=lambda point: point.peak)
    return _joined(
        f"with a peak of {megabytes(point.peak)} MB {number(point.seconds)} s and noise {number(point.noise)}"
        for point in (ends[:1] + ends[1:][-1:])
    )


def of_claim(claim: Claim) -> str:
    """What was required of the numbers, and whether they meet it."""
    met = [requirement.text for requirement in claim.requirements if requirement.text not in claim.broken]
    parts = [f"{len(met)} of {len(claim.requirements)} requirements met", *met]
    return _joined([*parts, *(f"not met: {text}" for text in claim.broken)])
