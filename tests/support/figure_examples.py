"""Small results for the tests of the figures, computed from the real estimators on random matrices."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from wtacrs.estimators import CRS, WTACRS, Estimator, joint_norms, make, row_norms, saved_bytes, spec
from wtacrs.estimators.rows.ranking import rank_rows
from wtacrs.validation.layers.captures import LayerCapture
from wtacrs.validation.layers.noise import layer_entries, layer_noise, model_noise
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.check import CheckResult, Verdict
from wtacrs.validation.records.compare import ComparisonResult, ComparisonRow
from wtacrs.validation.records.noise import NoiseResult
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.records.theory import TheoryResult
from wtacrs.validation.records.training import TrainingPoint, TrainingResult
from wtacrs.validation.theory.claims import theory as compute_theory

N, D, M, K = 40, 6, 5, 12
LAYERS = tuple(f"encoder.block.{i}.layer.0.SelfAttention.{m}" for i in range(3) for m in ("q", "k"))
SPECS = ("exact", "topk", "crs", "wta_crs", 'wta_crs(winners="optimal")')
BUDGETS = (0.1, 0.3, 0.5)
RUNS = ("exact", "wta_crs(budget=0.3)", "wta_crs(budget=0.1)", "crs(budget=0.1)")


def problem(seed: int) -> tuple[Tensor, Tensor]:
    """X and dY in fp64 with rows of very different size."""
    g = torch.Generator().manual_seed(seed)
    x, dy = (torch.randn(N, width, generator=g, dtype=torch.float64) + 0.3 for width in (D, M))
    sizes = torch.randn(N, 2, generator=g, dtype=torch.float64).exp()
    return x * sizes[:, :1], dy * sizes[:, 1:]


def configured(text: str, budget: float | None) -> Estimator:
    """The estimator of a spec without budget at a budget."""
    if budget is None:
        return make(text)
    name, _, rest = text.partition("(")
    return make(f"{name}(budget={budget}" + (f", {rest}" if rest else ")"))


def comparison_row(layer: str, seed: int, estimator: Estimator, budget: float | None, kind: str) -> ComparisonRow:
    """One row from the closed forms."""
    x, dy = problem(seed)
    exact = dy.T @ x
    scores = row_norms(x) if kind == "row-norms" else joint_norms(x, dy)
    size = exact.square().sum().item()
    variance = estimator.variance(x, dy, scores=scores).item() / size
    mean = estimator.expectation(x, dy, scores=scores)
    bias = (mean - exact).square().sum().item() / size
    second = variance + mean.square().sum().item() / size
    return ComparisonRow(
        layer=layer, estimator=spec(estimator), requested=spec(estimator), bytes_share=None, budget=budget, scores=kind,
        n=N, d=D, m=M, bias_squared=bias, variance=variance, mse=bias + variance, steps=100,
        mse_of_mean=bias + variance / 100, cosine=(mean * exact).sum().item() / size / second**0.5,
        method="closed form",
        saved_bytes=saved_bytes(estimator.compress(x, scores=scores)), exact_bytes=x.numel() * x.element_size(),
        macs=estimator.macs(N, D, M), exact_macs=N * D * M,
    )  # fmt: skip


def sampled_row(layer: str, seed: int, budget: float, draws: int = 50) -> ComparisonRow:
    """External code, CRS shrunk by a tenth, measured by Monte Carlo; it does not state its macs."""
    x, dy = problem(seed)
    exact, crs, g = dy.T @ x, CRS(budget=budget), torch.Generator().manual_seed(seed)
    estimates = torch.stack([0.9 * crs.contract(crs.compress(x, generator=g), dy) for _ in range(draws)])
    size = exact.square().sum()
    errors = (estimates - estimates.mean(0)).square().sum((1, 2)) / size
    bias = ((estimates.mean(0) - exact).square().sum() / size).item()
    return ComparisonRow(
        layer=layer, estimator=f"shrunk(budget={budget})", requested=f"shrunk(budget={budget})", bytes_share=None,
        budget=budget, scores="row-norms", n=N, d=D, m=M, bias_squared=bias, variance=errors.mean().item(),
        mse=bias + errors.mean().item(), steps=100, mse_of_mean=bias + errors.mean().item() / 100,
        cosine=torch.nn.functional.cosine_similarity(estimates.mean(0).flatten(), exact.flatten(), dim=0).item(),
        method="monte carlo", draws=draws, variance_error=(errors.std() / draws**0.5).item(),
        mse_error=(errors.std() / draws**0.5).item(), saved_bytes=saved_bytes(crs.compress(x)),
        exact_bytes=x.numel() * x.element_size(), macs=None, exact_macs=N * D * M,
    )  # fmt: skip


def comparison(layers: tuple[str, ...] = LAYERS) -> ComparisonResult:
    """Four closed forms and exact with both kinds of scores, and one estimator by Monte Carlo."""
    rows = [
        comparison_row(layer, seed, configured(text, budget), budget, kind)
        for seed, layer in enumerate(layers)
        for kind in ("row-norms", "oracle")
        for text in SPECS
        for budget in ((None,) if text == "exact" else BUDGETS)
    ]
    rows += [sampled_row(layer, seed, budget) for seed, layer in enumerate(layers) for budget in BUDGETS]
    return ComparisonResult(stamp=stamp(seed=0, inputs={"captures": "layers.safetensors"}), rows=rows)


def winner_sweep(layer: str, seed: int, kind: str, captures: str = "small") -> WinnerSweep:
    """The exact variance at every |C|."""
    x, dy = problem(seed)
    scores = row_norms(x) if kind == "row-norms" else joint_norms(x, dy)
    size = (dy.T @ x).square().sum().item()
    variance = [WTACRS(budget=K, winners=c).variance(x, dy, scores=scores).item() / size for c in range(K)]
    ranking = rank_rows(scores.double())
    return WinnerSweep(
        captures=captures, layer=layer, scores=kind, budget=K / N, n=N, k=K, products=True, winners=list(range(K)),
        variance=variance,
        paper=int(WTACRS(budget=K, winners="paper").winner_count(ranking, K)),
        optimal=int(WTACRS(budget=K, winners="optimal").winner_count(ranking, K)),
        best=min(range(K), key=variance.__getitem__),
        crs=CRS(budget=K).variance(x, dy, scores=scores).item() / size,
    )  # fmt: skip


def sweep(layers: tuple[str, ...] = LAYERS) -> SweepResult:
    """Sweeps with both kinds of scores."""
    return SweepResult(
        stamp=stamp(seed=0),
        sweeps=[winner_sweep(x, seed, kind) for seed, x in enumerate(layers) for kind in ("row-norms", "oracle")],
    )


def noise(batches: int = 5) -> NoiseResult:
    """Two layers on a few batches: closed forms, a biased estimator, and one by Monte Carlo."""
    entries = {
        f"{layer}#{b}": LayerCapture(*problem(10 * i + b), torch.ones(N, dtype=torch.bool))
        for i, layer in enumerate(LAYERS[:2])
        for b in range(batches)
    }
    specs = [f"{name}(budget={b})" for name in ("topk", "crs", "wta_crs", "priority") for b in (0.1, 0.3)]
    rows = [
        row
        for layer, found in layer_entries(entries).items()
        for row in layer_noise(layer, entries, list(found.values()), ["exact", *specs], draws=8)
    ]
    return NoiseResult(stamp=stamp(seed=0), level=0.95, models=model_noise(rows), layers=rows)


def training(text: str, seed: int = 0, task: str = "planes") -> TrainingResult:
    """A linear classifier of three classes trained with the estimator; seconds are counted, not measured."""
    data = torch.Generator().manual_seed(7)
    x = torch.randn(300, 8, generator=data)
    y = (x @ torch.randn(8, 3, generator=data) + torch.tensor([0.9, 0.0, 0.0])).argmax(1)
    estimator, draws, weight, history = make(text), torch.Generator().manual_seed(seed), torch.zeros(3, 8), []
    for step in range(1, 13):
        probabilities = (x[:200] @ weight.T).softmax(1)
        loss = -probabilities[torch.arange(200), y[:200]].log().mean().item()
        dy = (probabilities - torch.nn.functional.one_hot(y[:200], 3)) / 200
        weight = weight - estimator.contract(estimator.compress(x[:200], generator=draws), dy)
        accuracy = ((x[200:] @ weight.T).argmax(1) == y[200:]).float().mean().item()
        history.append(
            TrainingPoint(
                step=step, epoch=float(step), train_loss=loss, dev={"accuracy": accuracy}, seconds=step / 4
            )
        )
    scores = [point.dev["accuracy"] for point in history]
    return TrainingResult(
        stamp=stamp(seed=seed), task=task, model="linear", estimator=spec(estimator), parameters=24, converted=1,
        train_size=200, dev_size=100, metric="accuracy",
        majority=(y[200:] == y[:200].mode().values).float().mean().item(), best=max(scores), final=scores[-1],
        history=history,
    )  # fmt: skip


def check() -> CheckResult:
    """Two properties held against top-k by its closed forms."""
    x, dy = problem(0)
    topk = make("topk(budget=0.3)")
    bias = (topk.expectation(x, dy) - dy.T @ x).norm().item()
    full = make("topk(budget=1.0)")
    kept = torch.allclose(full.contract(full.compress(x), dy), dy.T @ x)
    verdicts = [
        Verdict(name="full budget", status="holds" if kept else "broken", detail="k = n"),
        Verdict(name="mean", status="expected failure", detail=f"off by {bias:.3g}"),
    ]
    return CheckResult(stamp=stamp(seed=0), estimator=spec(topk), verdicts=verdicts)


@cache
def theory() -> TheoryResult:
    """Every claim, with its real numbers; they take seconds, and are computed once."""
    return compute_theory(seed=0)
