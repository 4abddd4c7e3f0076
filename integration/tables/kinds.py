"""The table of every kind of result: one entry a kind, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table

from wtacrs.estimators import InputError
from wtacrs.integration.tables.bench import bench_tables
from wtacrs.integration.tables.budgets import budgets_table
from wtacrs.integration.tables.check import check_table
from wtacrs.integration.tables.compare import comparison_table, oracle_ratio_table, ratio_table
from wtacrs.integration.tables.experiment import experiment_table
from wtacrs.integration.tables.factorial import factorial_tables
from wtacrs.integration.tables.front import front_table
from wtacrs.integration.tables.growth import growth_tables
from wtacrs.integration.tables.layer_tests import layer_test_tables
from wtacrs.integration.tables.limits import limits_tables
from wtacrs.integration.tables.masks import masks_table
from wtacrs.integration.tables.memory import memory_table, owners_tables
from wtacrs.integration.tables.noise import noise_table
from wtacrs.integration.tables.norms import norms_table
from wtacrs.integration.tables.plan import plan_table
from wtacrs.integration.tables.pretrain import pretraining_table
from wtacrs.integration.tables.scale import scale_table
from wtacrs.integration.tables.scores import scores_tables
from wtacrs.integration.tables.simulation import simulation_tables
from wtacrs.integration.tables.sweep import sweep_table
from wtacrs.integration.tables.theory import theory_table
from wtacrs.integration.tables.track_memory import track_memory_tables
from wtacrs.integration.tables.training import training_table
from wtacrs.integration.tables.transfer import transfer_table
from wtacrs.integration.tables.winners import winners_tables
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.compare import ComparisonResult

TablesOf = Callable[[Any], Sequence[Table]]
"""From a result to its tables."""

_TABLES: dict[str, TablesOf] = {}


def register_table(kind: str, tables: TablesOf) -> None:
    """Show results of this kind so.

    Raises:
        InputError: if the kind has its tables already.
    """
    if kind in _TABLES:
        raise InputError(f"kind={kind!r} has its tables already")
    _TABLES[kind] = tables


def tables_of(result: Result) -> Sequence[Table]:
    """The tables of a result, as the command that made it prints them.

    Raises:
        InputError: if none is registered for its kind.
    """
    if result.kind not in _TABLES:
        raise InputError(f"kind {result.kind!r} has no table; registered are {', '.join(_TABLES)}")
    return _TABLES[result.kind](result)


def _comparison(result: ComparisonResult) -> Iterator[Table]:
    yield comparison_table(result)
    for table in (oracle_ratio_table(result), ratio_table(result)):
        if table.row_count:
            yield table


register_table("bench", lambda result: list(bench_tables(result)))
register_table("budgets", lambda result: [budgets_table(result)])
register_table("check", lambda result: [check_table(result)])
register_table("comparison", lambda result: list(_comparison(result)))
register_table("experiment", lambda result: [experiment_table(result)])
register_table("factorial", factorial_tables)
register_table("front", lambda result: [front_table(result)])
register_table("gradient norms", lambda result: [norms_table(result)])
register_table("training scores", scores_tables)
register_table("layer tests", layer_test_tables)
register_table("growth", growth_tables)
register_table("limits", limits_tables)
register_table("masks", lambda result: [masks_table(result)])
register_table("memory", lambda result: [memory_table(result), *owners_tables(result)])
register_table("noise", lambda result: [noise_table(result)])
register_table("plan", lambda result: [plan_table(result)])
register_table("pretraining", lambda result: [pretraining_table(result)])
register_table("scale", lambda result: [scale_table(result)])
register_table("simulation", lambda result: list(simulation_tables(result)))
register_table("sweep", lambda result: [sweep_table(result)])
register_table("theory", lambda result: [theory_table(result)])
register_table("tracked memory", lambda result: list(track_memory_tables(result)))
register_table("training", lambda result: [training_table([result])])
register_table("transfer", lambda result: [transfer_table(result)])
register_table("winners", winners_tables)
