"""The suite's one false-alarm budget: the probability that any statistical test rejects sound code.

Every stochastic test takes its level from here, by name. Sample sizes and seeds are fixed; nothing is tried twice.
"""

from __future__ import annotations

BUDGET = 1e-6

SHARES: dict[str, float] = {
    "monte carlo: mean": 8.2e-8,
    "monte carlo: standardised errors": 5e-8,
    "monte carlo: unbiased moments": 5e-8,
    "monte carlo: stated errors": 5e-8,
    "monte carlo: beside enumeration": 9e-9,
    "mean test: calibration": 5e-8,
    "mean test: sound estimators": 5e-8,
    "mean test: power": 5e-8,
    "mean test: null cases": 3e-8,
    "mean test: projections": 3e-8,
    "variance test: sound estimators": 5e-8,
    "variance test: calibration": 2e-8,
    "variance test: power": 1e-8,
    "variance ratio: calibration": 2e-8,
    "variance ratio: power and coverage": 2e-8,
    "layer tests": 1.8e-8,
    "staged splits": 2e-9,
    "comparison: monte carlo beside closed form": 5e-8,
    "checks: sound estimators": 1e-7,
    "checks: external code": 7.9e-8,
    "checks: dithered rows": 5e-9,
    "dithered rows: int8": 5e-9,
    "distributed: mean gradient": 1e-8,
    "checks: sketches and projections": 1e-8,
    "checks: mixed precision": 1e-9,
    "counter generator": 1e-8,
    "lean codes: mean gradient": 1e-9,
    "lean codes: variance": 1e-9,
    "t5: mean gradient": 6e-8,
    "architectures: mean gradient": 1e-8,
    "masks: mean gradient": 1e-8,
    "scores in training": 2e-8,
    "composites: moments": 9e-9,
    "equivalence": 1e-8,
    "tree of counts": 2e-9,
    "checks: subsampled": 1e-9,
    "subsampled: mean": 1e-9,
    "staged means": 2e-9,
    "properties: means": 8e-9,
    "factorial: planted": 1e-9,
    "variance cost: coverage": 2e-9,
    "trend: coverage": 1e-9,
}


def share(name: str, tests: int = 1) -> float:
    """Level of each of `tests` statistical tests that divide the share of this name."""
    return SHARES[name] / tests
