"""Theorems, each with exact numbers that would show it wrong; `wtacrs.validation.theory.claims` lists them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from wtacrs.estimators import joint_norms, make, row_norms
from wtacrs.estimators.core.mask_floor import MASK_FLOOR, scores_with_floor
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.rows.ranking import rank_rows
from wtacrs.estimators.rows.wta_crs import winner_objective
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.layers.sweep import winner_variances
from wtacrs.validation.problems import Problem, make_problem
from wtacrs.validation.records.theory import Claim, Requirement, Series
from wtacrs.validation.theory.quantities import (
    WITHOUT_REPLACEMENT,
    exact_variance,
    fanned,
    pairs_moment,
    winner_rules,
)

POISSON = "bernoulli(budget={k}, reserve=20.0)"
"""Independent inclusion with a slot for every row: Σ (1/π − 1) w²."""

PAPER, OPTIMAL = 'wta_crs(winners="paper")', 'wta_crs(winners="optimal")'
_ROUNDING = 1e-9
# a variance is rounded to about 1e-16 (Σ w)²: a ratio to one above _SMALL (Σ w)² is right to _RATIO_ROUNDING
_SMALL, _RATIO_ROUNDING = 1e-9, 1e-6
_FAMILIES = ("gaussian", "heavy_tailed", "one_dominating", "low_rank_mean", "coherent")


def _between(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _random_problems(count: int, rows: int, generator: torch.Generator) -> list[tuple[Problem, int]]:
    """Problems of all families in turn, 4 to `rows` rows, with a budget below their number of rows."""
    found = []
    for i in range(count):
        n = _between(4, rows, generator)
        d, m = _between(1, 8, generator), _between(1, 8, generator)
        problem = make_problem(_FAMILIES[i % len(_FAMILIES)], n, d, m, generator=generator)
        found.append((problem, _between(1, n - 1, generator)))
    return found


def ipps_optimum(generator: torch.Generator) -> Claim:
    """π = min(1, w/τ) against the same with w to another power: Karush–Kuhn–Tucker says that none is better."""
    k, exponents = 18, [round(0.1 * i, 1) for i in range(21)]
    series = []
    for family in ("gaussian", "heavy_tailed", "low_rank_mean"):
        x, dy = make_problem(family, 60, 8, 8, generator=generator)
        w = joint_norms(x, dy)
        poisson = make(POISSON.format(k=k))
        variance = torch.stack([poisson.variance(x, dy, scores=w**a) for a in exponents])
        relative = (variance / exact_variance(repr(poisson), x, dy)).tolist()
        series.append(
            Series(label=f"{family.replace('_', '-')} rows", estimator=repr(poisson), x=exponents, y=relative)
        )
    return Claim(
        name="ipps-optimum",
        title="Inclusion in proportion to size, π = min(1, w/τ), is the optimum",
        statement="Variance of independent inclusion, Σ (1/π − 1) w², when k of n rows are included with π = min(1, wᵃ/τ)"
        f" (k = {k}, n = 60): least at a = 1, in every problem. a = 0 gives all rows one chance.",
        status="true",
        source="Hájek 1964; the Karush–Kuhn–Tucker conditions of min Σ w²/π subject to Σ π = k, π ≤ 1",
        method="closed form",
        x_name="exponent a",
        y_name="variance / variance at a = 1",
        series=series,
        requirements=[
            Requirement(
                text=f"no exponent is below a = 1: {s.label}", smaller=1.0, larger=s.label, slack=_ROUNDING
            )
            for s in series
        ],
    )


def take_all(generator: torch.Generator) -> Claim:
    """The number of winners by the paper's rule against the size of the take-all set."""
    found = []
    for problem, k in _random_problems(250, 200, generator):
        found.append(winner_rules(joint_norms(*problem), k))
    found.sort(key=lambda rules: (rules.take_all, rules.optimal))
    sizes = [float(rules.take_all) for rules in found]
    paper = [float(rules.paper) for rules in found]
    optimal = [float(rules.optimal) for rules in found]
    return Claim(
        name="take-all",
        title="The paper's |C| rule picks the take-all set: the rows with π = 1",
        statement="argmin P_T/(k − |C|) goes on exactly while the next row's inclusion probability would exceed 1: all "
        f"{len(found)} random problems lie on the diagonal. The optimal rule keeps at least as many rows.",
        status="true",
        source="Liu et al. 2023 (arXiv 2305.15265), the rule after Theorem 2; inclusion probabilities of IPPS sampling",
        method="closed form",
        x_name="size of the take-all set",
        y_name="|C|",
        series=[
            Series(label="|C| = take-all set", x=sizes, y=sizes),
            Series(label="optimal rule", estimator=OPTIMAL, x=sizes, y=optimal),
            Series(label="paper's rule", estimator=PAPER, x=sizes, y=paper),
        ],
        requirements=[
            Requirement(
                text="no winner beyond the take-all set", smaller="paper's rule", larger="|C| = take-all set"
            ),
            Requirement(text="the whole take-all set wins", smaller="|C| = take-all set", larger="paper's rule"),
            Requirement(text="the optimal rule keeps no fewer", smaller="paper's rule", larger="optimal rule"),
        ],
    )


def optimal_rule(generator: torch.Generator) -> Claim:
    """Exact variance of WTA-CRS at the choices of the two rules, and the objective of the optimal rule there.

    The objective S_T²/(k − |C|) is the variance less the cross term ‖G_T‖²/(k − |C|), which neither rule looks at.
    """
    objective, variance = [], []
    for i in range(200):
        n = _between(40, 200, generator)
        x, dy = make_problem(("heavy_tailed", "low_rank_mean")[i % 2], n, 8, 8, generator=generator)
        k = _between(n // 10, n // 2, generator)
        ranking = rank_rows(sampling_scores(x, joint_norms(x, dy)))
        paper, optimal, _ = winner_rules(joint_norms(x, dy), k)
        loss, exact = winner_objective(ranking, k, "optimal"), winner_variances(ranking, x, dy, k)
        objective.append(float(loss[optimal] / loss[paper]))
        variance.append(float(exact[optimal] / exact[paper]))
    share = [(i + 0.5) / len(variance) for i in range(len(variance))]
    return Claim(
        name="optimal-rule",
        title="The paper's |C| is not the best for WTA-CRS: its tail is drawn with replacement",
        statement="The optimal rule against the paper's, in 200 random problems, oracle's scores. Its objective "
        "S_T²/(k − |C|) is never above; neither is the variance (S_T² − ‖G_T‖²)/(k − |C|) in nine problems of ten. It "
        "can lose where ‖G_T‖ is large, which neither rule looks at.",
        status="true",
        source="the closed form of wta_crs with p ∝ w",
        method="closed form",
        x_name="share of the problems, in order of the ratio",
        y_name="optimal rule / paper's rule",
        series=[
            Series(label="the same", x=share, y=[1.0] * len(share)),
            Series(label="objective S_T²/(k − |C|)", x=share, y=sorted(objective)),
            Series(label="exact variance", estimator=OPTIMAL, x=share, y=sorted(variance)),
        ],
        requirements=[
            Requirement(text="never above in the objective", smaller="objective S_T²/(k − |C|)", larger="the same"),
            Requirement(text="not above in variance in nine of ten", smaller="exact variance", larger="the same",
                        slack=_ROUNDING, where="nine points in ten"),
            Requirement(text="a tenth below in some", smaller="exact variance", larger="the same", factor=1.1,
                        where="some point"),
        ],
    )  # fmt: skip


def without_replacement(generator: torch.Generator) -> Claim:
    """Variance of three fixed-size designs over that of WTA-CRS with the same scores, in random problems."""
    ratios: dict[str, list[float]] = {spec: [] for spec in WITHOUT_REPLACEMENT}
    share = []
    for i, ((x, dy), k) in enumerate(_random_problems(240, 40, generator)):
        scores = joint_norms(x, dy) if i % 2 else row_norms(x)
        reference = float(make("wta_crs", budget=k).variance(x, dy, scores=scores))
        if reference <= _SMALL * _size(x, dy):
            continue
        share.append(k / x.shape[0])
        for spec, column in ratios.items():
            column.append(float(make(spec.format(k=k)).variance(x, dy, scores=scores)) / reference)
    series = [
        Series(label=label, estimator=spec.format(k=1), x=share, y=column)
        for label, (spec, column) in zip(
            ("pivotal", "conditional Poisson", "Sampford"), ratios.items(), strict=True
        )
    ]
    return Claim(
        name="without-replacement",
        title="Pivotal, conditional Poisson and Sampford sampling are never above WTA-CRS",
        statement=f"{len(share)} random problems of 4 to 40 rows, with the oracle's scores and with row norms; same "
        "scores, k and winners, but a tail drawn without replacement. Equal where that tail gets one draw.",
        status="true",
        source="Chauvet & Ruiz-Gazen 2017 (pivotal); Gabler 1984 (Sampford); negative dependence (conditional Poisson)",
        method="closed form",
        x_name="budget k / n",
        y_name="variance / variance of WTA-CRS",
        series=[Series(label="WTA-CRS", estimator=PAPER, x=[0.0, 1.0], y=[1.0, 1.0]), *series],
        requirements=[
            Requirement(text=f"{s.label} is never above", smaller=s.label, larger=1.0, slack=_RATIO_ROUNDING)
            for s in series
        ],
    )


def wta_condition(generator: torch.Generator) -> Claim:
    """Variance of WTA-CRS over that of CRS for any |C|, against the bound P_T·k/(k − |C|).

    With p ∝ w the variances are S_T² (1 − |m_T|²)/(k − |C|) and W² (1 − |m|²)/k, where m_T and m are the means of the
    unit pairs, weighted by p. By convexity |m|² ≤ P_C + P_T |m_T|², so 1 − |m|² ≥ P_T (1 − |m_T|²), and the ratio is
    at most P_T k/(k − |C|): below 1 exactly if Σ_C p > |C|/k.
    """
    points = []
    for (x, dy), k in _random_problems(120, 60, generator):
        ranking = rank_rows(sampling_scores(x, joint_norms(x, dy)))
        variance = winner_variances(ranking, x, dy, k)
        if float(variance[0]) <= _SMALL * _size(x, dy):
            continue
        for c in {0, k // 4, k // 2, 3 * k // 4, k - 1}:
            left = float(ranking.remainder[c] / ranking.remainder[0])
            points.append((left * k / (k - c), float(variance[c] / variance[0])))
    bound, ratio = (list(column) for column in zip(*sorted(points), strict=True))
    return Claim(
        name="wta-condition",
        title="WTA-CRS is below CRS if its winners earn their slots: Σ_C p > |C|/k",
        statement=f"{len(points)} choices of |C| in random problems, oracle's scores. Var WTA-CRS / Var CRS is at most "
        "P_T·k/(k − |C|): left of 1, where the condition is met, never above CRS. Right of 1 nothing is promised.",
        status="true",
        source="Liu et al. 2023 (arXiv 2305.15265), Theorem 2; here for every G, by convexity",
        method="closed form",
        x_name="P_T·k / (k − |C|)",
        y_name="variance of WTA-CRS / variance of CRS",
        series=[
            Series(label="bound", x=bound, y=bound),
            Series(label="CRS", estimator="crs", x=bound, y=[1.0] * len(bound)),
            Series(label="WTA-CRS", estimator=PAPER, x=bound, y=ratio),
        ],
        requirements=[
            Requirement(text="never above the bound", smaller="WTA-CRS", larger="bound", slack=_RATIO_ROUNDING),
            Requirement(text="above CRS where it is not met", smaller="CRS", larger="WTA-CRS", factor=1.1,
                        where="some point"),
        ],
    )  # fmt: skip


def any_scores(generator: torch.Generator) -> Claim:
    """Mean and variance over all outcomes, with scores that are more and more beside the point."""
    sizes = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    x, dy = fanned(sizes, torch.randn(5, 3, generator=generator, dtype=torch.float64), 1.0)
    w, unit = joint_norms(x, dy), _size(x, dy)
    exponents = [round(-1 + 0.25 * i, 2) for i in range(13)]
    series = []
    for label, spec in (("CRS", "crs(budget=2)"), ("WTA-CRS", "wta_crs(budget=3)")):
        moments = [enumerate_moments(make(spec), x, dy, scores=w**a) for a in exponents]
        bias = [float((found.mean - dy.T @ x).square().sum()) / unit for found in moments]
        variance = [found.variance / unit for found in moments]
        series += [
            Series(label=f"{label}: variance", estimator=spec, x=exponents, y=variance),
            Series(label=f"{label}: bias²", estimator=spec, x=exponents, y=bias),
        ]
    oracle = series[0].y[exponents.index(1.0)]
    return Claim(
        name="any-scores",
        title="Unbiased for any positive scores; only the variance suffers",
        statement="All outcomes on 5 rows of sizes 1, 2, 4, 8, 16, enumerated (CRS: 2 draws, WTA-CRS: 3 rows). Scores "
        "wᵃ: a = 1 is the oracle, a = 0 knows nothing, a < 0 is the wrong way round. bias² is rounding throughout.",
        status="true",
        source="the proofs of the mean in crs and wta_crs",
        method="enumeration",
        x_name="exponent a of the scores wᵃ",
        y_name="relative to (Σ w)²",
        series=series,
        requirements=[
            *(Requirement(text=f"no bias beyond rounding: {b.label}", smaller=b.label, larger=v.label, factor=1e20,
                          slack=_ROUNDING) for v, b in (series[:2], series[2:])),
            Requirement(text="the oracle is the best for CRS", smaller=oracle, larger="CRS: variance"),
            Requirement(text="scores the wrong way round cost 5 times the variance", smaller=oracle,
                        larger="CRS: variance", factor=5.0, where="first point"),
        ],
    )  # fmt: skip


def mask_hint(generator: torch.Generator) -> Claim:
    """Enumerated mean and variance when a mask calls rows padding that have a gradient."""
    sizes = 2.0 ** torch.arange(5, dtype=torch.float64).unsqueeze(1)
    x = sizes * torch.nn.functional.normalize(torch.randn(5, 4, generator=generator, dtype=torch.float64))
    dy = torch.nn.functional.normalize(torch.randn(5, 4, generator=generator, dtype=torch.float64))
    unit, w = _size(x, dy), joint_norms(x, dy)
    masks = [torch.arange(5) >= wrong for wrong in range(1, 5)]
    hidden = [float(w[~mask].sum() / w.sum()) for mask in masks]
    left_out = [
        enumerate_moments(make("crs(budget=2)"), x, dy, scores=torch.where(mask, w, 0.0)) for mask in masks
    ]
    lost = [float((found.mean - dy.T @ x).square().sum()) / unit for found in left_out]
    series = [Series(label="score 0: bias²", x=hidden, y=lost)]
    for label, spec, k in (("CRS", "crs(budget=2)", 2), ("WTA-CRS", "wta_crs(budget=3)", 3)):
        moments = [enumerate_moments(make(spec), x, dy, scores=scores_with_floor(w, mask, k)) for mask in masks]
        bias = [float((found.mean - dy.T @ x).square().sum()) / unit for found in moments]
        variance = [found.variance / unit for found in moments]
        series += [
            Series(label=f"{label}, floor: variance", estimator=spec, x=hidden, y=variance),
            Series(label=f"{label}, floor: bias²", estimator=spec, x=hidden, y=bias),
        ]
    return Claim(
        name="mask-hint",
        title="With a floor under masked rows the mean is exact, whatever the mask says",
        statement="All outcomes on 5 rows of sizes 1, 2, 4, 8, 16, enumerated (CRS: 2 draws, WTA-CRS: 3 rows). A mask "
        "takes the smallest one, two, three or four for padding although they have a gradient. At score 0 they are "
        "missing from the mean. With a floor bias² is rounding, and a wrong mask costs variance.",
        status="true",
        source="every row of positive score has a positive chance (scores_with_floor)",
        method="enumeration",
        x_name="share of Σ w that the mask hides",
        y_name="relative to (Σ w)²",
        series=series,
        requirements=[
            *(Requirement(text=f"no bias beyond rounding: {b.label}", smaller=b.label, larger=v.label, factor=1e20,
                          slack=_ROUNDING) for v, b in (series[1:3], series[3:])),
            Requirement(text="at score 0 they are missing", smaller=5e-4, larger="score 0: bias²"),
            Requirement(text="a mask that hides nearly all costs variance", smaller=1.0, larger="CRS, floor: variance",
                        where="last point"),
        ],
    )  # fmt: skip


def mask_cost(generator: torch.Generator) -> Claim:
    """Second moment of the pairs with padding rows in reach, over that without them, in random problems."""
    labels = {
        "CRS": "crs(budget={k})",
        "WTA-CRS": "wta_crs(budget={k})",
        "conditional Poisson": WITHOUT_REPLACEMENT[1],
    }
    growth: dict[str, list[float]] = {label: [] for label in labels}
    share = []
    for (x, dy), k in _random_problems(160, 60, generator):
        n = x.shape[0]
        mask = torch.rand(n, generator=generator) < torch.rand((), generator=generator)
        mask[_between(0, n - 1, generator)] = True
        dy, scores = torch.where(mask[:, None], dy, 0.0), row_norms(x)
        share.append(k / n)
        for label, spec in labels.items():
            estimator = make(spec.format(k=k))
            alone = pairs_moment(estimator, x, dy, torch.where(mask, scores, 0.0))
            growth[label].append(pairs_moment(estimator, x, dy, scores_with_floor(scores, mask, k)) / alone)
    bound = 1.0 / (1.0 - MASK_FLOOR)
    return Claim(
        name="mask-cost",
        title=f"Where the mask is right, a floor of δ = {MASK_FLOOR:g} costs at most 1/(1 − δ)",
        statement=f"{len(share)} random problems of 4 to 60 rows, a random part of them padding, row norms as scores. "
        "Σ w² E[Σ weight²], the second moment of the pairs, with padding in reach over that without it. It is 1 where "
        "k exceeds the number of real rows: they all stay certain.",
        status="true",
        source="τ' ≤ τ/(1 − δ) (scores_with_floor)",
        method="closed form",
        x_name="budget k / n",
        y_name="second moment / second moment without padding",
        series=[
            Series(label="1/(1 − δ)", x=[0.0, 1.0], y=[bound, bound]),
            *(Series(label=label, estimator=labels[label].format(k=1), x=share, y=y) for label, y in growth.items()),
        ],
        requirements=[
            *(Requirement(text=f"never above the bound: {label}", smaller=label, larger=bound, slack=_ROUNDING)
              for label in labels),
            *(Requirement(text=f"half of the bound is met somewhere: {label}", smaller=1.0 + MASK_FLOOR / 2, larger=label,
                          where="some point") for label in labels),
        ],
    )  # fmt: skip


def oracle_ratio(generator: torch.Generator) -> Claim:
    """Variance with row norms over that with the oracle's scores, as the norms of dY scatter."""
    n, k = 400, 120
    x, dy = make_problem("gaussian", n, 8, 8, generator=generator)
    x, direction = x / row_norms(x).unsqueeze(1), dy / row_norms(dy).unsqueeze(1)
    log_norms = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    sigmas = [round(0.125 * i, 3) for i in range(13)]
    labels = {
        "CRS": "crs(budget={k})",
        "WTA-CRS": "wta_crs(budget={k})",
        "conditional Poisson": WITHOUT_REPLACEMENT[1],
    }
    series = []
    for label, spec in labels.items():
        estimator, ratios = make(spec.format(k=k)), []
        for sigma in sigmas:
            scaled = direction * (sigma * log_norms).exp()
            blind = estimator.variance(x, scaled)
            ratios.append(float(blind / estimator.variance(x, scaled, scores=joint_norms(x, scaled))))
        series.append(Series(label=label, estimator=repr(estimator), x=sigmas, y=ratios))
    return Claim(
        name="oracle-ratio",
        title="The variance ratio to the oracle grows with the scatter of the row norms of dY",
        statement="Variance with row norms ‖x‖, known in the forward pass, over that with the oracle's ‖x‖‖y‖, when "
        f"‖y‖ = exp(σ z), z normal (k = {k} of n = {n}). The better a design uses good scores, the larger its ratio.",
        status="true",
        source="Σ w²/p is least at p ∝ w (Cauchy–Schwarz)",
        method="closed form",
        x_name="σ, the standard deviation of log ‖y‖",
        y_name="variance, row norms / oracle",
        series=series,
        requirements=[
            *(Requirement(text=f"1 where all ‖y‖ are equal: {s.label}", smaller=s.label, larger=1.0,
                          slack=_ROUNDING, where="first point") for s in series),
            Requirement(text="the oracle is never worse for CRS", smaller=1.0, larger="CRS", slack=_ROUNDING),
            Requirement(text="above 2 for CRS at σ = 1.5", smaller=2.0, larger="CRS", where="last point"),
            *(Requirement(text=f"{b.label} above {a.label} at σ = 1.5", smaller=a.label, larger=b.label,
                          where="last point") for a, b in pairwise(series)),
        ],
    )  # fmt: skip


def coherent_rows(generator: torch.Generator) -> Claim:
    """Rows that turn away from one direction: Horvitz–Thompson weights 1/π ∝ 1/w make every pair count alike."""
    n, k = 40, 12
    sizes = 1.0 / (1.0 - torch.rand(n, generator=generator, dtype=torch.float64)).clamp(min=0.1)
    directions = torch.randn(n, 8, generator=generator, dtype=torch.float64)
    angles = [round(0.05 * i, 2) for i in range(21)]
    problems = [fanned(sizes, directions, angle) for angle in angles]
    specs = {
        "independent inclusion": POISSON,
        "CRS": "crs(budget={k})",
        "WTA-CRS": "wta_crs(budget={k})",
        "conditional Poisson": WITHOUT_REPLACEMENT[1],
    }
    series = []
    for label, spec in specs.items():
        variance = [exact_variance(spec.format(k=k), *p) / _size(*p) for p in problems]
        series.append(Series(label=label, estimator=spec.format(k=k), x=angles, y=variance))
    return Claim(
        name="coherent-rows",
        title="For parallel rows, a fixed number drawn in proportion to size is exact",
        statement=f"Each of k = {k} drawn rows then brings the same share of G, whichever it is. Independent inclusion "
        "brings a random number of shares. Rows of unequal size turn away from one direction, to the right.",
        status="true",
        source="Horvitz & Thompson 1952",
        method="closed form",
        x_name="angle between the rows and their common direction, radians",
        y_name="variance / (Σ w)²",
        series=series,
        requirements=[
            *(Requirement(text=f"exact for parallel rows: {s.label}", smaller=s.label, larger=1e-12,
                          where="first point") for s in series[1:]),
            Requirement(text="independent inclusion is not", smaller=1e-3, larger="independent inclusion",
                        where="first point"),
            Requirement(text="conditional Poisson is never above WTA-CRS", smaller="conditional Poisson",
                        larger="WTA-CRS", slack=_ROUNDING),
        ],
    )  # fmt: skip


def _size(x: Tensor, dy: Tensor) -> float:
    return float(joint_norms(x, dy).sum()) ** 2
