"""The figures and the section of every kind of result: one entry a kind, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from wtacrs.estimators import InputError
from wtacrs.figures import sections
from wtacrs.figures.plots import (
    bench,
    budgets,
    comparison,
    experiment,
    factorial,
    front,
    growth,
    layer_tests,
    limits,
    masks,
    memory,
    noise,
    norms,
    oracle_ratio,
    plan,
    pretrain,
    saving,
    simulation,
    theory,
    training,
    transfer,
    winner_regret,
    winner_sweep,
    winners,
)
from wtacrs.figures.sections.blocks import Named, Section
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.theory import TheoryResult


@dataclass(frozen=True)
class Drawing:
    """One figure of a result: the stem of its file, and what builds it from the `options` that it takes.

    `fewer` says which option makes fewer panels; empty where none does.
    """

    name: str
    build: Callable[..., Sheet]
    options: tuple[str, ...] = ()
    fewer: str = ""


@dataclass(frozen=True)
class View:
    """How results of one kind are shown.

    Args:
        section: their section of the report.
        drawings: the figures of a result, the first one where one is asked for; of all results together with `joint`.
        no_figure: why there is none; either this or `drawings` is given.
        joint: the figures show several results side by side.

    Raises:
        InputError: if there are neither figures nor a reason, or both.
    """

    section: Callable[[Sequence[Named[Any]]], Section]
    drawings: Callable[[Any], Sequence[Drawing]] | None = None
    no_figure: str = ""
    joint: bool = False

    def __post_init__(self) -> None:
        if (self.drawings is None) == (not self.no_figure):
            raise InputError("a view has either drawings or no_figure, the reason why there are none")


_VIEWS: dict[str, View] = {}


def register_view(kind: str, view: View) -> None:
    """Show results of this kind so; the report has its sections in the order of registration.

    Raises:
        InputError: if the kind has a view already.
    """
    if kind in _VIEWS:
        raise InputError(f"kind={kind!r} has a view already")
    _VIEWS[kind] = view


def view_of(kind: str) -> View:
    """How results of a kind are shown.

    Raises:
        InputError: if nobody has said how.
    """
    if kind not in _VIEWS:
        raise InputError(f"kind {kind!r} has no figures and no section; registered are {', '.join(_VIEWS)}")
    return _VIEWS[kind]


def views() -> Mapping[str, View]:
    """The view of every kind, in the order of the report."""
    return MappingProxyType(_VIEWS)


def _one(name: str, build: Callable[..., Sheet], *options: str) -> Callable[[Any], Sequence[Drawing]]:
    return lambda result: [Drawing(name, partial(build, result), options)]


def _comparison(result: Any) -> Sequence[Drawing]:
    return [
        Drawing(
            "comparison", partial(comparison.build, result), ("against",), "against='bytes' shows one x axis alone"
        ),
        Drawing("oracle_ratio", partial(oracle_ratio.build, result)),
    ]


def _sweep(result: Any) -> Sequence[Drawing]:
    return [
        Drawing(
            "winner_sweep",
            partial(winner_sweep.build, result),
            ("budget", "relative_to", "layers"),
            "layers=[…], names or patterns, shows these layers alone",
        ),
        Drawing("winner_regret", partial(winner_regret.build, result)),
    ]


def _front(result: Any) -> Sequence[Drawing]:
    drawings = [Drawing("front", partial(front.build, result))]
    return [*drawings, Drawing("saving", partial(saving.build, result))] if result.parts else drawings


def _bench(result: Any) -> Sequence[Drawing]:
    drawings = [Drawing("bench", partial(bench.build, result))]
    return (
        drawings if result.step is None else [*drawings, Drawing("bench_step", partial(front.build, result.step))]
    )


def _theory(result: TheoryResult) -> Sequence[Drawing]:
    return [Drawing(f"theory_{claim.name}", partial(theory.build, claim)) for claim in result.claims]


register_view(
    "training",
    View(sections.training.section, _one("training_curves", training.build, "against"), joint=True),
)
register_view("experiment", View(sections.experiment.section, _one("experiment", experiment.build)))
register_view("growth", View(sections.growth.section, _one("growth", growth.build)))
register_view("factorial", View(sections.factorial.section, _one("factorial", factorial.build)))
register_view("limits", View(sections.limits.section, _one("limits", limits.build)))
register_view("budgets", View(sections.budgets.section, _one("budgets", budgets.build)))
register_view("gradient norms", View(sections.norms.section, _one("gradient_norms", norms.build)))
register_view(
    "training scores",
    View(sections.scores.section, no_figure="a few ratios for every budget: the table shows them"),
)
register_view("pretraining", View(sections.pretrain.section, _one("pretraining", pretrain.build), joint=True))
register_view("comparison", View(sections.compare.section, _comparison))
register_view("sweep", View(sections.sweep.section, _sweep))
register_view("winners", View(sections.winners.section, _one("winners", winners.build)))
register_view("transfer", View(sections.transfer.section, _one("transfer", transfer.build, "files")))
register_view("noise", View(sections.noise.section, _one("noise", noise.build)))
register_view("layer tests", View(sections.layer_tests.section, _one("layer_tests", layer_tests.build)))
register_view(
    "check",
    View(sections.check.section, no_figure="verdicts are words: the table shows all of them"),
)
register_view("masks", View(sections.masks.section, _one("masks", masks.build)))
register_view("front", View(sections.front.section, _front))
register_view("bench", View(sections.bench.section, _bench))
register_view("memory", View(sections.memory.section, _one("memory", memory.build)))
register_view("simulation", View(sections.simulation.section, _one("simulation", simulation.build)))
register_view("plan", View(sections.plan.section, _one("plan", plan.build)))
register_view(
    "tracked memory",
    View(sections.track_memory.section, no_figure="names of owners and their bytes: the table shows them"),
)
register_view(
    "scale",
    View(sections.scale.section, no_figure="a few seconds and bytes, unlike in size: the table shows them"),
)
register_view("theory", View(sections.theory.section, _theory))
