"""What it costs to take masks for hints: `python -m wtacrs.integration.measure.mask_cost`.

Two prices are measured on one layer with a mask that is right: the time of the floor in the forward pass and of the watch
in the backward pass, and the variance that the floor adds. All is interleaved and the median of the rounds counts. Ratios
of one run are comparable; seconds of different machines are not.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wtacrs.estimators import WtacrsWarning, joint_norms, make, row_norms
from wtacrs.estimators.core.mask_floor import MASK_FLOOR, scores_with_floor
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sizing import rows_kept
from wtacrs.estimators.rows.row_estimator import RowEstimator
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.mask_watch import MaskWatch
from wtacrs.integration.layers.convert import approximate_
from wtacrs.validation.benchmarks.timing import interleaved_medians

SHAPES = ((32 * 128, 512, 512), (32 * 128, 768, 3072), (32 * 128, 3072, 768))
SPECS = (
    "crs(budget=0.3)",
    "wta_crs(budget=0.3)",
    "conditional_poisson(budget=0.3)",
    "crs(budget=0.1)",
    "wta_crs(budget=0.1)",
)
_EXAMPLES = 32


@dataclass
class MaskCost:
    """Of one layer: seconds of its passes, and what floor and watch take, as shares of them."""

    forward: float
    backward: float
    floor: float
    watch: float


def time_shares(shape: tuple[int, int, int], spec: str, *, rounds: int, device: str = "cpu") -> MaskCost:
    """Time the passes of one layer whose mask is in use, and within the same rounds floor and watch by themselves.

    Args:
        shape: (n, d, m), n a multiple of 32.
        spec: the layer's estimator.
        rounds: how often each is run; the median counts.
        device: where.
    """
    n, d, m = shape
    generator = torch.Generator(device).manual_seed(0)
    model = nn.Sequential(nn.Linear(d, m, device=device))
    approximate_(model, spec, seed=0)
    context = ForwardContext.of(model)
    assert context is not None
    x = torch.randn(_EXAMPLES, n // _EXAMPLES, d, generator=generator, device=device, requires_grad=True)
    mask = _mask(n, generator)
    dy = torch.randn(*mask.shape, m, generator=generator, device=device) * mask[..., None]
    norms, live, kept = row_norms(x.reshape(n, d)), mask.reshape(-1), rows_kept(make(spec), n)
    outputs: list[Tensor] = []

    def forward() -> None:
        with context.given(source=mask):
            outputs[:] = [model(x)]

    parts: dict[str, Callable[[], object]] = {
        "forward": forward,
        "backward": lambda: outputs[0].backward(dy),
        "floor": lambda: scores_with_floor(norms, live, kept, MASK_FLOOR),
        "watch": lambda: MaskWatch().observe("0", live, dy.reshape(n, m)),
    }
    with warnings.catch_warnings():
        # that a layer alone frees nothing of an input which the caller keeps is no news here
        warnings.simplefilter("ignore", WtacrsWarning)
        seconds = interleaved_medians(list(parts.values()), rounds=rounds, device=device)
    found = dict(zip(parts, seconds, strict=True))
    return MaskCost(
        found["forward"],
        found["backward"],
        floor=found["floor"] / found["forward"],
        watch=found["watch"] / found["backward"],
    )


class Factors(NamedTuple):
    """With the floor over without.

    Attributes:
        squared_weights: of `Σ_i E(Σ_j c_ij²) w_i²` over the slots j that hold row i (for CRS `Var + ‖G‖²/k`), of which
            `wtacrs.estimators.core.mask_floor` proves a bound.
        variance: of the estimate.
    """

    squared_weights: float
    variance: float


def factors(spec: str, *, n: int = 1024, seed: int = 0) -> Factors:
    """What the floor adds where the mask is right, by closed form.

    Rows vary a hundredfold in size and two fifths of them are padding; scores are the row norms.

    Args:
        spec: of a row design.
        n: rows.
        seed: of the rows.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randn(n, 1, generator=generator, dtype=torch.float64).exp()
    x = torch.randn(n, 32, generator=generator, dtype=torch.float64) * sizes
    mask = _mask(n, generator).reshape(-1)
    dy = torch.randn(n, 32, generator=generator, dtype=torch.float64) * mask[:, None]
    estimator, norms = make(spec), row_norms(x)
    assert isinstance(estimator, RowEstimator)
    floored = scores_with_floor(norms, mask, rows_kept(estimator, n), MASK_FLOOR)
    squares = joint_norms(x, dy).square()
    ways = [sampling_scores(x, scores) for scores in (floored, norms * mask)]
    moments = [float(estimator.weight_squares(scores) @ squares) for scores in ways]
    variances = [float(estimator.variance(x, dy, scores=scores)) for scores in ways]
    return Factors(moments[0] / moments[1], variances[0] / variances[1])


def _mask(n: int, generator: torch.Generator) -> Tensor:
    """`[examples, positions]`, about two fifths of them padding on the right."""
    positions = n // _EXAMPLES
    lengths = torch.randint(
        positions // 5, positions + 1, (_EXAMPLES, 1), generator=generator, device=generator.device
    )
    return torch.arange(positions, device=generator.device) < lengths


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both prices."""
    parser = argparse.ArgumentParser(prog="python -m wtacrs.integration.measure.mask_cost", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"fp32, {options.device}, {options.threads} threads, median of {options.rounds}")
    for shape in SHAPES:
        cost = time_shares(shape, "wta_crs(budget=0.3)", rounds=options.rounds, device=options.device)
        print(
            f"n={shape[0]} d={shape[1]} m={shape[2]}: floor {cost.floor:.1%} of the forward pass "
            f"({1e3 * cost.forward:.1f} ms), watch {cost.watch:.1%} of the backward pass ({1e3 * cost.backward:.1f} ms)"
        )
    for name, found in zip(Factors._fields, zip(*map(factors, SPECS), strict=True), strict=True):
        told = " · ".join(f"{spec} {factor:.4f}" for spec, factor in zip(SPECS, found, strict=True))
        bound = f"; bound {1 / (1 - MASK_FLOOR):.4f}" if name == "squared_weights" else ""
        print(f"{name.replace('_', ' ')} with the floor over that without, δ = {MASK_FLOOR}: {told}{bound}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
