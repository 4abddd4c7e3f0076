"""The quantities that theorems and counter-examples compare, exact and without any sampling, and their problems."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators import Estimator, RowEstimator, joint_norms, make, rows_for, sampling_scores
from wtacrs.estimators.rows.inclusion import inclusion
from wtacrs.estimators.rows.ranking import rank_rows
from wtacrs.estimators.rows.wta_crs import winner_objective
from wtacrs.validation.problems import Problem

# variance at most that of the tail drawn with replacement, by proof, for every problem
WITHOUT_REPLACEMENT = (
    'pivotal(budget={k}, order="rows")',
    "conditional_poisson(budget={k})",
    "sampford(budget={k})",
)


class WinnerRules(NamedTuple):
    """Numbers of winners: by the paper's rule, by the optimal rule, and of the take-all set."""

    paper: int
    optimal: int
    take_all: int


class Averaged(NamedTuple):
    """Mean squared error of the average of T estimates of one product, for T = 1, 2, …"""

    topk: Float64[Tensor, " steps"]
    unbiased: Float64[Tensor, " steps"]


def winner_rules(scores: Float64[Tensor, " n"], k: int) -> WinnerRules:
    """|C| by each rule, for k < n rows."""
    ready = sampling_scores(scores.new_zeros((scores.shape[0], 1)), scores)
    ranking = rank_rows(ready)
    paper, optimal = (int(winner_objective(ranking, k, rule).argmin()) for rule in ("paper", "optimal"))
    return WinnerRules(paper, optimal, int(inclusion(ready, k).taken))


def exact_variance(spec: str, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> float:
    """Closed-form variance with the oracle's scores."""
    return float(make(spec).variance(x, dy, scores=joint_norms(x, dy)))


def pairs_moment(
    estimator: Estimator, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], scores: Float64[Tensor, " n"]
) -> float:
    """`Σ_i w_i² E Σ_j weight_j²` of a row design: what is left of `E‖Ĝ‖²` for pairs that are orthogonal."""
    if not isinstance(estimator, RowEstimator):
        raise TypeError(f"{estimator!r} is no row design")
    return float((estimator.weight_squares(sampling_scores(x, scores)) * joint_norms(x, dy).square()).sum())


def averaged_error(x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], k: int, steps: int, spec: str) -> Averaged:
    """top-k has its bias at every step; the variance of T independent unbiased estimates falls as 1/T."""
    scores = joint_norms(x, dy)
    bias = make("topk", budget=k).expectation(x, dy, scores=scores) - dy.double().T @ x.double()
    variance = make(spec.format(k=k)).variance(x, dy, scores=scores)
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    return Averaged(bias.square().sum().expand(steps), variance / t)


def periodic(n: int, period: int) -> Problem:
    """Every `period`-th pair points the other way: systematic sampling with that step meets one kind only."""
    sign = torch.where(torch.arange(n) % period == 0, -1.0, 1.0).double()
    return Problem(sign.unsqueeze(1), torch.ones(n, 1, dtype=torch.float64))


def correlated(n: int, cosine: float) -> Problem:
    """n pairs of size 1 with one mutual cosine from 0 (orthogonal) to 1 (equal)."""
    common = torch.full((n, 1), cosine**0.5, dtype=torch.float64)
    own = torch.eye(n, dtype=torch.float64) * (1.0 - cosine) ** 0.5
    return Problem(torch.cat([common, own], dim=1), torch.ones(n, 1, dtype=torch.float64))


def fanned(sizes: Float64[Tensor, " n"], directions: Float64[Tensor, "n d"], angle: float) -> Problem:
    """Rows of the given sizes, each turned by `angle` from the first axis towards its own direction across it."""
    across = directions / directions.norm(dim=1, keepdim=True)
    along = torch.full((sizes.shape[0], 1), math.cos(angle), dtype=torch.float64)
    rows = torch.cat([along, math.sin(angle) * across], dim=1)
    return Problem(rows * sizes.unsqueeze(1), torch.ones_like(along))


def priority_variance_of_equal_scores(x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], k: int) -> float:
    """`(n − k)/(k − 1) Σ w²` for equal scores and k ≥ 2.

    The k-th largest of n − 1 priorities 1/u is 1/U with U the k-th least of n − 1 uniform numbers, and
    `E[1/U] = (n − 1)/(k − 1)`; coefficients of different rows are uncorrelated.
    """
    n = x.shape[0]
    rows = rows_for(k, n)
    return float((n - rows) / (rows - 1) * joint_norms(x, dy).square().sum())
