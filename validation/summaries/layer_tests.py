"""Tests on captured layers in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wtacrs.validation.records.layer_tests import BiasFinding, LayerTest, LayerTestResult
from wtacrs.validation.summaries.series import series


def layer_test_summary(result: LayerTestResult) -> list[str]:
    """What a reader must know: how many claims fell or stay open, which biases are ruled out, how the baseline fares."""
    lines = [_mean_line(result), *_undecided_line(result)]
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


def ruled_out(test: LayerTest) -> str:
    """What the test of the mean tells of one row: "biases above 1.2 % of ‖G‖ along G ruled out with 99 % power"."""
    found = test.bias
    if found.verdict in ("broken", "biased, as declared"):
        return f"off by {off_along(found)} of ‖G‖ along G, by {percent(found.bias)} in norm"
    if found.method == "enumeration":
        return "exact: no bias"
    reach = found.detectable_along
    if found.verdict == "undecided":
        return _left_open(found)
    if reach is None:
        return "no bias was seen"
    return f"biases above {percent(reach)} of ‖G‖ along G ruled out with {_power(found)} power"


def _left_open(found: BiasFinding) -> str:
    if found.rounding >= found.asked:
        return f"rounding alone may be {percent(found.rounding)} of ‖G‖"
    if found.detectable_along is None or not math.isfinite(found.detectable_along):
        return "all draws are alike: too few to tell"
    missed = f"biases up to {percent(found.detectable_along)} of ‖G‖ along G could be missed"
    return f"{missed} at {_power(found)} power"


def off_along(found: BiasFinding) -> str:
    """The estimated bias along G with its standard error, `-6.8 ± 0.9 %`; exact without one."""
    if not found.along_error:
        return f"{100 * found.along:.2g} %"
    digits = max(0, -math.floor(math.log10(100 * found.along_error)))
    along = round(100 * found.along, digits) + 0.0  # no -0
    return f"{along:.{digits}f} ± {100 * found.along_error:.{digits}f} %"


def draws_needed(test: LayerTest) -> int | None:
    """About how many draws it takes to rule out the bias asked for; None where no number would, or none is needed."""
    times = test.bias.needed
    if times is None or times <= 1.0:
        return None
    draws = times * test.draws
    unit = 10 ** max(math.floor(math.log10(draws)) - 1, 0)
    return math.ceil(draws / unit) * unit


def _mean_line(result: LayerTestResult) -> str:
    claims = [test for test in result.tests if test.unbiased]
    broken, undecided = (sum(t.bias.verdict == word for t in claims) for word in ("broken", "undecided"))
    line = f"no bias: {broken} of {len(claims)} claims broken at {result.level:.2g}, {undecided} undecided"
    held = [(t.bias.detectable_along, t) for t in claims if t.bias.verdict == "holds"]
    sampled = [(reach, test) for reach, test in held if reach is not None]
    if not sampled:
        return line
    reach, worst = max(sampled, key=lambda pair: pair[0])
    line += f"; biases above {percent(reach)} of ‖G‖ along G ruled out where it holds"
    anywhere = [t.bias.detectable for _, t in sampled if t.bias.detectable is not None]
    if anywhere:
        line += f", and above {percent(max(anywhere))} in any direction,"
    return f"{line} with {_power(worst.bias)} power (the hardest along G: {worst.layer})"


def _undecided_line(result: LayerTestResult) -> list[str]:
    """What would decide: the draws of the hardest layer; and how many no number of draws decides."""
    if not result.undecided:
        return []
    needed = {test.layer: draws for test in result.undecided if (draws := draws_needed(test)) is not None}
    asked = percent(max(test.bias.asked for test in result.undecided))
    told = []
    if needed:
        hardest = max(needed, key=lambda layer: needed[layer])
        told.append(f"about {needed[hardest]:,} draws would rule out {asked} along G ({hardest}: the hardest)")
    coarse = sum(test.bias.rounding >= test.bias.asked for test in result.undecided)
    if coarse:
        told.append(f"rounding alone may be as large on {coarse}")
    return [f"undecided: {'; '.join(told)}"] if told else []


def percent(share: float) -> str:
    """`1.2 %`, or `120 %`."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _power(found: BiasFinding) -> str:
    return f"{100 * found.power:.4g} %"


def _by_estimator(tests: Sequence[LayerTest]) -> dict[str, list[LayerTest]]:
    grouped: dict[str, list[LayerTest]] = {}
    for test in tests:
        grouped.setdefault(test.estimator, []).append(test)
    return grouped
