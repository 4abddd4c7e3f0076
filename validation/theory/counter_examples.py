"""Counter-examples to orderings that are easily believed; `wtacrs.validation.theory.claims` lists them."""

from __future__ import annotations

import torch

from wtacrs.estimators import make, row_norms
from wtacrs.estimators.core.mask_floor import MASK_FLOOR, scores_with_floor
from wtacrs.validation.problems import make_problem
from wtacrs.validation.records.theory import Claim, Requirement, Series
from wtacrs.validation.theory.quantities import (
    WITHOUT_REPLACEMENT,
    averaged_error,
    correlated,
    exact_variance,
    periodic,
    priority_variance_of_equal_scores,
)
from wtacrs.validation.theory.theorems import POISSON


def poisson(_: torch.Generator) -> Claim:
    """Rows of equal size and every mutual cosine: independent inclusion does not see them, CRS does."""
    n, k = 30, 10
    cosines = [round(0.05 * i, 2) for i in range(21)]
    specs = {
        "independent inclusion": POISSON,
        "CRS": "crs(budget={k})",
        "conditional Poisson": WITHOUT_REPLACEMENT[1],
    }
    series = [
        Series(
            label=label,
            estimator=spec.format(k=k),
            x=cosines,
            y=[exact_variance(spec.format(k=k), *correlated(n, c)) / n**2 for c in cosines],
        )
        for label, spec in specs.items()
    ]
    return Claim(
        name="poisson",
        title="Independent inclusion, no row twice, is better than CRS",
        statement="It is for orthogonal rows. For rows that are alike the random number of rows dominates, and CRS, "
        f"which always has k = {k} (of n = {n} rows), is far below. A fixed size without replacement is above neither.",
        status="looks true",
        source="Σ (1/π − 1) w² against (W² − ‖G‖²)/k",
        method="closed form",
        x_name="cosine between any two rows",
        y_name="variance / (Σ w)²",
        series=series,
        requirements=[
            Requirement(text="below CRS for orthogonal rows", smaller="independent inclusion", larger="CRS",
                        where="first point"),
            *(Requirement(text=f"conditional Poisson is never above: {s.label}", smaller="conditional Poisson",
                          larger=s.label, slack=1e-9) for s in series[:2]),
            Requirement(text="CRS is exact for equal rows", smaller="CRS", larger=1e-12, where="last point"),
            Requirement(text="independent inclusion is not", smaller=0.01, larger="independent inclusion",
                        where="last point"),
        ],
    )  # fmt: skip


def priority(_: torch.Generator) -> Claim:
    """Nearly parallel rows of equal size at every budget; for equal scores priority sampling has a closed form."""
    n = 30
    budgets = list(range(2, n))
    x, dy = correlated(n, 0.9)
    share = [k / n for k in budgets]
    columns = {
        "priority sampling": (
            "priority(budget=2)",
            [priority_variance_of_equal_scores(x, dy, k) for k in budgets],
        ),
        "independent inclusion": (
            POISSON.format(k=2),
            [exact_variance(POISSON.format(k=k), x, dy) for k in budgets],
        ),
        "CRS": ("crs(budget=2)", [exact_variance(f"crs(budget={k})", x, dy) for k in budgets]),
    }
    return Claim(
        name="priority",
        title="Priority sampling, k distinct rows, is better than CRS",
        statement=f"The number of rows is fixed, their total weight is not. {n} equal rows, cosine 0.9: the variance "
        "(n − k)/(k − 1)·Σ w² is far above that of CRS until nearly all rows are kept.",
        status="looks true",
        source="Duffield, Lund & Thorup 2007; coefficients of different rows are uncorrelated",
        method="closed form",
        x_name="budget k / n",
        y_name="variance / (Σ w)²",
        series=[
            Series(label=label, estimator=spec, x=share, y=[v / n**2 for v in variance])
            for label, (spec, variance) in columns.items()
        ],
        requirements=[
            Requirement(text="more than 5 times CRS at some budget", smaller="CRS", larger="priority sampling",
                        factor=5.0, where="some point"),
            Requirement(text="never below independent inclusion here", smaller="independent inclusion",
                        larger="priority sampling", slack=1e-12),
        ],
    )  # fmt: skip


def systematic_order(_: torch.Generator) -> Claim:
    """Every third row points the other way; at k = n/3 the step of the sample is the period of the rows."""
    n = 30
    x, dy = periodic(n, 3)
    budgets = list(range(1, n + 1))
    specs = {
        "systematic, order of the rows": 'systematic(budget={k}, order="rows")',
        "WTA-CRS": "wta_crs(budget={k})",
        "conditional Poisson": WITHOUT_REPLACEMENT[1],
    }
    series = [
        Series(
            label=label,
            estimator=spec.format(k=1),
            x=[float(k) for k in budgets],
            y=[exact_variance(spec.format(k=k), x, dy) / n**2 for k in budgets],
        )
        for label, spec in specs.items()
    ]
    return Claim(
        name="systematic-order",
        title="Systematic sampling in the order of the rows is never above WTA-CRS",
        statement=f"n = {n} rows of equal size, every third points the other way. Where the step n/k is a "
        "multiple of three (k = 1, 2, 5, 10) the sample is all of one kind, or holds none of it.",
        status="looks true",
        source="Madow 1949; joint inclusion probabilities of a fixed order",
        method="closed form",
        x_name="rows kept, k",
        y_name="variance / (Σ w)²",
        series=series,
        requirements=[
            Requirement(text="5 times WTA-CRS at some budget", smaller="WTA-CRS", larger=series[0].label, factor=5.0,
                        slack=-1e-3, where="some point"),
            Requirement(text="conditional Poisson is never above WTA-CRS", smaller="conditional Poisson",
                        larger="WTA-CRS", slack=1e-9),
        ],
    )  # fmt: skip


def crs_full(generator: torch.Generator) -> Claim:
    """Variance up to k = n."""
    n = 40
    x, dy = make_problem("gaussian", n, 4, 4, generator=generator)
    unit = float((dy.T @ x).square().sum())
    budgets = list(range(n // 4, n + 1))
    specs = {
        "CRS": "crs(budget={k})",
        "WTA-CRS": "wta_crs(budget={k})",
        "conditional Poisson": WITHOUT_REPLACEMENT[1],
    }
    series = [
        Series(
            label=label,
            estimator=spec.format(k=1),
            x=[k / n for k in budgets],
            y=[exact_variance(spec.format(k=k), x, dy) / unit for k in budgets],
        )
        for label, spec in specs.items()
    ]
    return Claim(
        name="crs-full",
        title="CRS is exact when its budget is all n rows",
        statement="n draws with replacement leave out more than a third of the rows in the mean: the variance is "
        "(W² − ‖G‖²)/n, not 0. WTA-CRS and every design without replacement keep all rows.",
        status="looks true",
        source="the closed form of crs at k = n",
        method="closed form",
        x_name="budget k / n",
        y_name="variance / ‖G‖²",
        series=series,
        requirements=[
            Requirement(text="CRS is not exact at k = n", smaller=0.01, larger="CRS", where="last point"),
            *(Requirement(text=f"{s.label} is", smaller=s.label, larger=1e-12, where="last point")
              for s in series[1:]),
        ],
    )  # fmt: skip


def topk(generator: torch.Generator) -> Claim:
    """Mean squared error of the average of T estimates of one product."""
    x, dy = make_problem("heavy_tailed", 100, 8, 8, generator=generator)
    unit, k, steps = float((dy.T @ x).square().sum()), 20, 1000
    shown = [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000]
    specs = {
        "CRS": "crs(budget={k})",
        "WTA-CRS": "wta_crs(budget={k})",
        "conditional Poisson": WITHOUT_REPLACEMENT[1],
    }
    series: list[Series] = []
    for label, spec in specs.items():
        error = averaged_error(x, dy, k, steps, spec)
        if not series:
            biased = [float(error.topk[t - 1]) / unit for t in shown]
            series.append(Series(label="top-k", estimator=f"topk(budget={k})", x=shown, y=biased))
        unbiased = [float(error.unbiased[t - 1]) / unit for t in shown]
        series.append(Series(label=label, estimator=spec.format(k=k), x=shown, y=unbiased))
    return Claim(
        name="topk",
        title="The smallest error in one step is the smallest error in the long run",
        statement="Mean squared error of the average of T estimates. Top-k leaves out the same rows every time: its "
        "error is all bias and stays. Unbiased errors fall as 1/T.",
        status="looks true",
        source="bias² + variance/T",
        method="closed form",
        x_name="number of averaged estimates, T",
        y_name="mean squared error / ‖G‖²",
        series=series,
        requirements=[
            *(Requirement(text=f"top-k is below {s.label} in one step", smaller="top-k", larger=s.label,
                          where="first point") for s in series[1:]),
            *(Requirement(text=f"top-k is above the average of {steps}: {s.label}", smaller=s.label, larger="top-k",
                          where="last point") for s in series[1:]),
        ],
    )  # fmt: skip


def plain_floor(generator: torch.Generator) -> Claim:
    """One row that grows beside others of size 1, and as many padding rows with a floor."""
    live, k = 30, 10
    x, dy = make_problem("gaussian", 2 * live, 8, 8, generator=generator)
    x, dy = x / row_norms(x).unsqueeze(1), dy / row_norms(dy).unsqueeze(1)
    mask = torch.arange(2 * live) < live
    dy = torch.where(mask[:, None], dy, 0.0)
    largest = [10.0 ** (i / 2) for i in range(13)]
    specs = {"WTA-CRS": f"wta_crs(budget={k})", "pivotal": WITHOUT_REPLACEMENT[0].format(k=k)}
    floors = {"δ of all": None, "δ of the tail": k}
    series = []
    for label, spec in specs.items():
        for floor, kept in floors.items():
            ratios = []
            for size in largest:
                grown = torch.cat([size * x[:1], x[1:]])
                scores, estimator = row_norms(grown), make(spec)
                alone = estimator.variance(grown, dy, scores=torch.where(mask, scores, 0.0))
                floored = estimator.variance(grown, dy, scores=scores_with_floor(scores, mask, kept))
                ratios.append(float(floored / alone))
            series.append(Series(label=f"{label}, {floor}", estimator=spec, x=largest, y=ratios))
    return Claim(
        name="plain-floor",
        title=f"A floor of δ = {MASK_FLOOR:g} of all scores under padding rows costs about δ",
        statement=f"{live} rows and {live} of padding, k = {k}; one row is larger than the others. It is kept for "
        "certain and needs no share, but it raises a floor in proportion to all scores: padding rows then eat the draws "
        "of the others. δ of the tail, the scores of rows that are not certain, costs about δ at every size.",
        status="looks true",
        source="τ'/τ ≥ 1 + δ/(1 − δ) · M/(p − 1) (scores_with_floor)",
        method="closed form",
        x_name="size of the largest row, others 1",
        y_name="variance / variance without padding",
        series=series,
        requirements=[
            *(Requirement(text=f"more than 10 times: {s.label}", smaller=10.0, larger=s.label, where="last point")
              for s in (series[0], series[2])),
            *(Requirement(text=f"within twice δ: {s.label}", smaller=s.label, larger=1.0 + 2.0 * MASK_FLOOR)
              for s in (series[1], series[3])),
        ],
    )  # fmt: skip
