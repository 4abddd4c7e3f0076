"""The closed form of the bytes of a step: against the simulated step of the real code, and its limits."""

from __future__ import annotations

import pytest
from transformers import T5Config

from wtacrs.estimators import InputError
from wtacrs.integration.measure.simulation.step import simulate_step
from wtacrs.validation.theory.step_bytes import WAYS, StepWay, T5Step, kept_ratio, step_bytes

SMALL = T5Step(192, 128, 512, 4, 3, 2, 3000, 8, 32, 48)
BASE = T5Step(768, 768, 3072, 12, 12, 12, 32_128, 64, 128, 128)
ROWS = 0.25
OPTIONS = {
    "stock": {},
    "sampled": {"estimator": "crs(budget=0.25)", "min_elements": 0},
    "lean": {"lean": "attention,head"},
    "again": {"lean": "attention-again,head-again"},
    "again, sampled": {
        "lean": "attention-again,head-again",
        "estimator": "crs(budget=0.25)",
        "min_elements": 0,
    },
    "checkpointed": {"checkpointing": True},
    "again, checkpointed": {"lean": "head-again", "checkpointing": True},
}
FAST = ("stock", "again, sampled", "checkpointed")


def config(step: T5Step) -> T5Config:
    return T5Config(
        d_model=step.width,
        d_ff=step.feed_forward,
        num_layers=step.layers,
        num_decoder_layers=step.decoder_layers,
        num_heads=step.heads,
        d_kv=step.inner // step.heads,
        vocab_size=step.vocabulary,
        decoder_start_token_id=0,
    )


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way in FAST else pytest.mark.slow) for way in WAYS])
def test_it_is_what_the_real_code_keeps(way: StepWay) -> None:
    """Kept bytes within 0.5 %, the peak within 3 %, weights exactly."""
    real = simulate_step(
        config(SMALL),
        batch_size=SMALL.batch_size,
        length=SMALL.length,
        target_length=SMALL.target_length,
        **OPTIONS[way],
    ).step
    found = step_bytes(SMALL, way, rows=ROWS)
    assert found.weights == real.parameters
    assert found.states == pytest.approx(real.states, rel=1e-4)
    assert found.kept == pytest.approx(real.kept, rel=0.005)
    assert found.peak == pytest.approx(real.peak, rel=0.03)


@pytest.mark.parametrize("way", WAYS)
def test_a_large_batch_shows_what_is_kept(way: StepWay) -> None:
    huge = BASE.but(batch_size=10**7)
    ratio = step_bytes(huge).peak / step_bytes(huge, way, rows=0.1).peak
    work = step_bytes(huge).work / step_bytes(huge).kept  # two copies of logits, which grow too
    if way in ("stock", "sampled"):
        assert ratio == pytest.approx(kept_ratio(huge, way, 0.1), rel=2 * work)
    else:
        assert ratio > kept_ratio(huge, "sampled", 0.1)


@pytest.mark.parametrize("way", WAYS)
def test_a_wide_model_shows_what_is_fixed(way: StepWay) -> None:
    wide = BASE.but(width=10**6, inner=10**6, feed_forward=4 * 10**6, heads=10**4)
    assert step_bytes(wide).peak / step_bytes(wide, way, rows=0.1).peak == pytest.approx(1.0, abs=0.02)


def test_long_inputs_leave_sampling_nothing_and_lean_everything() -> None:
    long = BASE.but(length=10**6, target_length=1, batch_size=1)
    assert kept_ratio(long, "sampled", 0.01) == pytest.approx(1.0, abs=0.01)
    assert kept_ratio(long, "lean") > 2  # beside a table of relative positions of s² numbers per head
    assert kept_ratio(long, "again") == pytest.approx(kept_ratio(long, "lean"), rel=0.01)


def test_sampling_alone_frees_at_most_seven_parts_of_twenty_four() -> None:
    """Whatever the size, with D = d and F = 4d: (2d + D + F)/(8d + 4D + 3F), and less with scores."""
    for width in (64, 512, 4096):
        step = BASE.but(width=width, inner=width, feed_forward=4 * width, heads=1, length=1, target_length=1)
        stock, sampled = (step_bytes(step, way, rows=1e-9).kept for way in ("stock", "sampled"))
        assert 1 - sampled / stock < 7 / 24


def test_a_deep_model_is_many_blocks() -> None:
    deep, deeper = (BASE.but(layers=n, decoder_layers=n) for n in (10**5, 10**6))
    for way in WAYS:
        ratios = [step_bytes(step).peak / step_bytes(step, way, rows=0.1).peak for step in (deep, deeper)]
        assert ratios[0] == pytest.approx(ratios[1], rel=1e-3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"way": "again and again"}, "way="), ({"rows": 0.0}, "rows="), ({"optimizer": "lion"}, "optimizer=")],
)
def test_what_it_does_not_know(arguments: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        step_bytes(BASE, **arguments)
    with pytest.raises(InputError, match="layers=0"):
        BASE.but(layers=0)
