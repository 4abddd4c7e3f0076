"""Estimator's noise over the minibatch's: exact on tiny data, summed over calls and layers, intervals by brute force."""

from __future__ import annotations

import math
import pickle
import weakref
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, variance

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar
from torch import Tensor

from wtacrs.estimators import InputError, joint_norms, make, row_norms
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.layers.captures import LayerCapture, write_captures
from wtacrs.validation.layers.noise import (
    NoNoise,
    _BiasSum,
    layer_entries,
    layer_noise,
    model_noise,
    noise_of_layer,
    noise_ratio,
)
from wtacrs.validation.layers.scores import layer_scores
from wtacrs.validation.problems import make_problem
from wtacrs.validation.records.noise import LayerNoise, in_percent
from wtacrs.validation.runner import TaskOutput, generator_for


def capture(x: Tensor, dy: Tensor) -> LayerCapture:
    return LayerCapture(x, dy, torch.ones(x.shape[0], dtype=torch.bool))


def random_captures(batches: int = 4, calls: int = 1, n: int = 5, layer: str = "a") -> dict[str, LayerCapture]:
    generator = torch.Generator().manual_seed(batches + 10 * calls)
    return {
        f"{layer}@{c}#{b}" if c else f"{layer}#{b}": capture(
            *make_problem("heavy_tailed", n, 3, 2, generator=generator)
        )
        for b in range(batches)
        for c in range(calls)
    }


def measure(
    captures: Mapping[str, LayerCapture], *estimators: str, **options
) -> dict[tuple[str, str], LayerNoise]:
    ((layer, entries),) = layer_entries(captures).items()
    rows = layer_noise(layer, captures, list(entries.values()), estimators, **options)
    return {(row.estimator, row.scores): row for row in rows}


def naive_gradients(captures: Mapping[str, LayerCapture]) -> list[list[list[float]]]:
    """Gradient by batch, pair by pair in Python's numbers."""
    found: dict[str, list[list[float]]] = {}
    for entry, one in captures.items():
        gradient = found.setdefault(entry.split("#")[1], [[0.0] * one.x.shape[1] for _ in range(one.dy.shape[1])])
        for row, outgoing in zip(one.x.tolist(), one.dy.tolist(), strict=True):
            for i, y in enumerate(outgoing):
                for j, value in enumerate(row):
                    gradient[i][j] += y * value
    return list(found.values())


@pytest.mark.parametrize("calls", [1, 2])
def test_exact_against_a_naive_twin(calls):
    captures = random_captures(4, calls)
    gradients = naive_gradients(captures)
    entries = list(zip(*(([g[i][j] for g in gradients]) for i in range(2) for j in range(3)), strict=True))
    minibatch = sum(variance(column) for column in zip(*entries, strict=True))
    found = measure(captures, "crs(budget=2)", "wta_crs(budget=3)", "topk(budget=2)")
    for (spec, kind), row in found.items():
        estimator = make(spec)
        scored = [(c, joint_norms(c.x, c.dy) if kind == "oracle" else row_norms(c.x)) for c in captures.values()]
        moments = [enumerate_moments(estimator, c.x, c.dy, scores=s) for c, s in scored]
        added = sum(float(m.variance) for m in moments) / 4
        biases = [
            float(sum(m.mean - c.dy.T @ c.x for m, (c, _) in list(zip(moments, scored, strict=True))[at : at + calls])
                  .square().sum())
            for at in range(0, 4 * calls, calls)
        ]  # fmt: skip
        assert sum(row.deviations) / 3 == pytest.approx(minibatch, rel=1e-12)
        assert fmean(row.variances) == pytest.approx(added, rel=1e-9, abs=1e-12)
        assert list(row.biases_squared) == pytest.approx(biases, rel=1e-9, abs=1e-12)
        assert row.ratio.value == pytest.approx((added + fmean(biases)) / minibatch, rel=1e-9)
        assert (row.method, row.ratio_error, row.draws) == ("closed form", None, None)
    assert found["topk(budget=2)", "oracle"].bias_ratio == found["topk(budget=2)", "oracle"].ratio.value > 0
    assert found["crs(budget=2)", "oracle"].bias_ratio == 0.0


def bias_cases(batches: int, draw: int) -> dict[str, LayerCapture]:
    """Batches drawn anew, of rows that share a mean, so that dropping the small ones is a bias in all of them."""
    generator = torch.Generator().manual_seed(draw)
    x, dy = (torch.randn(batches, 4, width, generator=generator, dtype=torch.float64) for width in (3, 2))
    return {f"a#{b}": capture(x[b] + 0.5, dy[b] + 0.5) for b in range(batches)}


def errors_of(captures: Mapping[str, LayerCapture], spec: str) -> list[Tensor]:
    estimator = make(spec)
    return [
        estimator.expectation(c.x, c.dy, scores=joint_norms(c.x, c.dy)) - c.dy.T @ c.x for c in captures.values()
    ]


@pytest.mark.parametrize("batches", [2, 3, 5])
def test_the_persistent_bias_is_what_its_definition_says(batches):
    captures = bias_cases(batches, 7)
    errors = torch.stack(errors_of(captures, "topk(budget=2)"))
    middle = errors.mean(0)
    wanted = float(middle.square().sum()) - float((errors - middle).square().sum()) / (batches * (batches - 1))
    row = measure(captures, "topk(budget=2)", "crs(budget=2)")["topk(budget=2)", "oracle"]
    assert row.persistent_ratio * sum(row.deviations) / (batches - 1) == pytest.approx(wanted, rel=1e-9)
    assert measure(captures, "crs(budget=2)")["crs(budget=2)", "oracle"].persistent_ratio == 0.0


def test_the_persistent_bias_is_unbiased_over_all_samples_of_batches():
    """Four equally likely batches: the mean over all 4³ samples of three is ‖E e‖², far below the mean of ‖e‖²."""
    errors = errors_of(bias_cases(4, 3), "topk(budget=2)")
    truth = float(torch.stack(errors).mean(0).square().sum())
    found = []
    for sample in product(errors, repeat=3):
        kept = _BiasSum()
        for error in sample:
            kept.add(error)
        found.append(kept.persistent(3))
    assert fmean(found) == pytest.approx(truth, rel=1e-9)
    assert fmean(float(e.square().sum()) for e in errors) > 1.5 * truth


def test_a_bias_that_changes_sign_does_not_persist_and_one_that_does_not_does():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    dy = torch.ones(2, 1, dtype=torch.float64)
    dropped = torch.tensor([[0.0, -0.5]], dtype=torch.float64)  # by top-1
    signs = (1.0, -1.0, 1.0, -1.0)
    turning = {f"a#{b}": capture(x, sign * dy) for b, sign in enumerate(signs)}
    staying = {f"a#{b}": capture(x * torch.tensor([sign, 1.0]), dy) for b, sign in enumerate(signs)}
    rows = [measure(c, "topk(budget=1)")["topk(budget=1)", "oracle"] for c in (turning, staying)]
    units = [sum(row.deviations) / 3 for row in rows]
    size = float(dropped.square().sum())
    assert [row.bias_ratio * unit for row, unit in zip(rows, units, strict=True)] == pytest.approx([size] * 2)
    assert [row.persistent_ratio * unit for row, unit in zip(rows, units, strict=True)] == pytest.approx(
        [-size / 3, size]
    )
    (whole,) = model_noise(rows)
    assert whole.persistent_ratio == pytest.approx((size - size / 3) / sum(units))


def test_a_ratio_known_in_closed_form():
    """Pairs (3, −1) and (−3, 1): W = 4, G = ±2, so CRS has (16 − 4)/k, and the minibatch 4 + 4 over B − 1."""
    x = torch.ones(2, 1, dtype=torch.float64)
    dy = torch.tensor([[3.0], [-1.0]], dtype=torch.float64)
    captures = {"a#0": capture(x, dy), "a#1": capture(x, -dy)}
    found = measure(captures, "crs(budget=1)", "crs(budget=2)", "exact", scores=["oracle"])
    assert found["crs(budget=1)", "oracle"].ratio.value == pytest.approx(1.5, rel=1e-12)
    assert found["crs(budget=2)", "oracle"].ratio.value == pytest.approx(0.75, rel=1e-12)
    assert found["exact", "oracle"].ratio.value == 0.0
    assert found["crs(budget=1)", "oracle"].row_fraction == 0.5
    assert found["exact", "oracle"].row_fraction is None


def test_the_ratio_does_not_depend_on_how_many_microbatches_are_averaged():
    """All B² averages of two microbatches: both variances halve; the sample variances have B/(B−1) and B²/(B²−1)."""
    one = random_captures(4)
    names = list(one)
    pairs = {}
    for a in range(4):
        for b in range(4):
            for call, which in enumerate((a, b)):
                c = one[names[which]]
                pairs[f"a@{call}#{4 * a + b}"] = capture(c.x, c.dy / 2)
    for key, row in measure(one, "crs(budget=2)").items():
        averaged = measure(pairs, "crs(budget=2)")[key]
        assert averaged.ratio.value * 16 / 15 == pytest.approx(row.ratio.value * 4 / 3, rel=1e-9)
        assert fmean(averaged.variances) == pytest.approx(fmean(row.variances) / 2, rel=1e-9)


def test_biases_of_calls_are_added_before_they_are_squared():
    x, dy = make_problem("heavy_tailed", 6, 3, 2, generator=torch.Generator().manual_seed(0))
    extra = make_problem("gaussian", 6, 3, 2, generator=torch.Generator().manual_seed(1))
    captures = {
        "a#0": capture(x, dy), "a@1#0": capture(x, -dy), "a#1": capture(x, dy), "a@1#1": capture(*extra),
    }  # fmt: skip
    (row,) = measure(captures, "topk(budget=2)", scores=["oracle"]).values()
    assert row.biases_squared[0] == pytest.approx(0.0, abs=1e-20)
    assert row.biases_squared[1] > 0.1


def test_rows_that_the_scores_cannot_reach_are_a_bias_of_any_estimator():
    captures = random_captures(3)
    masked = {
        e: LayerCapture(c.x, c.dy, torch.tensor([True, True, False, True, True])) for e, c in captures.items()
    }
    for name in ("crs(budget=2)", "priority(budget=2)"):
        row = measure(masked, name, scores=["oracle"], draws=500)[name, "oracle"]
        lost = [float(c.x[2].square().sum() * c.dy[2].square().sum()) for c in captures.values()]
        assert list(row.biases_squared) == pytest.approx(lost, rel=1e-9 if name[0] == "c" else 0.5)


@pytest.mark.parametrize("calls", [1, 2])
def test_monte_carlo_is_what_the_stored_draws_say(calls):
    captures = random_captures(3, calls)
    (row,) = measure(captures, "priority(budget=2)", scores=["row-norms"], draws=7, seed=5).values()
    assert (row.method, row.draws) == ("monte carlo", 7)
    estimator = make("priority(budget=2)")
    for b in range(3):
        mine = [c for e, c in captures.items() if e.endswith(f"#{b}")]
        generator = generator_for(5, f"a {b} priority(budget=2) row norms")
        drawn = torch.stack(
            [
                sum(
                    estimator.contract(estimator.compress(c.x, scores=row_norms(c.x), generator=generator), c.dy)
                    for c in mine
                )
                for _ in range(7)
            ]
        )
        assert row.variances[b] == pytest.approx(float(drawn.var(0).sum()), rel=1e-9)
    assert row.variance_errors is not None
    unit = sum(row.deviations) / 2
    expected = math.sqrt(sum(e**2 for e in row.variance_errors)) / 3 / unit
    assert row.ratio_error == pytest.approx(expected, rel=1e-12)
    assert list(row.biases_squared) == [0.0] * 3


def test_no_row_depends_on_what_else_is_measured():
    captures = random_captures(3)
    names = ("priority(budget=2)", "crs(budget=2)", "priority(budget=3)")
    together = measure(captures, *names, draws=5)
    assert measure(captures, *names[::-1], draws=5) == together
    alone = measure(captures, names[2], draws=5)
    assert alone == {key: row for key, row in together.items() if key[0] == names[2]}
    other = measure(captures, names[2], draws=5, seed=1)
    assert all(other[key].variances != row.variances for key, row in alone.items())


def test_an_estimator_that_ignores_scores_is_listed_once():
    found = measure(random_captures(3), "exact", "crs(budget=2)")
    assert list(found) == [("exact", "oracle"), ("crs(budget=2)", "oracle"), ("crs(budget=2)", "row-norms")]


@given(
    batches=st.integers(3, 8),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from([0.5, 0.95, 0.99]),
)
def test_the_interval_is_a_brute_force_jackknife(batches, seed, level):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(batches, 4, generator=generator, dtype=torch.float64)
    errors = torch.rand(batches, generator=generator, dtype=torch.float64) + 0.01

    def log_ratio(kept: list[int]) -> float:
        return math.log(float(errors[kept].mean() / gradients[kept].var(0).sum()))

    deviations = (gradients - gradients.mean(0)).square().sum(1).tolist()
    every = list(range(batches))
    left = [log_ratio([b for b in every if b != out]) for out in every]
    error = math.sqrt((batches - 1) / batches * sum((one - fmean(left)) ** 2 for one in left))
    reach = stats.t.ppf((1 + level) / 2, batches - 1) * error
    found = noise_ratio(errors.tolist(), deviations, level)
    assert found.value == pytest.approx(math.exp(log_ratio(every)), rel=1e-9)
    if reach < 600:
        assert math.log(found.low / found.value) == pytest.approx(-reach, rel=1e-6, abs=1e-9)
        assert math.log(found.high / found.value) == pytest.approx(reach, rel=1e-6, abs=1e-9)


def test_intervals_at_the_edges():
    assert noise_ratio([1.0, 1.0], [2.0, 2.0]).model_dump() == {"value": 0.25, "low": None, "high": None}
    assert noise_ratio([0.0] * 3, [1.0] * 3).model_dump() == {"value": 0.0, "low": 0.0, "high": 0.0}
    one_noisy = noise_ratio([1.0, 0.0, 0.0], [1.0] * 3)
    assert (one_noisy.low, one_noisy.high) == (0.0, math.inf)
    assert noise_ratio([-1.0, 0.5, 0.0], [1.0] * 3).low is None
    # two of three gradients alike: without the third nothing varies
    assert noise_ratio([1.0] * 3, [1.0, 1.0, 4.0]).high == math.inf


def test_the_whole_model_is_the_ratio_of_the_sums():
    a, b = random_captures(5, layer="a"), random_captures(5, 2, layer="b")
    rows = [*measure(a, "crs(budget=2)").values(), *measure(b, "crs(budget=2)").values()]
    for model in model_noise(rows):
        mine = [row for row in rows if row.scores == model.scores]
        sums = [[sum(pair) for pair in zip(*(getattr(row, field) for row in mine), strict=True)]
                for field in ("variances", "deviations")]  # fmt: skip
        assert model.ratio == noise_ratio(sums[0], sums[1])
        assert model.ratio.value == pytest.approx(fmean(sums[0]) / (sum(sums[1]) / 4), rel=1e-12)
        assert (model.layers, model.batches, model.bias_ratio) == (2, 5, 0.0)
        worst = max(mine, key=lambda row: row.ratio.value)
        assert (model.worst, model.worst_ratio) == (worst.layer, worst.ratio)
        assert model.equivalent_batch == pytest.approx(1 / (1 + model.ratio.value))
    with pytest.raises(InputError, match=r"different numbers of batches: \[4, 5\]"):
        model_noise([*rows, *measure(random_captures(4), "crs(budget=2)").values()])


def test_verdicts_are_sentences_that_say_what_is_added():
    rows = [*measure(random_captures(5), "crs(budget=2)", "topk(budget=2)", "exact", scores=["oracle"]).values()]
    crs, topk, exact = (model.verdict for model in model_noise(rows))
    ratio, size = rows[0].ratio, 1 / (1 + rows[0].ratio.value)
    assert crs == (
        f"crs(budget=2), oracle: adds {ratio} to the gradient noise you already have; equivalent to a batch "
        f"{size:.3g} times as large; worst layer a: {ratio}"
    )
    (biased,) = (row for row in rows if row.estimator == "topk(budget=2)")
    (model,) = model_noise([biased])
    assert f"already have, {in_percent(biased.bias_ratio)} as bias²; " in topk
    assert model.persistent_ratio < 0
    assert "in 5 microbatches no part of the bias is seen that would not average out; worst" in topk
    staying = model.model_copy(update={"persistent_ratio": 0.043}).verdict
    assert "; the bias that no number of microbatches averages out is 4.3 % of that noise; worst" in staying
    assert "equivalent" not in topk
    assert exact == "exact, oracle: adds nothing to the gradient noise you already have"
    assert str(ratio) == f"{in_percent(ratio.value)} [{in_percent(ratio.low)}, {in_percent(ratio.high)}]"


class OneAtATime(Mapping[str, LayerCapture]):
    """Makes every capture anew, and counts how many are alive."""

    def __init__(self, captures: dict[str, LayerCapture]) -> None:
        self._captures, self._alive, self.most = captures, weakref.WeakSet[Tensor](), 0

    def __getitem__(self, entry: str) -> LayerCapture:
        c = self._captures[entry]
        made = LayerCapture(c.x.clone(), c.dy.clone(), c.mask)
        self._alive.add(made.x)
        self.most = max(self.most, len(self._alive))
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._captures)

    def __len__(self) -> int:
        return len(self._captures)


def test_batches_are_held_one_at_a_time():
    captures = OneAtATime(random_captures(12, 2))
    measure(captures, "crs(budget=2)")
    assert captures.most <= 4  # two calls, and those of the batch that is about to be dropped


def test_a_layer_of_a_file_is_one_piece_of_work(tmp_path: Path):
    captures = random_captures(3, 2) | {"b#0": random_captures(1)["a#0"]}
    path = write_captures(tmp_path / "c.safetensors", captures, {})
    estimators = [make("crs(budget=2)")]
    work = partial(noise_of_layer, path, "a", estimators, ("oracle",), 3, 0)
    found = list(pickle.loads(pickle.dumps(work))().records)
    del captures["b#0"]
    assert found == list(measure(captures, "crs(budget=2)", scores=["oracle"]).values())
    idle = noise_of_layer(path, "b", estimators, ("oracle",), 3, 0)
    assert idle == TaskOutput(skipped="layer 'b': not captured in batch 1")


def test_misuse_names_the_argument(unchecked):
    captures = random_captures(3)
    same = {f"a#{b}": captures["a#0"] for b in range(3)}
    with pytest.raises(NoNoise, match="'a': the gradient is the same in all 3 batches"):
        measure(same, "exact")
    with pytest.raises(NoNoise, match="'a': the gradient is zero in all 3 batches"):
        measure({e: capture(c.x, 0 * c.dy) for e, c in captures.items()}, "exact")
    with pytest.raises(InputError, match="'a': 1 batch; the noise between batches needs at least two"):
        measure(random_captures(1), "exact")
    with pytest.raises(InputError, match="draws=2 must be"):
        measure(captures, "exact", draws=2)
    with pytest.raises(InputError, match="scores must name"):
        measure(captures, "exact", scores=[])
    with pytest.raises(InputError, match="scores='rows'"):
        measure(captures, "exact", scores=["rows"])
    with pytest.raises(InputError, match="'a': x or dy holds NaN"):
        measure(captures | {"a#1": capture(captures["a#1"].x, captures["a#1"].dy * math.nan)}, "topk(budget=2)")


def test_the_best_rate_is_the_one_that_lowers_a_round_bowl_most() -> None:
    """Loss ½‖w‖² has the gradient w; a step along an estimate of one layer's gradient, its variance by enumeration."""
    captures = random_captures(3, layer="a")
    (model,) = model_noise(list(measure(captures, "crs(budget=2)", scores=("oracle",)).values()))
    sizes, variances = [], []
    for layer in captures.values():
        scores = layer_scores("oracle", layer.x, layer.dy, layer.mask)
        found = enumerate_moments(make("crs(budget=2)"), layer.x, layer.dy, scores=scores)
        sizes.append(float(found.mean.square().sum()))
        variances.append(float(found.variance))

    def loss(rate: float) -> float:
        return sum((1 - rate) ** 2 * s + rate**2 * v for s, v in zip(sizes, variances, strict=True))

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).x
    assert model.descent_rate == pytest.approx(best, rel=1e-5)
    assert model.adam_step == pytest.approx(math.sqrt(best), rel=1e-5)
    old = model.model_copy(update={"relative": None})
    assert (old.descent_rate, old.adam_step) == (None, None)
