"""The test of a mean against a bias in any direction, `mean_test`, in stages: until a stated bias is ruled out.

`staged_means` tests along directions that are fixed beforehand, and keeps its draws flat in fp64. Here the draws stay on
their device at the size of dW, and what is estimated beside the verdict is the norm of the bias.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from wtacrs.validation.statistics.significance import MeanTest, mean_verdict
from wtacrs.validation.statistics.staged_means import RAREST, Demand
from wtacrs.validation.statistics.streaming import SplitDraws

STAGES = 8
"""Looks at the draws, of n, 2n, 4n, … of them: at most 128 times those of the first."""


class StagedSplit(NamedTuple):
    """Outcome of `staged_split_test`.

    Attributes:
        test: the numbers of the last look; its level, p-value and `rejected` are those of all looks together.
        looks: how many there were.
        pair_squares: `½‖Ĝ_{2s−1} − Ĝ_{2s}‖²` of the draws of the first stage.
        squares: `‖Ĝ_t − target‖²` of the draws of the first stage.
    """

    test: MeanTest
    looks: int
    pair_squares: list[float]
    squares: list[float]


@torch.no_grad()
def staged_split_test(
    draw: Callable[[], Float64[Tensor, "m d"]],
    target: Float64[Tensor, "m d"],
    demand: Demand,
    first: int,
    *,
    rounding: float,
) -> StagedSplit:
    """Test that draws have the mean `target`, in up to 8 stages of n, 2n, 4n, … draws in all.

    *Stages.* Look k sees all n·2^k draws so far: along the target all of them, and against a bias in any direction those
    of this stage, projected on the direction of the mean error of the draws before it, which are as many (`mean_test`
    with the halves in this order; in the first stage the halves of that). More is drawn until the mean is rejected; or a
    bias along the target of the size asked for would be rejected with the power asked for; or rounding alone may be as
    large; or the last look, or the limit of time, is reached.

    *Level of the mean.* Let p_k be the p-value that look k has or would have. Its sample size n·2^k is fixed, so
    P(p_k ≤ a) ≤ a if there is no bias. The p-value given is P = 8 min p_k over the looks that were made, at most 1.
    Whatever ends the looking, P(P ≤ a) ≤ Σ_k P(p_k ≤ a/8) ≤ a: the sum is over all 8 looks, made or not. So P may enter
    Holm's correction as any other p-value does, and the stopping rule may depend on the draws and on the clock.

    *What is measured of the spread* (`pair_squares`, `squares`) is of the first stage alone. Drawing goes on where the
    spread along the target came out large. A sample that ends at such a time is no fixed-size sample: where the looking
    stopped early the spread is likely too small, so that a variance measured on all draws would be biased, and a test of
    it would have another level than it says. The first stage is always drawn whole, whatever it shows: its size is n with
    probability 1, hence its mean squares are unbiased and tests of them keep their level. Bonferroni over the looks would
    keep a level too, at an eighth for a test that usually sees one stage, and leave the bias.

    *Numbers that are all alike* and off are rejected with p = (1 − 1/100)^T only, as in `staged_mean_test`.

    *Power.* `detectable` and `detectable_along` hold at an eighth of the level, in the sizes of the last look. The spread
    in them is estimated; where it comes out small by chance, the looking ends early, and the power is a little less.

    *Time.* A stage is begun only if, at the pace so far, it will end within the limit; the first one always is.

    Args:
        draw: gives one estimate.
        target: the claimed mean, not zero.
        demand: level, bias to rule out along the target as a share of its norm, power, seconds; 8 stages bound the
            draws, not its number.
        first: n, the draws of the first stage, ≥ 4.
        rounding: norm of a bias that still counts as none.

    Raises:
        InputError: on draws that are not finite.
    """
    unit = float(torch.linalg.vector_norm(target))
    stream = SplitDraws(target, first)
    start, goal, least = time.monotonic(), first, 1.0
    for look in range(1, STAGES + 1):
        for _ in range(goal - (stream.pilot if look > 1 else 0)):
            stream.add(draw())
        test = mean_verdict(
            stream, demand.level / STAGES, unit=unit, rounding=rounding, power=demand.power, rarest=RAREST
        )
        least = min(least, test.p_value)
        if look == 1:
            pair_squares, squares = stream.pairs.squares, stream.squares
        if _ends(test, demand, rounding / unit) or 2 * (time.monotonic() - start) > demand.limit:
            break
        if look < STAGES:
            stream.start_stage()
            goal *= 2
    p_value = min(1.0, STAGES * least)
    joint = test._replace(p_value=p_value, rejected=p_value <= demand.level, level=demand.level)
    return StagedSplit(joint, look, pair_squares, squares)


def _ends(test: MeanTest, demand: Demand, rounding: float) -> bool:
    return test.rejected or test.detectable_along <= demand.bias or rounding >= demand.bias
