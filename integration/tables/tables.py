"""Results as tables for the terminal."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Sequence
from statistics import median

from rich.markup import escape
from rich.table import Table

from wtacrs.estimators import available, lookup
from wtacrs.validation.layers.summary import choice_summaries
from wtacrs.validation.records.check import CheckResult
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.records.theory import TheoryResult
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.statistics.equivalence import nothing_learned

_STATUS_STYLE = {"pass": "green", "fail": "bold red", "expected failure": "yellow", "not applicable": "dim"}


def zoo_table() -> Table:
    """All registered estimators and what they promise."""
    table = Table(title="Estimators of dYᵀ X", title_justify="left")
    for column in ("name", "parameters", "unbiased", "random", "uses scores", "exact at k = n", "what it is"):
        table.add_column(column, overflow="fold")
    for name in available():
        cls = lookup(name)
        traits = cls.traits
        fields = ", ".join(str(parameter) for parameter in _parameters(cls))
        flags = (traits.unbiased, not traits.deterministic, traits.uses_scores, traits.exact_at_full_budget)
        table.add_row(name, fields, *map(_yes, flags), in_a_line(cls))
    return table


def in_a_line(cls: type) -> str:
    """What an estimator is, from the first line of its module: `name`: …"""
    module = inspect.getdoc(sys.modules[cls.__module__]) or ""
    return module.split("\n")[0].partition(": ")[2].rstrip(".") or cls.__name__


def sweep_table(result: SweepResult) -> Table:
    """|C| by rule and what each costs over the best |C|, by file, scores and budget."""
    table = Table(
        title="|C| of WTA-CRS: median |C|/k, and variance over that of the best |C| (median, worst)",
        title_justify="left",
    )
    columns = ("captures", "scores", "budget", "cases", "paper", "cost", "worst", "S_T²", "cost", "worst", "best")
    for column in columns:
        table.add_column(column, justify="left" if column in ("captures", "scores") else "right", overflow="fold")
    for entry in choice_summaries(result.sweeps):
        table.add_row(
            entry.captures,
            entry.scores,
            f"{entry.budget:g}",
            str(entry.cases),
            f"{entry.paper_fraction:.2f}",
            *_costs(entry.paper_regrets),
            f"{entry.optimal_fraction:.2f}",
            *_costs(entry.optimal_regrets),
            "–" if entry.best_fraction is None else f"{entry.best_fraction:.2f}",
        )
    return table


def _costs(regrets: Sequence[float]) -> tuple[str, str]:
    return (f"{median(regrets):.3f}×", f"{max(regrets):.3f}×") if regrets else ("–", "–")


def check_table(result: CheckResult) -> Table:
    """One verdict per property."""
    table = Table(title=escape(result.estimator), title_justify="left")
    table.add_column("property")
    table.add_column("verdict")
    table.add_column("what was found", overflow="fold")
    for verdict in result.verdicts:
        style = _STATUS_STYLE[verdict.status]
        table.add_row(verdict.name, f"[{style}]{verdict.status}[/{style}]", escape(verdict.detail))
    return table


def check_summary(result: CheckResult) -> str:
    """One line: how many properties hold, and which are broken."""
    counts = Counter(verdict.status for verdict in result.verdicts)
    broken = [verdict.name for verdict in result.verdicts if verdict.status == "fail"]
    told = f"{result.estimator}: {counts['pass']} properties hold, {counts['not applicable']} do not apply"
    return f"{told}; broken: {', '.join(broken)}" if broken else told


def theory_table(result: TheoryResult) -> Table:
    """One verdict per claim; what the numbers do not meet is named."""
    table = Table(title="What is true, and what only looks true", title_justify="left")
    table.add_column("claim", overflow="fold")
    table.add_column("verdict")
    table.add_column("requirements", overflow="fold")
    for claim in result.claims:
        style = ("green" if claim.status == "true" else "yellow") if claim.holds else "bold red"
        met = "; ".join(claim.broken) or f"{len(claim.requirements)} met"
        table.add_row(claim.title, f"[{style}]{claim.verdict}[/{style}]", met)
    return table


def training_table(results: list[TrainingResult]) -> Table:
    """Runs side by side."""
    table = Table(title="Fine-tuning", title_justify="left")
    for column in ("estimator", "task", "train", "dev", "metric", "majority", "best", "final", "training seconds"):
        table.add_column(column, justify="left" if column in ("estimator", "task", "metric") else "right")
    for run in results:
        table.add_row(
            run.estimator,
            run.task,
            f"{run.train_size:,}",
            f"{run.dev_size:,}",
            run.metric,
            f"{run.majority:.3f}",
            f"{run.best:.3f}",
            f"{run.final:.3f}",
            f"{run.history[-1].seconds:.0f}",
        )
    return table


def _parameters(cls: type) -> list[inspect.Parameter]:
    return [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(cls).parameters.values()
    ]


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def warning_of(exact: Sequence[float], majority: float) -> str:
    """A line of warning where exact training learned nothing that could be spoilt."""
    if not nothing_learned(exact, majority):
        return ""
    return (
        "exact training is not clearly better than the most frequent class: nothing follows for the estimators\n"
    )
