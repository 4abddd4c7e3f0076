"""What a staged test of a mean found, in words: how often each part is counted, and which biases are ruled out."""

from __future__ import annotations

import math

from wtacrs.validation.statistics.staged_means import StagedMean


def mean_report(found: StagedMean) -> str:
    """One line: the mean in units of the exact product, then what was ruled out, or what rejects."""
    shares = ", ".join(f"{each.name} {figure(each.share, each.error)}" for each in found.directions)
    return f"mean in units of the exact product: {shares}; {_conclusion(found)}"


def _conclusion(found: StagedMean) -> str:
    if found.outcome == "broken":
        return _rejection(found)
    if not math.isfinite(found.ruled_out):
        return f"{found.draws} draws are too few to test"
    power = f"with {100 * found.power:.4g} % power, {found.draws} draws, level {found.level:.1g}"
    if found.outcome == "holds":
        return f"biases above {percent(found.ruled_out)} of each ruled out ({power})"
    worst = max(found.directions, key=lambda each: each.detectable)
    return f"biases up to {percent(worst.detectable)} of {worst.name} could be missed ({power})"


def _rejection(found: StagedMean) -> str:
    worst = min(found.directions, key=lambda each: (each.p_value, -abs(each.share - 1.0)))
    told = (
        f"p = {min(worst.p_value, found.anywhere):.2g}, level {found.look_level:.1g} per look, {found.draws} draws"
    )
    if worst.p_value <= found.look_level:
        tolerated = f", rounding explains {percent(worst.rounding)}" if worst.rounding > 0.0 else ""
        return f"{worst.name}: off by {percent(abs(worst.share - 1.0))} ({told}{tolerated})"
    return f"a bias of {percent(found.anywhere_bias)} of the norm, in another direction ({told})"


def bias_size(found: StagedMean) -> float:
    """The largest deviation among the directions that reject, or that of the norm where only another direction does."""
    rejected = [each for each in found.directions if each.p_value <= found.look_level]
    return max((abs(each.share - 1.0) for each in rejected), default=found.anywhere_bias)


def percent(share: float) -> str:
    """`1.2 %`."""
    return f"{100 * share:.2g} %"


def figure(value: float, error: float) -> str:
    """`0.300 ± 0.002`: the value to the first digit of its error, but to six digits at most."""
    if not math.isfinite(error) or error <= 1e-6 * abs(value):
        return f"{value:.6g}"
    digits = min(max(0, -math.floor(math.log10(error))), 6)
    return f"{value:.{digits}f} ± {error:.{digits}f}"
