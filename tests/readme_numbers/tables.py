"""From results to the tables of the README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from statistics import median
from typing import get_args

from readme_numbers.records import NumberTable
from wtacrs.estimators import make
from wtacrs.estimators.core.sizing import SIZES
from wtacrs.figures.plots.growth import NAMES as FAMILIES
from wtacrs.validation.benchmarks.bench import Entry, gaussian_problem, time_entries
from wtacrs.validation.layers.candidates import RECOMMENDED
from wtacrs.validation.layers.equal_bytes import ByteRatio, byte_ratios
from wtacrs.validation.records.budgets import BudgetsResult, Difference
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.records.front import FrontResult, FrontRow
from wtacrs.validation.records.growth import Axis, Family, GrowthResult
from wtacrs.validation.records.masks import CONDITIONS, SIDES, Condition, MaskRow, MasksResult
from wtacrs.validation.records.noise import NoiseResult, in_percent
from wtacrs.validation.records.scale import ScaleResult
from wtacrs.validation.records.scores import TrainingScoresResult
from wtacrs.validation.records.simulation import SimulationResult, tokens_text
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.records.units import gigabytes, megabytes
from wtacrs.validation.records.winners import WinnersResult
from wtacrs.validation.summaries.compare import oracle_ratios
from wtacrs.validation.summaries.series import series
from wtacrs.validation.summaries.sweep import choice_summaries
from wtacrs.validation.summaries.winners import RegretSummary, WinnerCases, grouped, rule_label, winner_cases


def training_numbers(runs: Iterable[TrainingResult]) -> NumberTable:
    """The demo's two runs."""
    rows = [[_code(run.estimator), f"{run.final:.3f}", f"{run.history[-1].seconds:.0f}"] for run in runs]
    return NumberTable(
        name="training", commands=["make demo"], head=["", "dev accuracy, last", "training seconds"], rows=rows
    )


SHAPES = ((1500, 128, 128), (4096, 512, 512), (4096, 1024, 1024))
SPECS = (
    "crs(budget=0.1)",
    "crs(budget=0.3)",
    "wta_crs(budget=0.1)",
    "wta_crs(budget=0.3)",
    "systematic(budget=0.3)",
)


def timing_numbers(rounds: int) -> NumberTable:
    """Estimate over exact product, one thread, fp32: what `wtacrs bench` measures, without variances."""
    rows = []
    for n, d, m in SHAPES:
        problem = gaussian_problem(n, d, m, precision="fp32", device="cpu")
        timed = time_entries(problem, [Entry(spec) for spec in SPECS], rounds=rounds)
        rows.append([f"{n}, {d}", *(f"{ratio:.2f}" for ratio in (median(one.ratios) for one in timed))])
    sizes = ",".join("x".join(map(str, shape)) for shape in SHAPES)
    return NumberTable(
        name="timing",
        commands=[" ".join(["wtacrs bench --sizes", sizes, *(f"--estimator '{spec}'" for spec in SPECS)])],
        head=["n, d = m", *(f"{_code(spec.partition('(')[0])} {make(spec).budget}" for spec in SPECS)],  # type: ignore[attr-defined]
        rows=rows,
    )


def bytes_numbers(models: Mapping[str, ComparisonResult]) -> NumberTable:
    """`recommended` of both kinds over the paper's WTA-CRS at equal bytes: median and worst layer of every model."""
    found = {
        model: {
            (r.share, r.scores, r.estimator): r for r in byte_ratios(result.rows) if r.estimator in RECOMMENDED
        }
        for model, result in models.items()
    }
    cases = sorted({case for ratios in found.values() for case in ratios})
    rows = [
        [
            f"{share:.0%}",
            scores,
            _code(estimator),
            *(text for ratios in found.values() for text in _median_and_worst(ratios[share, scores, estimator])),
        ]
        for share, scores, estimator in cases
    ]
    head = ["bytes", "scores", "", *(text for model in models for text in (f"{model}: median", "worst layer"))]
    return NumberTable(
        name="equal-bytes", commands=["wtacrs compare CAPTURES --bytes 0.1 --bytes 0.3"], head=head, rows=rows
    )


def _median_and_worst(ratio: ByteRatio) -> tuple[str, str]:
    return _ratio(ratio.median), _ratio(ratio.worst)


def combination_numbers(models: Mapping[str, ComparisonResult]) -> NumberTable:
    """Every combination of parts over the paper's WTA-CRS at equal bytes, oracle / row norms."""
    found = {
        (model, r.share, r.estimator, r.scores): r.median
        for model, result in models.items()
        for r in byte_ratios(result.rows)
    }
    columns = sorted(
        {(model, share) for model, share, _, _ in found}, key=lambda c: (list(models).index(c[0]), c[1])
    )
    rows = []
    for estimator in dict.fromkeys(name for _, _, name, _ in found):
        cells = [
            " / ".join(_ratio(found[model, share, estimator, kind]) for kind in ("oracle", "row-norms"))
            if (model, share, estimator, "oracle") in found
            else "–"
            for model, share in columns
        ]
        rows.append([_code(series(estimator, SIZES)), *cells])
    return NumberTable(
        name="combinations",
        commands=["wtacrs compare CAPTURES --combinations --bytes 0.1 --bytes 0.3 --draws 4"],
        head=["combination", *(f"{model}, {share:.0%}" for model, share in columns)],
        rows=rows,
    )


def oracle_ratio_numbers(models: Mapping[str, ComparisonResult]) -> NumberTable:
    """Variance with row norms and with stale scores over that with the oracle's, median over layers."""
    found = {
        (model, r.series, r.budget, r.scores): f"{median(r.ratios):.3g}"
        for model, result in models.items()
        for r in oracle_ratios(result.rows)
        if r.budget is not None and r.ratios
    }
    cases = list(dict.fromkeys((name, budget) for _, name, budget, _ in found))
    rows = [
        [
            f"{_code(name)} {budget:g}",
            *(
                " / ".join(found.get((m, name, budget, kind), "–") for kind in ("row-norms", "stale"))
                for m in models
            ),
        ]
        for name, budget in cases
    ]
    return NumberTable(
        name="oracle-ratio",
        commands=["wtacrs capture --after STEPS --age A", "wtacrs compare CAPTURES --budget 0.1 --budget 0.3"],
        head=["variance / oracle's: row norms / stale", *models],
        rows=rows,
    )


def winner_numbers(result: SweepResult) -> NumberTable:
    """|C|/k and regret of the paper's and the optimal rule, by captured file, scores and budget."""
    rows = []
    for e in choice_summaries(result.sweeps):
        best = "–" if e.best_fraction is None else f"{e.best_fraction:.2f}"
        rows.append(
            [
                e.captures, e.scores, f"{e.budget:g}", f"{e.paper_fraction:.2f}", _two(e.paper_regrets),
                f"{e.optimal_fraction:.2f}", _two(e.optimal_regrets), best,
            ]
        )  # fmt: skip
    head = ["model", "scores", "budget", "paper's |C|/k", "cost", "optimal rule's |C|/k", "cost", "best |C|/k"]
    return NumberTable(
        name="winners",
        commands=["wtacrs sweep A B C --budget 0.1 --budget 0.3 --budget 0.5 --scores all"],
        head=[cell.replace("|C|", "\\|C\\|") for cell in head],
        rows=rows,
    )


def _two(regrets: Sequence[float]) -> str:
    return f"{median(regrets):.2f} ({max(regrets):.3g})" if regrets else "–"


def noise_numbers(results: Mapping[str, NoiseResult]) -> NumberTable:
    """What an estimator adds to the noise of the minibatch, for the whole model, with its interval."""
    found = {
        (model, entry.estimator, entry.scores): _added(entry.ratio.value, entry.ratio.low, entry.ratio.high)
        for model, result in results.items()
        for entry in result.models
    }
    rows = [
        [_code(estimator), scores, *(found.get((model, estimator, scores), "–") for model in results)]
        for estimator, scores in dict.fromkeys((name, kind) for _, name, kind in found)
    ]
    return NumberTable(
        name="noise",
        commands=["wtacrs noise CAPTURES --min-elements 0"],
        head=["estimator", "scores", *results],
        rows=rows,
    )


def _added(value: float, low: float | None, high: float | None) -> str:
    told = in_percent(value)
    return told if low is None or high is None else f"{told} [{in_percent(low)}, {in_percent(high)}]"


def masks_numbers(result: MasksResult) -> NumberTable:
    """Layers that keep a right mask, and ⟨EĜ, G⟩/‖G‖² of the model if padding had score 0; padding right / left."""
    found = {(row.architecture, row.condition, row.side): row for row in result.rows}

    def cell(name: str, condition: Condition, told: Callable[[MaskRow], str]) -> str:
        return " / ".join(told(row) if not (row := found[name, condition, side]).failed else "–" for side in SIDES)

    rows = [
        [
            name,
            cell(name, "right", lambda row: f"{row.kept} of {row.masked}"),
            *(cell(name, condition, lambda row: f"{row.score_zero:.2f}") for condition in CONDITIONS),
        ]
        for name in result.architectures
    ]
    return NumberTable(
        name="masks",
        commands=["wtacrs study masks"],
        head=["architecture", "layers that keep a right mask", *CONDITIONS],
        rows=rows,
    )


def scores_numbers(results: Sequence[TrainingScoresResult]) -> NumberTable:
    """A row for each kind of scores, a column for each model: variance over that under row norms, by budget."""
    kinds = list(dict.fromkeys(row.scores for result in results for row in result.rows))

    def cell(kind: str, result: TrainingScoresResult) -> str:
        return " / ".join(_ratio(row.variance) for row in result.rows if row.scores == kind) or "–"

    return NumberTable(
        name="scores",
        commands=["wtacrs study scores"],
        head=["scores", *(f"{result.model.partition('/')[0]}, {result.task}" for result in results)],
        rows=[[kind, *(cell(kind, result) for result in results)] for kind in kinds],
    )


def winner_rule_numbers(result: WinnersResult) -> NumberTable:
    """A row for each rule, a column for each kind of scores: regrets, median / 95 % quantile / infinite cases."""
    kinds = list(grouped(winner_cases(result), "scores"))

    def cell(found: RegretSummary) -> str:
        return f"{found.median:.2f} / {_regret(found.quantile)} / {found.infinite:,}"

    return NumberTable(
        name="winner-rules",
        commands=["wtacrs study winners --data GLUE --train-limit 6000"],
        head=["variance over that at the best |C|".replace("|", "\\|"), *(str(kind) for kind, _ in kinds)],
        rows=[
            [rule_label(rule).replace("|", "\\|"), *(cell(cases.summaries[rule]) for _, cases in kinds)]
            for rule in result.rules
        ],
    )


def winner_share_numbers(result: WinnersResult) -> NumberTable:
    """A row for each architecture, a column for each time: the best |C|/k with oracle and with stale scores."""
    models = list(grouped(winner_cases(result), "model"))
    steps = list(dict.fromkeys(state.step for state in result.states))

    def cell(cases: WinnerCases, step: int, kind: str) -> str:
        found = cases.where("step", step).where("scores", kind)
        return f"{found.shares[1]:.2f}" if len(found.share) else "–"

    return NumberTable(
        name="winner-shares",
        commands=["wtacrs study winners --data GLUE --train-limit 6000"],
        head=["best |C|/k, oracle / stale".replace("|", "\\|"), *(f"step {step}" for step in steps)],
        rows=[
            [str(model), *(f"{cell(cases, step, 'oracle')} / {cell(cases, step, 'stale')}" for step in steps)]
            for model, cases in models
        ],
    )


def _regret(value: float) -> str:
    return "∞" if value == inf else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def budget_numbers(result: BudgetsResult, name: str) -> NumberTable:
    """Memory and variance at every budget; where models were trained, the accuracy beside exact training too."""
    exact = result.memory
    assert exact is not None
    scores = result.exact
    trained = scores is not None
    kept = [megabytes(size) for size in (exact.kept, exact.linear, exact.peak)]
    rows = [["exact", *([] if scores is None else [mean_text(scores.mean, scores.seed_error)]), *kept, "0", "0"]]
    for point in result.points:
        ratio = point.ratio("row-norms")
        assert point.memory is not None
        assert ratio is not None
        kept = [megabytes(size) for size in (point.memory.kept, point.memory.linear, point.memory.peak)]
        spread = "" if ratio.low is None else f" [{ratio.low:.3g}, {ratio.high:.3g}]"
        rows.append(
            [
                f"{point.budget:g}",
                *([_beside_exact(point.difference)] if trained else []),
                *kept,
                f"{point.variance['row-norms']:.2f}",
                f"{ratio.value:.3g}{spread}",
            ]
        )
    measured = ["MB kept", "by linear layers", "MB peak", "Var Ĝ / ‖G‖²", "over the minibatch's"]
    return NumberTable(
        name=name,
        commands=[f"wtacrs study budgets --task {result.task}" + ("" if trained else " --without-training")],
        head=["budget", *(["accuracy beside exact, points"] if trained else []), *measured],
        rows=rows,
    )


def _beside_exact(found: Difference | None) -> str:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return interval_text(found.value, found.low, found.high, 100.0, 1)


def mean_text(mean: float, error: float | None) -> str:
    """A mean with its standard error, in points."""
    return f"{100 * mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def interval_text(value: float, low: float, high: float, scale: float, digits: int) -> str:
    """A signed number with its interval."""
    told = [f"{scale * number:+.{digits}f}".replace("-", "−") for number in (value, low, high)]
    return f"{told[0]} [{told[1]}, {told[2]}]"


GROWTH_QUANTITIES = {
    "effective": "effective number of rows / rows",
    "rows_needed": "share of rows needed",
    "wta_crs(budget=0.1), of ‖G‖²": "WTA-CRS 0.1, Var Ĝ / ‖G‖²",
    "wta_crs(budget=0.1), of the minibatch": "WTA-CRS 0.1, over the minibatch's",
    "dithered_rows(slots=0.74), of the minibatch": "`recommended`, over the minibatch's",
}


def growth_numbers(result: GrowthResult) -> NumberTable:
    """A row per quantity and condition, a column per family and what is doubled: factor, interval and verdict."""
    conditions = ("equal steps", "equal loss", "equal steps, a quarter of the rows")
    axes: tuple[tuple[Family, Axis], ...] = tuple((f, a) for f in get_args(Family) for a in ("width", "depth"))
    return NumberTable(
        name="growth",
        commands=["wtacrs study growth CORPUS"],
        head=["", *(f"{FAMILIES[family]}, {axis} × 2" for family, axis in axes)],
        rows=[
            [f"{title}, {condition}", *(_trend(result, *axis, condition, quantity) for axis in axes)]
            for quantity, title in GROWTH_QUANTITIES.items()
            for condition in conditions
        ],
    )


def confounder_numbers(result: GrowthResult) -> NumberTable:
    """A row per quantity: what twice the rows do, and a nat of loss."""
    axes: tuple[tuple[Family, Axis], ...] = tuple((f, a) for f in get_args(Family) for a in ("rows", "progress"))
    named = {"rows": "rows × 2", "progress": "a nat less"}
    return NumberTable(
        name="growth-confounders",
        commands=["wtacrs study growth CORPUS"],
        head=["", *(f"{FAMILIES[family]}, {named[axis]}" for family, axis in axes)],
        rows=[
            [title, *(_trend(result, *axis, "all models", quantity) for axis in axes)]
            for quantity, title in GROWTH_QUANTITIES.items()
        ],
    )


def _trend(result: GrowthResult, family: Family, axis: Axis, condition: str, quantity: str) -> str:
    key = (family, axis, condition, quantity)
    found = [t for t in result.trends if (t.family, t.axis, t.condition, t.quantity) == key]
    return f"{found[0].factor:.2f} [{found[0].low:.2f}, {found[0].high:.2f}] {found[0].verdict}" if found else "–"


def scale_numbers(result: ScaleResult) -> NumberTable:
    """Seconds and peak memory on a layer of full size."""
    rows = [
        [
            _code("recommended" if row.estimator.startswith("dithered_rows") else row.estimator),
            row.method + ("" if row.draws is None else f", {row.draws} draws"),
            f"{row.seconds:.0f}",
            f"{row.process_bytes / 2**30:.1f}",
        ]
        for row in result.rows
    ]
    return NumberTable(
        name="scale",
        commands=["python -m wtacrs.validation.benchmarks.scale"],
        head=["estimator", "found by", "seconds", "peak GiB"],
        rows=rows,
    )


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.195 else f"{value:.3f}" if value >= 0.00995 else f"{value:.4f}"


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


def front_numbers(result: FrontResult) -> NumberTable:
    """A row for each way to take a step: what it keeps, its peak and its time over those of the first, added noise."""
    first = result.rows[0]

    def row(one: FrontRow) -> list[str]:
        peak = "–" if one.peak is None or first.peak is None else f"{one.peak / first.peak:.2f}"
        noise = "–" if one.noise is None else "0" if one.noise == 0 else f"{one.noise:.2g}"
        return [
            one.way.name,
            megabytes(one.kept),
            f"{one.kept / first.kept:.2f}",
            peak,
            f"{one.ratio:.2f}",
            noise,
        ]

    return NumberTable(
        name="front",
        commands=["make memory"],
        head=["", "kept, MB", "kept", "peak", "time", "added noise / minibatch's"],
        rows=[row(one) for one in result.rows],
    )


_TENTH = "WTA-CRS with a tenth of the rows"
SHORT_FRONT = {
    "stock eager": "stock",
    "checkpointing": "activation checkpointing",
    "lean head-again + checkpointing": "activation checkpointing, `--lean head-again`",
    "lean attention,head": "`--lean attention,head`",
    "wta_crs(budget=0.1) + lean attention,head": f"`--lean attention,head`, {_TENTH}",
    "lean attention-again,head-again": "`--lean attention-again,head-again`",
    "wta_crs(budget=0.1) + lean attention-again,head-again": f"`--lean attention-again,head-again`, {_TENTH}",
}
"""Ways of the front that README and home page show, and how they say them."""
LORA_FRONT = {
    "stock eager": "all weights, stock",
    "LoRA 8": "LoRA, rank 8",
    "LoRA 8 + checkpointing": "LoRA, activation checkpointing",
    "lean attention,head + LoRA 8": "LoRA, `--lean attention,head`",
    "wta_crs(budget=0.1) + lean attention,head + LoRA 8": f"LoRA, `--lean attention,head`, {_TENTH}",
    "wta_crs(budget=0.1) + lean attention-again,head-again + LoRA 8": "LoRA, `--lean attention-again,head-again`, "
    f"{_TENTH}",
}
"""Those that the page on LoRA shows."""


def some_front_numbers(result: FrontResult, name: str, ways: Mapping[str, str]) -> NumberTable:
    """The named rows of `front_numbers` under other names, without megabytes.

    Raises:
        KeyError: if the result has no such way.
    """
    whole = front_numbers(result)
    by_name = {row[0]: row[2:] for row in whole.rows}
    return NumberTable(
        name=name,
        commands=whole.commands,
        head=["", "kept", "peak", "time", "added noise"],
        rows=[[said, *by_name[way]] for way, said in ways.items()],
    )


def simulation_numbers(results: Sequence[SimulationResult]) -> NumberTable:
    """A row for each way, a column for each result: the peak in GB, and how many times smaller it is than the first's."""
    names = list(dict.fromkeys(step.choice.name for result in results for step in result.steps))
    peaks = [{step.choice.name: step.peak for step in result.steps} for result in results]
    short = [name.removesuffix(" + bf16") for name in names]
    rows = []
    for name in dict.fromkeys(short):
        cells = []
        for found in peaks:
            peak = found.get(name, found.get(f"{name} + bf16"))
            first = next(iter(found.values()))
            cells.append("–" if peak is None else f"{gigabytes(peak)} ({first / peak:.1f}×)")
        rows.append([name, *cells])
    return NumberTable(name="simulation", commands=["make memory"], head=["", *map(_shape, results)], rows=rows)


def _shape(result: SimulationResult) -> str:
    step = result.steps[0]
    tokens = tokens_text(step.length, step.target_length)
    return f"{result.model}, {step.batch_size} × {tokens}, {step.choice.precision}"
