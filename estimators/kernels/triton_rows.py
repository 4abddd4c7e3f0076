"""Sampling of rows by Triton, on CUDA: threshold and systematic draw in one pass, a product with gathered rows of dY.

The draw reads the scores once and keeps them in registers: no sort, no search. The threshold is found by fixed-point
steps, each of which adds the rows to the take-all set that would be certain beside those in it; it takes one step more
than there are such additions, a few in practice. The product loads the rows of dY by their index and weighs them on their
way to the multiplication, so that no gathered copy is made.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# arguments of a jitted kernel are pointers and numbers of the device, which have no types here
from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float64, Int
from torch import Tensor

from wtacrs.estimators.kernels.triton_norms import INTERPRETED

MOST_ROWS = 2**14
"""Rows that one kernel draws from: more do not fit its registers."""
_TILES = [
    triton.Config({"ROWS": rows, "WIDE": wide, "HIGH": high}, num_warps=warps)
    for rows, wide, high, warps in ((32, 64, 64, 4), (32, 128, 64, 4), (32, 128, 128, 8), (64, 128, 128, 8))
]


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b)


@triton.jit
def _counted(scores, order, start, indices, weights, probabilities, counts, rows, kept, SIZE: tl.constexpr):
    """The take-all set into its slots; of every row, in order, π and how many points lie below its end."""
    place = tl.arange(0, SIZE)
    there = place < rows
    row = tl.load(order + place, mask=there, other=0)
    score = tl.load(scores + row, mask=there, other=0.0)
    positive = score > 0
    taken = place < 0
    count = tl.sum(taken.to(tl.int32), axis=0)
    before = count - 1
    while count != before:
        before = count
        mass = tl.sum(tl.where(taken, 0.0, score), axis=0)
        taken = taken | (positive & (score * (kept - count) > mass))
        count = tl.sum(taken.to(tl.int32), axis=0)
    slot = tl.cumsum(taken.to(tl.int32), axis=0) - 1
    tl.store(indices + slot, row, mask=taken)
    tl.store(weights + slot, tl.where(taken, 1.0, 0.0).to(tl.float64), mask=taken)
    tail = positive & (slot >= -1) & (taken == 0)
    number = tl.cumsum(tail.to(tl.int32), axis=0)
    size = tl.sum(tail.to(tl.int32), axis=0)
    points = tl.minimum(kept - count, size)
    mass = tl.sum(tl.where(tail, score, 0.0), axis=0)
    share = points.to(tl.float64) / tl.where(mass > 0, mass, 1.0)
    probability = tl.where(tail, tl.minimum(score * share, 1.0), 0.0)
    length = tl.cumsum(probability, axis=0)
    whole = tl.max(length, axis=0)
    length = length * (points.to(tl.float64) / tl.where(whole > 0, whole, 1.0))
    # points start, start + 1, …; rounding must neither hit a row twice, nor leave the tail
    found = tl.maximum(tl.ceil(length - tl.load(start)), 0.0).to(tl.int32)
    found = tl.associative_scan(tl.where(number > 0, found - number, 0), 0, _smaller) + number
    found = tl.minimum(tl.maximum(found, points - (size - number)), points)
    tl.store(counts + place, found, mask=there)
    tl.store(counts + rows, count)
    tl.store(probabilities + place, probability, mask=there)


@triton.jit
def _filled(order, probabilities, counts, indices, weights, rows, SIZE: tl.constexpr):
    """Rows with a point in their interval into the slots behind the take-all set."""
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    there = place < rows
    own = tl.load(counts + place, mask=there, other=0)
    before = tl.load(counts + place - 1, mask=there & (place > 0), other=0)
    hit = there & (own > before)
    slot = tl.load(counts + rows) + before
    tl.store(indices + slot, tl.load(order + place, mask=there, other=0), mask=hit)
    probability = tl.load(probabilities + place, mask=hit, other=1.0)
    tl.store(weights + slot, 1.0 / probability, mask=hit)


# tuning needs a device; the interpreter takes one shape
@triton.autotune(configs=_TILES[:1] if INTERPRETED else _TILES, key=["kept", "high", "wide"])
@triton.jit
def _gathered(
    rows, indices, weights, dy, out, kept, high, wide,
    PRECISION: tl.constexpr, WIDENED: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, HIGH: tl.constexpr,
):  # fmt: skip
    of_dy = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    of_x = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    total = tl.zeros((HIGH, WIDE), tl.float32)
    for first in range(0, kept, ROWS):
        slot = first + tl.arange(0, ROWS)
        there = slot < kept
        index = tl.load(indices + slot, mask=there, other=0).to(tl.int64)
        weight = tl.load(weights + slot, mask=there, other=0.0)
        inside = there[:, None] & (of_dy < high)[None, :]
        y = tl.load(dy + index[:, None] * high + of_dy[None, :], mask=inside, other=0.0)
        y = (y.to(tl.float32) * weight[:, None]).to(rows.dtype.element_ty)
        inside = there[:, None] & (of_x < wide)[None, :]
        x = tl.load(rows + slot.to(tl.int64)[:, None] * wide + of_x[None, :], mask=inside, other=0.0)
        if WIDENED:
            y, x = y.to(tl.float32), x.to(tl.float32)
        total = tl.dot(tl.trans(y), x, total, input_precision=PRECISION)
    inside = (of_dy < high)[:, None] & (of_x < wide)[None, :]
    target = out + of_dy.to(tl.int64)[:, None] * wide + of_x[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=inside)


def systematic_draw(
    scores: Float64[Tensor, " n"], order: Int[Tensor, " n"], start: Float64[Tensor, " 1"], k: int
) -> tuple[Int[Tensor, " k"], Float64[Tensor, " k"]]:
    """Rows with π proportional to score, hit by the points `start`, `start + 1`, …, and their weights 1/π.

    The take-all set comes first. Slots that are left over have the row of the largest score and the weight 0.

    Args:
        scores: ≥ 0, checked; n up to `MOST_ROWS`.
        order: in which the intervals are laid end to end.
        start: in [0, 1).
        k: slots, 0 < k < n.
    """
    n, device = scores.shape[0], scores.device
    indices = scores.argmax().expand(k).contiguous()
    weights, probabilities = (torch.zeros(size, dtype=torch.float64, device=device) for size in (k, n))
    counts = torch.empty(n + 1, dtype=torch.int32, device=device)
    size = triton.next_power_of_2(n)
    given = (scores.contiguous(), order, start, indices, weights, probabilities, counts, n, k)
    _counted[(1,)](*given, SIZE=size, num_warps=min(max(size // 512, 4), 32))
    _filled[(triton.cdiv(n, 256),)](order, probabilities, counts, indices, weights, n, SIZE=256)
    return indices, weights


def gathered_product(
    rows: Float[Tensor, "k d"], indices: Int[Tensor, " k"], weights: Float[Tensor, " k"], dy: Float[Tensor, "n m"]
) -> Float[Tensor, "m d"]:
    """`Σ_j weight_j · y_(i_j) row_jᵀ` of numbers of one dtype, fp32 or bf16, summed in fp32."""
    (k, d), m = rows.shape, dy.shape[1]
    out = rows.new_empty((m, d))
    if not k:
        return out.zero_()
    precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
    if m and d:
        _gathered[lambda meta: (triton.cdiv(m, meta["HIGH"]), triton.cdiv(d, meta["WIDE"]))](
            rows.contiguous(), indices, weights.to(torch.float32), dy.contiguous(), out, k, m, d,
            PRECISION=precision, WIDENED=INTERPRETED,  # the interpreter multiplies no bf16
        )  # fmt: skip
    return out
