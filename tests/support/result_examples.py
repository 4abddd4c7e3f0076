"""A small result of every kind, for what holds of all kinds: it is drawn, has a section, a table, and comes back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from support import figure_examples as examples
from support.paths import ROOT
from wtacrs.integration.studies.limits import limit_curve, t5_step
from wtacrs.validation.records.base import Result, stamp
from wtacrs.validation.records.bench import BenchResult, BenchRow, Quartiles, Roofs
from wtacrs.validation.records.budgets import (
    BudgetLimit,
    BudgetNoise,
    BudgetPoint,
    BudgetRange,
    BudgetsResult,
    Difference,
    NoiseThreshold,
    Scores,
    StepBytes,
    VarianceCost,
)
from wtacrs.validation.records.factorial import FactorialResult, FactorialRun
from wtacrs.validation.records.front import FrontResult, FrontRow, SavingPart, Way
from wtacrs.validation.records.growth import GrowthPoint, GrowthResult, SampledNoise
from wtacrs.validation.records.layer_tests import (
    BiasFinding,
    LayerTest,
    LayerTestResult,
    RatioFinding,
    VarianceFinding,
)
from wtacrs.validation.records.limits import Grows, LimitBatch, LimitCheck, LimitsResult
from wtacrs.validation.records.masks import MaskRow, MasksResult
from wtacrs.validation.records.memory import MemoryResult, StepMemory, TypeBytes
from wtacrs.validation.records.noise import NoiseRatio
from wtacrs.validation.records.norms import NormPoint, NormsResult
from wtacrs.validation.records.owners import KeptStorage, Owner
from wtacrs.validation.records.plan import Choice, FrontPoint, Plan, PlannedBlock
from wtacrs.validation.records.pretrain import PretrainingPoint, PretrainingResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.scale import ScaleResult, ScaleRow
from wtacrs.validation.records.scores import ScoreMemoryBytes, TrainingScoresResult, TrainingScoresRow
from wtacrs.validation.records.simulation import AliveBytes, Largest, SimulatedStep, SimulationResult, StepChoice
from wtacrs.validation.records.track_memory import TrackedMemoryResult
from wtacrs.validation.records.transfer import Standing, TransferPair, TransferResult
from wtacrs.validation.records.winners import OPTIMAL, PAPER, RuleRegrets, WinnersResult, WinnerState
from wtacrs.validation.statistics.factorial import cell_means, contrasts
from wtacrs.validation.summaries.growth import growth_trends
from wtacrs.validation.theory.claims import theory
from wtacrs.validation.theory.step_bytes import WAYS

NASTY = 'enc<script>&"q"'
STAMP = stamp(seed=0)


def norms() -> NormsResult:
    """Eight steps, the last of them without a gradient."""
    points = [
        NormPoint(step=i, used=1.5 / i, exact=0.0 if i == 8 else 1.0 / i, expected=1.4 / i) for i in range(1, 9)
    ]
    beside = [NormPoint(step=i, used=0.9 / i, exact=0.9 / i, expected=None) for i in range(1, 9)]
    return NormsResult(
        stamp=STAMP, task="planes", model="linear", layer=NASTY, estimator="crs(budget=0.3)", unbiased=True,
        metric="accuracy", final=0.5, final_exact=0.6, estimated=points, exact=beside,
    )  # fmt: skip


def scores() -> TrainingScoresResult:
    """Two kinds at two budgets."""
    rows = [
        TrainingScoresRow(scores=kind, budget=budget, layers=4, variance=value, low=value / 2, high=2 * value)
        for kind, value in (("learned", 0.6), ("oracle", 0.1))
        for budget in (0.1, 0.3)
    ]
    return TrainingScoresResult(
        stamp=STAMP, task="planes", model=NASTY, estimator="crs", after=100, steps=50, batches=3, rows=rows,
        bytes=[ScoreMemoryBytes(scores="learned", memory=4096, rows=80_000)],
    )  # fmt: skip


def budgets() -> BudgetsResult:
    """Two budgets, one of them worse than exact training."""
    exact = Scores(values=[0.8, 0.9], mean=0.85, seed_error=0.05, dev_error=0.02)
    points = [
        BudgetPoint(
            budget=budget,
            scores=Scores(values=[mean, mean], mean=mean, seed_error=0.0, dev_error=0.02),
            difference=Difference(value=mean - 0.85, low=mean - 0.95, high=mean - 0.75),
            variance={"oracle": 0.1 / budget, "row-norms": 0.5 / budget},
            noise=[
                BudgetNoise(
                    scores="row-norms", ratio=NoiseRatio(value=0.2 / budget, low=0.1 / budget, high=0.4 / budget)
                )
            ],
            memory=StepBytes(kept=6_000_000, linear=int(3e6 * budget), peak=9_000_000),
        )
        for budget, mean in ((0.1, 0.4), (0.3, 0.8))
    ]
    return BudgetsResult(
        stamp=STAMP, task="planes", model="linear", estimator="crs", metric="accuracy", majority=0.3, dev_size=100,
        steps=10, seeds=[0, 1], layers=4, exact=exact, points=points, average_last=2, batches=3,
        memory=StepBytes(kept=8_000_000, linear=3_000_000, peak=12_000_000),
        noise_thresholds=[
            NoiseThreshold(
                scores="row-norms",
                at=BudgetRange(
                    value=BudgetLimit(budget=0.2),
                    low=BudgetLimit(budget=0.1, side="below"),
                    high=BudgetLimit(budget=0.3, side="above"),
                ),
            )
        ],
        cost=VarianceCost(
            scores="row-norms", slope=0.09, error=0.01, low=0.05, high=0.13, level=0.95, margin=0.2, seeds=2,
            threshold=BudgetRange(
                value=BudgetLimit(budget=0.22),
                low=BudgetLimit(budget=0.13),
                high=BudgetLimit(budget=0.3, side="above"),
            ),
            harmless=BudgetLimit(budget=0.3, side="above"),
        ),
    )  # fmt: skip


def transfer() -> TransferResult:
    """Two estimators in another order on another model."""
    variances = {"a.safetensors": (1.0, 2.0), "b.safetensors": (3.0, 1.5)}
    standings = [
        Standing(file=file, scores="oracle", budget=0.1, estimator=name, layers=3, variance=value)
        for file, values in variances.items()
        for name, value in zip(("crs", "wta_crs"), values, strict=True)
    ]
    one, other = variances
    pair = {"scores": "oracle", "budget": 0.1, "tau": -1.0}
    pairs = [
        TransferPair(source=one, target=other, chosen="crs", best="wta_crs", regret=2.0, **pair),
        TransferPair(source=other, target=one, chosen="wta_crs", best="crs", regret=2.0, **pair),
    ]
    return TransferResult(stamp=STAMP, models={one: "T5", other: NASTY}, standings=standings, pairs=pairs)


def layer_tests() -> LayerTestResult:
    """A sound claim with a baseline, a broken one, and one that is undecided."""
    sound = BiasFinding(
        method="sampling", bias_squared=0.001, bias_squared_error=0.002, along=0.01, along_error=0.02, rounding=1e-9,
        detectable=0.2, detectable_along=0.1, p_value=0.4, adjusted=0.8, verdict="holds",
    )  # fmt: skip
    undecided = sound.model_copy(update={"verdict": "undecided", "along_error": 0.05, "detectable_along": 0.4})
    broken = sound.model_copy(update={"verdict": "broken", "p_value": 1e-12, "adjusted": 1e-11, "along": -0.3})
    variance = VarianceFinding(method="sampling", measured=1.1, stated=1.0, adjusted=0.3, verdict="accepted")
    ratio = RatioFinding(
        against="crs(budget=0.3)", quantity="variance", ratio=0.5, low=0.4, high=0.6, method="monte carlo",
        p_value=0.001, adjusted=0.002, verdict="lower",
    )  # fmt: skip
    common = {"unbiased": True, "scores": "row-norms", "n": 40, "d": 6, "m": 5, "draws": 100}
    return LayerTestResult(
        stamp=STAMP,
        level=0.01,
        tests=[
            LayerTest(
                layer=NASTY, estimator="wta_crs(budget=0.3)", bias=sound, variance=variance, ratio=ratio, **common
            ),
            LayerTest(layer="b", estimator="mine.py:f", bias=broken, variance=None, ratio=None, **common),
            LayerTest(layer="c", estimator="mine.py:f", bias=undecided, variance=None, ratio=None, **common),
        ],
    )


def bench() -> BenchResult:
    """Gaussian x and dY and two captured layers; a closed form and a sampled one, known and unknown MACs; a step."""
    roofs = Roofs(products={"fp32": 4e10, "int8": 2e11}, copy_rate=1e10)

    def row(layer: str | None, estimator: str, seconds: float, kept: int, **changes: object) -> BenchRow:
        spread = Quartiles(low=0.9 * seconds, median=seconds, high=1.2 * seconds)
        found = BenchRow(
            layer=layer, n=1000, d=100, m=100, estimator=estimator, requested=estimator, scores="row-norms",
            exact=Quartiles.of([1.0, 1.0]), compress=spread, contract=spread, both=spread, ratio=spread, kept=kept,
            macs=10**7, operations=9, moved=10**7, multiplied_in="fp32", least=10**6, least_seconds=0.001, variance=0.5,
            variance_error=None, bias_squared=0.0, draws=None, over_paper=0.5,
        )  # fmt: skip
        return found.model_copy(update=changes)

    sampled = {"variance_error": 0.1, "draws": 4, "macs": None}
    rows = [
        row(None, "exact", 1.0, 400_000, variance=0.0, over_paper=None),
        row(None, "crs(budget=0.3)", 0.5, 60_000),
        row(None, "crs(budget=0.3)", 0.4, 60_000, scores="oracle", variance=0.2),
        row(NASTY, "systematic(budget=0.3)", 0.6, 60_000, **sampled),
        row("b#0", "systematic(budget=0.3)", 0.8, 60_000, **sampled, over_paper=0.9),
    ]
    return BenchResult(stamp=STAMP, precision="fp32", rounds=2, roofs=roofs, rows=rows, step=front())


def front() -> FrontResult:
    """Stock, a sampled lean way, and one whose peak and noise nobody knows."""
    ways = [Way(), Way(estimator="crs(budget=0.3)", lean="attention,head"), Way(memory_budget=0.5)]
    numbers = [(1000, 4000, 1.0, 0.0), (400, 1500, 0.9, 0.25), (500, None, 1.5, None)]
    rows = [
        FrontRow(way=way, kept=kept, peak=peak, seconds=2 * ratio, ratio=ratio, noise=noise)
        for way, (kept, peak, ratio, noise) in zip(ways, numbers, strict=True)
    ]
    parts = [SavingPart(part=part, kept=kept, peak=2 * kept) for part, kept in (("stock", 1000), (NASTY, 400))]
    return FrontResult(
        stamp=STAMP, model=NASTY, layers=2, batch_size=8, length=128, target_length=None, dropout=0.1, rounds=3,
        batches=4, draws=2, rows=rows, parts=parts,
    )  # fmt: skip


def masks() -> MasksResult:
    """A right mask, a wrong one, and a loss that is none."""
    common = {"architecture": NASTY, "model": "Bert"}
    right = MaskRow(
        condition="right", side="left", layers=8, masked=6, kept=6, score_zero=1.0, score_zero_layer=1.0, **common
    )
    wrong = right.model_copy(
        update={
            "condition": "random",
            "kept": 0,
            "share": 0.4,
            "score_zero": 0.25,
            "score_zero_layer": 0.0,
            "bias": 1e-16,
        }
    )
    failed = MaskRow(condition="opposite", side="right", failed="its loss is nan", **common)
    return MasksResult(stamp=STAMP, estimator="wta_crs(budget=0.3)", mask_floor=0.01, rows=[right, wrong, failed])


def memory() -> MemoryResult:
    """Exact, estimated, and checkpointed."""
    exact = StepMemory(
        estimator="exact", checkpointing=False, converted=0, peak=9_000_000,
        saved=[TypeBytes(types=["Linear"], modules=4, bytes=4_000_000),
               TypeBytes(types=["LayerNorm", "Linear"], modules=3, bytes=2_000_000)],
    )  # fmt: skip
    sampled = exact.model_copy(
        update={
            "estimator": "crs(budget=0.3)",
            "converted": 4,
            "peak": 7_000_000,
            "saved": [TypeBytes(types=["Linear"], modules=4, bytes=1_500_000), exact.saved[1]],
        }
    )
    both = sampled.model_copy(update={"checkpointing": True, "peak": 4_000_000, "saved": sampled.saved[:1]})
    return MemoryResult(
        stamp=STAMP, model=NASTY, task="planes", batch_size=8, tokens=16, precision="fp32", parameters=1_000_000,
        steps=[exact, sampled, both],
    )  # fmt: skip


def tracked_memory() -> TrackedMemoryResult:
    """One storage that a layer holds alone, and one that it shares with the operation before."""
    linear = Owner(module=NASTY, type="Linear", operation="AddmmBackward0")
    relu = Owner(module="1", type="ReLU", operation="ReluBackward0")
    kept = [
        KeptStorage(bytes=3_000_000, shape=[1000, 750], dtype="float32", owners=[relu, linear]),
        KeptStorage(bytes=2_000_000, shape=[1000, 500], dtype="float32", owners=[linear]),
    ]
    return TrackedMemoryResult(
        stamp=STAMP, model="Sequential", kept=kept, backward_passes=2, parameters=1_000_000, buffers=0,
        gradients=1_000_000, batch=40_000, optimizer=2_000_000,
    )  # fmt: skip


def simulation() -> SimulationResult:
    """The stock step and one that is offloaded, with the largest batch of each."""
    kept = {"kind": "kept for the backward pass", "modules": NASTY, "operation": "addmm"}
    stock = SimulatedStep(
        choice=StepChoice(), batch_size=8, length=16, target_length=None, converted=0, parameters=1_000_000, buffers=0,
        batch=4_000, states=2_000_000, gradients=1_000_000, kept=5_000_000, host=0, peak=9_004_000, phase="backward",
        phases={"forward": 8_004_000, "backward": 9_004_000, "update": 4_004_000},
        alive=[AliveBytes(**kept, bytes=5_000_000),
               AliveBytes(kind="optimizer states", modules="", operation="", bytes=2_000_000),
               AliveBytes(kind="parameters", modules="", operation="", bytes=1_000_000),
               AliveBytes(kind="at work", modules="", operation="mm", bytes=1_000_000),
               AliveBytes(kind="batch", modules="", operation="", bytes=4_000)],
    )  # fmt: skip
    offloaded = stock.model_copy(
        update={"choice": StepChoice(estimator="crs(budget=0.3)", offload=True), "host": 2_000_000}
    )
    largest = [
        Largest(budget=10_000_000, batch_size=8, fixed=4_000_000, each=700_000),
        Largest(budget=10_000_000, batch_size=0, fixed=12_000_000, each=700_000),
    ]
    return SimulationResult(stamp=STAMP, model=NASTY, steps=[stock, offloaded], largest=largest)


def plan() -> Plan:
    """Two blocks, one of them checkpointed, and two amounts of memory."""
    choices = [Choice(checkpointed=True), Choice(estimator="crs(budget=0.3)", lean="neighbours")]
    blocks = [
        PlannedBlock(name=f"{NASTY}.{i}", choice=choice, kept=10**6 * i, seconds=0.1, noise=0.2 * i)
        for i, choice in enumerate(choices)
    ]
    return Plan(
        stamp=STAMP, model=NASTY, task="planes", batch_size=8, tokens=16, memory=9_000_000, noise_ceiling=0.5,
        time_ceiling=None, head=None, blocks=blocks, peak=8_000_000, seconds=0.3, noise=0.2, stock_peak=20_000_000,
        stock_seconds=0.25, limit="the output layer and the loss",
        front=[
            FrontPoint(memory=7_000_000, peak=6_900_000, seconds=0.4, noise=0.1),
            FrontPoint(memory=9_000_000, peak=8_000_000, seconds=0.3, noise=0.2),
        ],
    )  # fmt: skip


def pretraining() -> PretrainingResult:
    """A short run."""
    history = [PretrainingPoint(step=step, train_loss=9.0 - step / 10) for step in range(10, 60, 10)]
    return PretrainingResult(
        stamp=STAMP, size="demo", estimator="wta_crs(budget=0.3)", parameters=1000, steps=50, tokens=12_000,
        valid_before=9.1, valid_after=4.2, seconds=12.0, history=history,
    )  # fmt: skip


def scale() -> ScaleResult:
    """A closed form and a sampled one."""
    common = {"n": 1000, "d": 10, "m": 10, "dtype": "float32", "variance": 0.5, "device_bytes": None}
    rows = [
        ScaleRow(
            estimator="crs(budget=0.3)",
            method="closed form",
            draws=None,
            seconds=1.5,
            process_bytes=2**30,
            **common,
        ),
        ScaleRow(
            estimator="recommended", method="monte carlo", draws=3, seconds=9.5, process_bytes=3 * 2**30, **common
        ),
    ]
    return ScaleResult(stamp=STAMP, rows=rows)


def factorial() -> FactorialResult:
    """Two factors over three seeds; the second one's level decides what the first does."""
    factors = {"dW": ["exact", NASTY], "schedule": ["constant", "cosine"]}
    values = {
        ("exact", "constant"): [0.80, 0.81, 0.79], ("exact", "cosine"): [0.82, 0.83, 0.81],
        (NASTY, "constant"): [0.80, 0.82, 0.79], (NASTY, "cosine"): [0.72, 0.73, 0.70],
    }  # fmt: skip
    run = examples.training("crs(budget=0.3)")
    return FactorialResult(
        stamp=STAMP, config={"name": "schedules", "margin": 0.01, "level": 0.05}, metric="accuracy", majority=0.5,
        dev_size=500, factors=factors, cells=cell_means(factors, values),
        runs=[
            FactorialRun(levels=dict(zip(factors, cell, strict=True)), seed=seed, result=run)
            for cell in values for seed in range(3)
        ],
        contrasts=contrasts(factors, values, margin=0.01),
    )  # fmt: skip


def limits() -> LimitsResult:
    """Two models without a simulation of the larger one, and curves of the smaller."""
    step = t5_step("t5-small", batch_size=8, length=64, target_length=32)
    grows: tuple[Grows, ...] = ("batch", "length")
    return LimitsResult(
        stamp=STAMP, base="t5-small", rows=0.1, batch_size=8, length=64, target_length=32, flops=1e14, bandwidth=2e12,
        times_of="t5-base, front.json",
        checks=[
            LimitCheck(
                model="t5-small", way="sampled", kept=99.0, peak=202.0, simulated_kept=100, simulated_peak=200
            )
        ],
        curves=[limit_curve(step, what, way, 0.1) for what in grows for way in WAYS[1:]],
        batches=[
            LimitBatch(model="t5-small", memory=24 * 10**9, way="stock", batch=100, time=1.0, amortised=1.0),
            LimitBatch(model="t5-small", memory=24 * 10**9, way="sampled", batch=120, time=0.8, amortised=1.01),
            LimitBatch(model=NASTY, memory=24 * 10**9, way="stock", batch=0),
            LimitBatch(model=NASTY, memory=24 * 10**9, way="sampled", batch=0),
        ],
    )  # fmt: skip


def winners() -> WinnersResult:
    """Two models at two times, without stale scores at the start; a fixed |C| is not exact where the best one is."""

    def choice(scores: str, budget: float, worst: float) -> RuleRegrets:
        regrets = {PAPER: [1.0, worst], OPTIMAL: [1.01, 1.0], "0.0": [1.2, float("inf")]}
        return RuleRegrets(scores=scores, budget=budget, best=[2, 9], regrets=regrets)

    def state(model: str, seed: int, step: int) -> WinnerState:
        kinds = ("oracle", "row-norms", "stale") if step else ("oracle", "row-norms")
        return WinnerState(
            model=model, task="planes", seed=seed, step=step, layers=[NASTY, "b"], rows=[100, 100],
            choices=[choice(kind, budget, 1.5 + step + seed) for kind in kinds for budget in (0.1, 0.3)],
        )  # fmt: skip

    return WinnersResult(
        stamp=STAMP, rules=[PAPER, OPTIMAL, "0.0"], age=1, batch_size=8, max_length=16, min_rows=64,
        states=[state(model, seed, step) for model in (NASTY, "T5") for seed in (0, 1) for step in (0, 2)],
    )  # fmt: skip


def growth() -> GrowthResult:
    """Three widths and two depths of decoders over two seeds; variance falls with the width."""
    points = []
    for (width, depth), seed, step, part in itertools.product(
        ((32, 2), (64, 2), (128, 2), (32, 4)), range(2), (10, 20), (1.0, 0.25)
    ):
        if part < 1 and step < 20:
            continue
        value = (0.4 + 0.01 * math.sin(width + 5 * depth + 3 * seed + step)) * width**-0.3 * part**-0.1
        points.append(
            GrowthPoint(
                family="decoder", width=width, depth=depth, seed=seed, step=step, part=part, rows=round(64 * part),
                loss=7.0 - 0.1 * step - 0.01 * width, parameters=12 * depth * width**2, effective=value,
                tail=0.8 * value, coherence=value / 4, rows_needed=value / 2, minibatch=value,
                noise=[
                    SampledNoise(estimator="crs(budget=0.1)", relative=3 * value, ratio=5 * value),
                    SampledNoise(estimator="wta_crs(budget=0.1)", relative=2 * value, ratio=4 * value),
                ],
            )
        )  # fmt: skip
    return GrowthResult(
        stamp=STAMP, base_width=32, base_depth=2, batch_size=4, length=16, batches=3, level=0.05, points=points,
        trends=growth_trends(points, base_width=32, base_depth=2),
    )  # fmt: skip


_MAKERS: dict[str, Callable[[], Result]] = {
    "comparison": lambda: examples.comparison(examples.LAYERS[:2]),
    "sweep": lambda: examples.sweep(examples.LAYERS[:2]),
    "noise": lambda: examples.noise(2),
    "check": examples.check,
    "training": lambda: examples.training("crs(budget=0.3)"),
    "theory": lambda: theory(["take-all", "topk"], seed=0),
    "experiment": lambda: load_result(ROOT / "integration" / "experiments" / "t5-sst2.json"),
    "gradient norms": norms,
    "training scores": scores,
    "budgets": budgets,
    "transfer": transfer,
    "layer tests": layer_tests,
    "front": front,
    "masks": masks,
    "memory": memory,
    "tracked memory": tracked_memory,
    "pretraining": pretraining,
    "scale": scale,
    "simulation": simulation,
    "plan": plan,
    "bench": bench,
    "limits": limits,
    "growth": growth,
    "factorial": factorial,
    "winners": winners,
}
KINDS = tuple(_MAKERS)


@cache
def example(kind: str) -> Result:
    """The result of one kind, computed where it is asked for: experiment and theory hold the real numbers."""
    return _MAKERS[kind]()


class _EveryKind(Mapping[str, Result]):
    """An example by its kind; tests are collected without any being computed."""

    def __getitem__(self, kind: str) -> Result:
        return example(kind)

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)


def every_kind() -> Mapping[str, Result]:
    """A result of each kind of the package, computed when it is looked up."""
    return _EveryKind()
