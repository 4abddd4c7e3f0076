"""Is it unbiased, how large is the variance, which is better: library code, no pytest inside.

>>> import torch
>>> from wtacrs.estimators import make
>>> from wtacrs.validation import check_estimator, enumerate_moments
>>> x, dy = torch.eye(4, 3), torch.ones(4, 2)
>>> bool(torch.allclose(enumerate_moments(make("crs(budget=2)"), x, dy).mean, (dy.T @ x).double()))
True
>>> {verdict.status for verdict in check_estimator(make("exact"))} <= {"holds", "not applicable"}
True

The names below are imported when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wtacrs.estimators.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from wtacrs.validation.enumeration.exact_moments import enumerate_moments as enumerate_moments
    from wtacrs.validation.layers.candidates import Candidate as Candidate
    from wtacrs.validation.layers.candidates import candidates_from as candidates_from
    from wtacrs.validation.layers.captures import Captures as Captures
    from wtacrs.validation.layers.captures import LayerCapture as LayerCapture
    from wtacrs.validation.layers.captures import load_captures as load_captures
    from wtacrs.validation.layers.captures import write_captures as write_captures
    from wtacrs.validation.layers.compare import compare as compare
    from wtacrs.validation.layers.layer_tests import examine_layer as examine_layer
    from wtacrs.validation.layers.noise import layer_noise as layer_noise
    from wtacrs.validation.layers.scores import layer_scores as layer_scores
    from wtacrs.validation.layers.sweep import sweep_winners as sweep_winners
    from wtacrs.validation.properties.checks import CheckFailed as CheckFailed
    from wtacrs.validation.properties.checks import check_estimator as check_estimator
    from wtacrs.validation.properties.external_kinds import external_from as external_from
    from wtacrs.validation.properties.parametrize import parametrize_with_laws as parametrize_with_laws
    from wtacrs.validation.records.base import Record as Record
    from wtacrs.validation.records.base import Result as Result
    from wtacrs.validation.records.base import register_result as register_result
    from wtacrs.validation.records.base import stamp as stamp
    from wtacrs.validation.records.bench import BenchResult as BenchResult
    from wtacrs.validation.records.budgets import BudgetsResult as BudgetsResult
    from wtacrs.validation.records.check import CheckResult as CheckResult
    from wtacrs.validation.records.compare import ComparisonResult as ComparisonResult
    from wtacrs.validation.records.experiment import ExperimentResult as ExperimentResult
    from wtacrs.validation.records.factorial import FactorialResult as FactorialResult
    from wtacrs.validation.records.front import FrontResult as FrontResult
    from wtacrs.validation.records.growth import GrowthResult as GrowthResult
    from wtacrs.validation.records.layer_tests import LayerTestResult as LayerTestResult
    from wtacrs.validation.records.limits import LimitsResult as LimitsResult
    from wtacrs.validation.records.masks import MasksResult as MasksResult
    from wtacrs.validation.records.memory import MemoryResult as MemoryResult
    from wtacrs.validation.records.noise import NoiseResult as NoiseResult
    from wtacrs.validation.records.norms import NormsResult as NormsResult
    from wtacrs.validation.records.plan import Plan as Plan
    from wtacrs.validation.records.pretrain import PretrainingResult as PretrainingResult
    from wtacrs.validation.records.results import load_result as load_result
    from wtacrs.validation.records.results import load_results as load_results
    from wtacrs.validation.records.results import write_result as write_result
    from wtacrs.validation.records.scale import ScaleResult as ScaleResult
    from wtacrs.validation.records.scores import TrainingScoresResult as TrainingScoresResult
    from wtacrs.validation.records.simulation import SimulationResult as SimulationResult
    from wtacrs.validation.records.sweep import SweepResult as SweepResult
    from wtacrs.validation.records.theory import TheoryResult as TheoryResult
    from wtacrs.validation.records.track_memory import TrackedMemoryResult as TrackedMemoryResult
    from wtacrs.validation.records.training import TrainingResult as TrainingResult
    from wtacrs.validation.records.transfer import TransferResult as TransferResult
    from wtacrs.validation.records.winners import WinnersResult as WinnersResult
    from wtacrs.validation.runner import Runner as Runner
    from wtacrs.validation.statistics.equivalence import paired_equivalence as paired_equivalence
    from wtacrs.validation.statistics.moments import moments as moments
    from wtacrs.validation.statistics.monte_carlo import monte_carlo as monte_carlo
    from wtacrs.validation.statistics.significance import mean_test as mean_test
    from wtacrs.validation.statistics.significance import variance_test as variance_test
    from wtacrs.validation.statistics.variance_ratio import compare_variances as compare_variances

# public name to the module that holds it, which is imported when the name is first used
_HOMES = {
    "BenchResult": "records.bench",
    "BudgetsResult": "records.budgets",
    "Candidate": "layers.candidates",
    "Captures": "layers.captures",
    "CheckFailed": "properties.checks",
    "CheckResult": "records.check",
    "ComparisonResult": "records.compare",
    "ExperimentResult": "records.experiment",
    "FactorialResult": "records.factorial",
    "FrontResult": "records.front",
    "GrowthResult": "records.growth",
    "LayerCapture": "layers.captures",
    "LayerTestResult": "records.layer_tests",
    "LimitsResult": "records.limits",
    "MasksResult": "records.masks",
    "MemoryResult": "records.memory",
    "NoiseResult": "records.noise",
    "NormsResult": "records.norms",
    "Plan": "records.plan",
    "PretrainingResult": "records.pretrain",
    "Record": "records.base",
    "Result": "records.base",
    "Runner": "runner",
    "ScaleResult": "records.scale",
    "SimulationResult": "records.simulation",
    "SweepResult": "records.sweep",
    "TheoryResult": "records.theory",
    "TrackedMemoryResult": "records.track_memory",
    "TrainingResult": "records.training",
    "TrainingScoresResult": "records.scores",
    "TransferResult": "records.transfer",
    "WinnersResult": "records.winners",
    "candidates_from": "layers.candidates",
    "check_estimator": "properties.checks",
    "compare": "layers.compare",
    "compare_variances": "statistics.variance_ratio",
    "enumerate_moments": "enumeration.exact_moments",
    "examine_layer": "layers.layer_tests",
    "external_from": "properties.external_kinds",
    "layer_noise": "layers.noise",
    "layer_scores": "layers.scores",
    "load_captures": "layers.captures",
    "load_result": "records.results",
    "load_results": "records.results",
    "mean_test": "statistics.significance",
    "moments": "statistics.moments",
    "monte_carlo": "statistics.monte_carlo",
    "paired_equivalence": "statistics.equivalence",
    "parametrize_with_laws": "properties.parametrize",
    "register_result": "records.base",
    "stamp": "records.base",
    "sweep_winners": "layers.sweep",
    "variance_test": "statistics.significance",
    "write_captures": "layers.captures",
    "write_result": "records.results",
}

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:  # hidden from type checkers, for which it would make every misspelt name valid
    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
