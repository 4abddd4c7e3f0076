"""Trends of models of many sizes: planted ones are found on their axis alone."""

from __future__ import annotations

import itertools
import math

import pytest

from wtacrs.validation.records.growth import GrowthPoint, SampledNoise
from wtacrs.validation.summaries.growth import at_loss, growth_trends

SIZES = [(64, 2), (128, 2), (256, 2), (64, 1), (64, 4)]


def planted(*, width: float = 0.0, depth: float = 0.0, rows: float = 0.0, loss: float = 0.0) -> list[GrowthPoint]:
    """Quantities that are powers of width, depth and rows, and exponential in the loss; larger models learn faster."""
    found = []
    for (wide, deep), seed, step in itertools.product(SIZES, range(3), (10, 40, 160)):
        nats = 6.0 - 0.5 * math.log2(step) - 0.1 * math.log2(wide * deep) + 0.01 * seed
        for part in (1.0, 0.25) if step == 160 else (1.0,):
            wobble = 1 + 0.002 * math.sin(wide + 3 * deep + 7 * seed + step)
            value = wobble * (1 + seed) * wide**width * deep**depth * part**rows * math.exp(loss * nats)
            found.append(
                GrowthPoint(
                    family="t5", width=wide, depth=deep, seed=seed, step=step, loss=nats, parameters=wide * deep,
                    rows=round(64 * part), part=part, effective=value, tail=value, coherence=value,
                    rows_needed=value, minibatch=value,
                    noise=[SampledNoise(estimator="crs(budget=0.1)", relative=value, ratio=value)],
                )
            )  # fmt: skip
    return found


def factors(points: list[GrowthPoint]) -> dict[tuple[str, str], float]:
    trends = growth_trends(points, base_width=64, base_depth=2)
    assert len({t.quantity for t in trends}) == 7
    return {(t.axis, t.condition): t.factor for t in trends if t.quantity == "crs(budget=0.1), of ‖G‖²"}


def test_powers_are_found_on_their_own_axis() -> None:
    found = factors(planted(width=-0.5, rows=0.25))
    assert found["width", "equal steps"] == pytest.approx(2**-0.5, rel=0.01)
    assert found["width", "equal loss"] == pytest.approx(2**-0.5, rel=0.01)
    assert found["width", "equal steps, a quarter of the rows"] == pytest.approx(2**-0.5, rel=0.01)
    assert found["depth", "equal steps"] == pytest.approx(1.0, rel=0.01)
    assert found["rows", "all models"] == pytest.approx(2**0.25, rel=0.01)
    assert factors(planted(depth=1.0))["depth", "equal loss"] == pytest.approx(2.0, rel=0.02)


def test_what_is_progress_alone_shows_at_equal_steps_and_goes_at_equal_loss() -> None:
    found = factors(planted(loss=-2.0))
    assert found["progress", "all models"] == pytest.approx(math.e**2, rel=0.05)
    assert found["width", "equal steps"] == pytest.approx(math.exp(0.2), rel=0.01)
    assert found["width", "equal loss"] == pytest.approx(1.0, rel=0.01)
    assert found["depth", "equal loss"] == pytest.approx(1.0, rel=0.01)


def test_verdicts() -> None:
    found = growth_trends(planted(width=-0.5), base_width=64, base_depth=2)
    verdicts = {(t.axis, t.condition): t.verdict for t in found if t.quantity == "rows_needed"}
    assert verdicts["width", "equal loss"] == "falls"


def test_between_two_times_it_is_interpolated() -> None:
    one, other = planted(loss=1.0)[:2]
    middle = at_loss([one, other], (one.loss + other.loss) / 2)
    assert middle["tail"] == pytest.approx(math.sqrt(one.tail * other.tail))
    assert at_loss([one, other], one.loss)["tail"] == pytest.approx(one.tail)


def test_one_size_has_no_trend_of_size() -> None:
    alone = [p for p in planted() if (p.width, p.depth) == (64, 2)]
    assert {t.axis for t in growth_trends(alone, base_width=64, base_depth=2)} == {"rows", "progress"}
