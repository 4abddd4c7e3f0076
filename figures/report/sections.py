"""The sections of the report: each turns the results of one kind into tables, pictures and a few sentences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import TypeVar

from wtacrs.figures.plots import gradient_noise, training_curves, winner_regret, winner_sweep
from wtacrs.figures.plots import theory as theory_figures
from wtacrs.figures.report.page import (
    Cell,
    Markup,
    code,
    details,
    heading,
    number,
    paragraph,
    table,
)
from wtacrs.figures.report.section_parts import METHODS, Section, missing, numbers
from wtacrs.validation.layers.summary import (
    choice_summaries,
    choice_variance,
    regret,
    which_winners,
)
from wtacrs.validation.records.check import CheckResult
from wtacrs.validation.records.noise import LayerNoise, NoiseResult, in_percent
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.records.theory import TheoryResult
from wtacrs.validation.records.training import TrainingResult

ResultT = TypeVar("ResultT")


def training(runs: Sequence[tuple[str, TrainingResult]]) -> Section:
    """Table of all runs; curves per task, model and metric."""
    section = Section("Training")
    if not runs:
        section.add(missing("training run"))
        return section
    head = [
        "task", "model", "estimator", "seed", "train", "dev", "metric", "majority", "best", "final", "seconds",
        "converted layers", "parameters",
    ]  # fmt: skip
    section.add(table(head, [_training_row(run) for _, run in runs], kinds=numbers(3, 13, keep=(6,))))
    groups: dict[tuple[str, str, str], list[TrainingResult]] = {}
    for _, run in runs:
        groups.setdefault((run.task, run.model, run.metric), []).append(run)
    for (task, model, metric), group in groups.items():
        caption = (
            f"Left: {metric} on the held-out examples of {task}; a run has learnt something where it is above the "
            "dashed line, the score of always answering with the most frequent class. Right: training loss. An "
            "estimator does no harm where its line stays with that of exact."
        )
        section.draw(partial(training_curves.build, group), f"Training curves, {model} on {task}", caption)
    return section


def sweeps(results: Sequence[tuple[str, SweepResult]]) -> Section:
    """The |C| figure, the regrets of the two rules, and every layer folded away."""
    section = Section("How many winners: |C|")
    if not results:
        section.add(missing("|C| sweep"))
    for file, result in results:
        if len(results) > 1:
            section.add(heading(file))
        section.draw(
            partial(winner_sweep.build, result),
            "Variance against the number of winners",
            f"{_what(result)} of WTA-CRS against |C| at one budget, relative to plain CRS with the same scores and k, "
            "the level line; lower is better, and a good rule lands in the square. The paper's rule minimises "
            "P_T / (k − |C|), the exact-variance rule S_T² / (k − |C|), with P_T the tail's share of the scores, "
            "S_T their sum.",
        )
        section.draw(
            partial(winner_regret.build, result),
            "Regret of the rules for the number of winners",
            "Variance at a rule's |C| over that at the best |C|, against the budget: median over layers, their middle "
            "half, and the worst layer. 1 is perfect.",
        )
        section.add(
            *(paragraph(sentence) for sentence in which_winners(result.sweeps)),
            _regret_table(result.sweeps),
            details("All layers", _sweep_table(result.sweeps)),
        )
    return section


def noise(results: Sequence[tuple[str, NoiseResult]]) -> Section:
    """What the estimators add to the minibatch's own noise: a sentence each, the figure, all layers folded away."""
    section = Section("Against the noise that is there anyway")
    for file, result in results:
        if len(results) > 1:
            section.add(heading(file))
        section.draw(
            partial(gradient_noise.build, result),
            "Estimators against the noise of the minibatch",
            "Squared error of an estimator over the variance that the gradient has between microbatches anyway, for one "
            "microbatch. Of an unbiased one it is the same for any number of averaged microbatches: both are divided by "
            "it. Of a biased one the persistent part of the bias², told below, is not. A dot is a layer, a line all "
            f"layers together, a bar its {result.level:.0%} interval (jackknife over microbatches).",
        )
        section.add(
            *(paragraph(f"{model.verdict}.") for model in result.models),
            details(f"All {len(result.layers)} rows, layer by layer", _noise_table(result.layers)),
        )
    return section


def checks(results: Sequence[tuple[str, CheckResult]]) -> Section:
    """Verdicts of the list of properties: one line per estimator, every property folded away."""
    section = Section("Properties")
    if not results:
        section.add(missing("law check"))
        return section
    section.add(paragraph(
        "Every estimator is held to the properties that its traits promise; an expected failure was declared "
        "beforehand, with its reason."
    ))  # fmt: skip
    states = ("pass", "fail", "expected failure", "not applicable")
    rows: list[list[Cell]] = []
    for _, result in results:
        counts = [str(sum(v.status == state for v in result.verdicts)) for state in states]
        rows.append([code(result.estimator), _verdict("pass" if result.passed else "fail"), *counts])
    section.add(table(["estimator", "verdict", *states], rows, kinds=["", "", *["number"] * 4]))
    for _, result in results:
        properties = [[v.name, _verdict(v.status), v.detail] for v in result.verdicts]
        section.add(details(result.estimator, table(["property", "status", "detail"], properties)))
    return section


def theory(results: Sequence[tuple[str, TheoryResult]]) -> Section:
    """One line and one figure per claim."""
    section = Section("What is true, and what only looks true")
    for file, result in results:
        if len(results) > 1:
            section.add(heading(file))
        rows: list[list[Cell]] = [
            [claim.title, Markup(f'<span class="{"good" if claim.holds else "bad"}">{claim.verdict}</span>'),
             "; ".join(claim.broken) or f"{len(claim.requirements)} met", claim.method, claim.source]
            for claim in result.claims
        ]  # fmt: skip
        section.add(table(["claim", "verdict", "what was required of the numbers", "found by", "source"], rows))
        for claim in result.claims:
            section.draw(
                partial(theory_figures.build, claim),
                f"{theory_figures.heading(claim)}: {claim.title}",
                claim.statement,
            )
    return section


def _noise_table(rows: Sequence[LayerNoise]) -> Markup:
    head = [
        "layer",
        "estimator",
        "scores",
        "batches",
        "squared error / minibatch variance",
        "of it bias²",
        "persistent bias²",
        "method",
    ]
    body: list[list[Cell]] = [
        [
            row.layer, code(row.estimator), row.scores, f"{len(row.deviations)}", str(row.ratio),
            in_percent(row.bias_ratio), in_percent(row.persistent_ratio),
            METHODS[row.method] + (f", {row.draws:,} draws" if row.draws is not None else ""),
        ]
        for row in rows
    ]  # fmt: skip
    return table(head, body, kinds=numbers(3, 8, keep=(7,)))


def _verdict(status: str) -> Markup:
    sign = {"pass": "✓ ", "fail": "✗ "}.get(status, "")
    kind = {"pass": "good", "fail": "bad"}.get(status, "")
    return Markup(f'<span class="{kind}">{sign}{status}</span>' if kind else status)


def _training_row(run: TrainingResult) -> list[Cell]:
    seconds = f"{run.history[-1].seconds:,.1f}" if run.history else "–"
    seed = "–" if run.stamp.seed is None else str(run.stamp.seed)
    return [
        run.task, run.model, code(run.estimator), seed, f"{run.train_size:,}", f"{run.dev_size:,}", run.metric,
        f"{run.majority:.3f}", f"{run.best:.3f}", f"{run.final:.3f}", seconds, f"{run.converted}",
        f"{run.parameters:,}",
    ]  # fmt: skip


def _regret_table(found: Sequence[WinnerSweep]) -> Markup:
    """Per file, budget and kind of scores: how many winners, and how far the rules are from the best |C|."""
    rows: list[list[Cell]] = []
    for e in choice_summaries(found):
        best = "–" if e.best_fraction is None else f"{e.best_fraction:.2f}"
        paper, optimal = _median_and_worst(e.paper_regrets), _median_and_worst(e.optimal_regrets)
        rows.append([e.captures, e.scores, f"{e.budget:g}", str(e.cases), f"{e.paper_fraction:.2f}", *paper,
                     f"{e.optimal_fraction:.2f}", *optimal, best])  # fmt: skip
    groups = [("", 4), ("paper's choice", 3), ("exact-variance choice", 3), ("best", 1)]
    note = paragraph(
        "Medians over the cases, layers and batches. Regret: variance at the choice over that at the best |C|; 1 is "
        "perfect, 1.2 is 20 % more variance than needed.",
        "soft",
    )
    choice = ["|C| / k", "median regret", "worst regret"]
    head = ["captures", "scores", "budget", "cases", *choice, *choice, "|C| / k"]
    return Markup(table(head, rows, groups=groups, kinds=numbers(2, 11)) + note)


def _what(result: SweepResult) -> str:
    exact = all(s.products for s in result.sweeps)
    return "Exact variance" if exact else "Upper bound of the variance, without ‖G_T‖²,"


def _median_and_worst(regrets: Sequence[float]) -> tuple[str, str]:
    return (f"{median(regrets):.3f}", f"{max(regrets):.3f}") if regrets else ("–", "–")


def _sweep_table(found: Sequence[WinnerSweep]) -> Markup:
    choice = ["|C|", "regret"]
    head = ["captures", "layer", "scores", "budget", "n", "k", *choice, *choice, "|C|", "variance", "variance"]
    groups = [("", 6), ("paper's choice", 2), ("exact-variance choice", 2), ("best", 2), ("CRS", 1)]
    body: list[list[Cell]] = [
        [
            s.captures, s.layer, s.scores, f"{s.budget:g}", f"{s.n}", f"{s.k}", f"{s.paper}", _regret(s, s.paper),
            f"{s.optimal}", _regret(s, s.optimal), *_best(s), number(s.crs),
        ]
        for s in found
    ]  # fmt: skip
    return table(head, body, groups=groups, kinds=numbers(3, 13))


def _regret(sweep: WinnerSweep, winners: int) -> str:
    value = regret(sweep, winners)
    return "–" if value is None else f"{value:.3f}"


def _best(sweep: WinnerSweep) -> tuple[Cell, Cell]:
    if sweep.best is None:
        return "–", "–"
    return f"{sweep.best}", number(choice_variance(sweep, sweep.best))
