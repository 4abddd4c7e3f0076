"""The largest batch that fits a device, by simulation: it fits, and one more example does not."""

from __future__ import annotations

from collections.abc import Callable

from wtacrs.validation.arguments import checked_integer
from wtacrs.validation.records.simulation import Largest, SimulatedStep

_MOST = 2**20


def largest_batch(simulate: Callable[[int], SimulatedStep], budget: int) -> tuple[SimulatedStep, Largest]:
    """Find the largest batch whose step fits, by secants: memory is nearly affine in the batch.

    It rests on a peak that grows with the batch, and no further: what is found is simulated itself, and so is one example
    more.

    Args:
        simulate: from a batch size to its step.
        budget: bytes of the device.

    Returns:
        The step at the largest batch (of one example, where not even that fits), and what was found.

    Raises:
        InputError: if `budget` is below 1 byte.
    """
    budget = checked_integer(budget, "budget", least=1)
    known: dict[int, SimulatedStep] = {}

    def peak(batch_size: int) -> int:
        if batch_size not in known:
            known[batch_size] = simulate(batch_size)
        return known[batch_size].peak

    fits, fails = 0, 1
    if peak(1) <= budget:
        fits, fails = _bracket(peak, budget)
        while fails - fits > 1:
            middle = _between(fits, fails, peak, budget)
            fits, fails = (middle, fails) if peak(middle) <= budget else (fits, middle)
    low, high = (1, 2) if fits < 2 else (max(1, fits // 2), fits)
    each = (peak(high) - peak(low)) / (high - low)
    found = Largest(budget=budget, batch_size=fits, fixed=max(0, round(peak(low) - each * low)), each=round(each))
    return known[max(fits, 1)], found


def _bracket(peak: Callable[[int], int], budget: int) -> tuple[int, int]:
    """A batch that fits, and one that does not."""
    fits, trial = 1, 2
    while trial <= _MOST:
        if peak(trial) > budget:
            return fits, trial
        slope = (peak(trial) - peak(fits)) / (trial - fits)
        room = (budget - peak(trial)) / slope if slope > 0 else trial
        # one beyond the guess, so that a good guess ends the search
        fits, trial = trial, trial + max(1, min(int(room) + 1, 63 * trial))
    return fits, fits + 1


def _between(fits: int, fails: int, peak: Callable[[int], int], budget: int) -> int:
    share = (budget - peak(fits)) / (peak(fails) - peak(fits))
    return min(max(fits + int(share * (fails - fits)), fits + 1), fails - 1)
