"""Tests on captured layers in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from wtacrs.validation.records.layer_tests import LayerTest, LayerTestResult
from wtacrs.validation.summaries.series import series


def layer_test_summary(result: LayerTestResult) -> list[str]:
    """What a reader must know: how many claims fell, how small a bias would have been seen, how the baseline fares."""
    lines = [_mean_line(result)]
    stated = [test for test in result.tests if test.variance is not None]
    if stated:
        fallen = [test for test in stated if test.variance and test.variance.verdict == "rejected"]
        lines.append(f"closed form of the variance: {len(fallen)} of {len(stated)} rejected at {result.level:.2g}")
    for estimator, tests in _by_estimator(result.tests).items():
        ratios = [test.ratio for test in tests if test.ratio is not None]
        if ratios:
            lower, higher = (sum(r.verdict == way for r in ratios) for way in ("lower", "higher"))
            least, most = min(r.ratio for r in ratios), max(r.ratio for r in ratios)
            lines.append(
                f"{ratios[0].quantity} of {estimator} over {series(ratios[0].against)}: {least:.3g} to {most:.3g}; "
                f"lower on {lower}, higher on {higher} of {len(ratios)}"
            )
    return lines


def _mean_line(result: LayerTestResult) -> str:
    claims = [test for test in result.tests if test.unbiased]
    rejected = sum(test.bias.verdict == "rejected" for test in claims)
    line = f"no bias: {rejected} of {len(claims)} claims rejected at {result.level:.2g}"
    seen = [(t.bias.detectable, t.layer) for t in claims if t.bias.detectable is not None]
    scale = [t.bias.detectable_along for t in claims if t.bias.detectable_along is not None]
    if seen:
        worst, where = max(seen)
        line += (
            f"; a bias of {worst:.2g} ‖G‖ in any direction ({where}: the hardest), or of {max(scale):.2g} ‖G‖ along G, "
            "would have been seen on each with 99 % power"
        )
    return line


def _by_estimator(tests: Sequence[LayerTest]) -> dict[str, list[LayerTest]]:
    grouped: dict[str, list[LayerTest]] = {}
    for test in tests:
        grouped.setdefault(test.estimator, []).append(test)
    return grouped
