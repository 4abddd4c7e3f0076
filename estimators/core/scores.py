"""Row scores: what a sampler takes for the size of each column-row pair.

A score `s_i ≥ 0` stands for `w_i = ‖x_i‖‖y_i‖`. Any positive score keeps a sampler unbiased; only its variance
depends on how close the scores are to `w`. A score of zero says "this row contributes nothing" and makes the
row unreachable: that is how padding is left out. Scores matter only up to a common factor.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from wtacrs.estimators.core.checks import check_rows_agree
from wtacrs.estimators.core.errors import InputError

STALE_FLOOR = 0.1
"""ε of scores from remembered gradient norms: the share of the probability that is spread evenly over the rows."""

# squares of norms between these bounds, and of all entries that matter in them, are normal fp32 numbers
_SAFE_NORMS = (1e-15, 1e18)
_BLOCK_NUMBERS = 2**25


def row_norms(x: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """Euclidean norm of every row, in double precision.

    Squares of large or tiny fp32, bf16 and fp16 entries leave the range of single precision. So the sum runs in
    double precision, which costs nothing on a device; on the CPU, where it is slow, it does so only if a norm
    comes near the limits of single precision. Double-precision input is scaled by its largest entry first.
    """
    x = x.detach()
    if x.dtype == torch.float64:
        return _scaled_norms(x)
    if has_values(x):
        # on the CPU half precision is copied to single first: of a large matrix a block at a time
        blocks = x.split(max(_BLOCK_NUMBERS // max(x.shape[1], 1), 1)) if x.numel() > _BLOCK_NUMBERS else (x,)
        norms = torch.cat([torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32) for rows in blocks])
        if bool(((norms > _SAFE_NORMS[0]) & (norms < _SAFE_NORMS[1])).all()):
            return norms.double()
    return torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)


def _scaled_norms(x: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    if x.numel() == 0:
        return x.new_zeros(x.shape[0])
    largest = torch.linalg.vector_norm(x, ord=torch.inf)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return torch.linalg.vector_norm(x / scale, dim=1) * scale


def joint_norms(x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float64[Tensor, " n"]:
    """The oracle's scores `w_i = ‖x_i‖‖y_i‖`: the variance-minimising choice, unknown in the forward pass.

    Raises:
        InputError: if `x` and `dy` do not have the same number of rows.
    """
    check_rows_agree(x, dy)
    return row_norms(x) * row_norms(dy)


def gradient_proxies(norms: Float64[Tensor, " n"], scores: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """`score_i / ‖x_i‖`, a stand-in for ‖y_i‖ up to a factor; 0 where the score is 0.

    A row of zeros says nothing of its y: with a positive score it counts with the mean of the others, and so stays
    within reach.

    Args:
        norms: row norms of x.
        scores: checked scores.
    """
    known = (norms > 0) & (scores > 0)
    proxy = torch.where(known, scores / torch.where(known, norms, 1.0), 0.0)
    typical = proxy.sum() / known.sum().clamp(min=1)
    return torch.where((scores > 0) & ~known, torch.where(typical > 0, typical, 1.0), proxy)


def floored_scores(
    norms: Float64[Tensor, " n"],
    expected: Shaped[Tensor, " n"],
    mask: Bool[Tensor, " n"] | None = None,
    floor: float = STALE_FLOOR,
) -> Float64[Tensor, " n"]:
    """Scores from a guess of the gradient norms, floored so that no unmasked row is unreachable.

    With `w_i = norms_i · expected_i` they are `(1 − ε) w_i / Σw + ε / N` over the N unmasked rows, ε = `floor`: the guess
    may say zero where there is a gradient now, and the estimate stays unbiased, with `p_i ≥ ε / N` and so weights of at
    most `N / (ε k)` for k draws. If every `w_i` is zero, nothing is known and they are the row norms. Masked rows get 0.

    Args:
        norms: row norms of x.
        expected: finite guesses ≥ 0 of the row norms of dY, up to a common factor.
        mask: False at padding rows.
        floor: ε in (0, 1].
    """
    unmasked = torch.ones_like(norms, dtype=torch.bool) if mask is None else mask
    norms = torch.where(unmasked, norms, 0.0)
    guess = norms * expected
    total, rows = guess.sum(), unmasked.sum(dtype=torch.float64).clamp(min=1)
    mixture = (1 - floor) * guess / torch.where(total > 0, total, 1.0) + floor / rows
    return torch.where(total > 0, torch.where(unmasked, mixture, 0.0), norms)


def has_values(tensor: Tensor) -> bool:
    """Whether Python may look at the values for free: on the CPU, outside FakeTensorMode and torch.compile.

    A simulated step has no values either, and answers in their place (see `has_answers`).
    """
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not is_fake(tensor) or has_answers(tensor)


def has_answers(tensor: Tensor) -> bool:
    """Whether a tensor stands for one of the CPU: its FakeTensorMode answers in the place of values."""
    return bool(getattr(getattr(tensor, "fake_mode", None), "answers", False))


def require(condition: Bool[Tensor, ""], message: str) -> None:
    """Raise `InputError(message)` if `condition` is false.

    Where the values are at hand (see `has_values`) at once; elsewhere the check becomes an asynchronous assertion,
    so that the host never waits for the device.
    """
    if not has_values(condition):
        torch._assert_async(condition, message)
    elif not bool(condition):
        raise InputError(message)


def sampling_scores(x: Float[Tensor, "n d"], scores: Shaped[Tensor, " n"] | None = None) -> Float64[Tensor, " n"]:
    """Checked scores in double precision, divided by their largest, ready to be summed and sorted.

    Args:
        x: the rows.
        scores: one finite value ≥ 0 per row, on the device of `x`; the row norms of `x` if None.

    Returns:
        Scores in [0, 1]. If all scores are zero they carry no information and every row gets the score 1, so
        that sampling stays unbiased.

    Raises:
        InputError: on a wrong shape, dtype or device, and on a negative, NaN or infinite score. On CUDA the
            values are checked asynchronously (`torch._assert_async`).
    """
    n = x.shape[0]
    if scores is None:
        name, raw = "the row norms of x", row_norms(x)
    else:
        name, raw = "scores", _checked_form(scores, x)
    if n == 0:
        return raw
    require(
        (torch.isfinite(raw) & (raw >= 0)).all(),
        f"{name} must be finite and ≥ 0 in every row: a value is negative, NaN or infinite",
    )
    largest = raw.amax()
    return torch.where(largest > 0, raw / torch.where(largest > 0, largest, 1.0), 1.0)


def _checked_form(scores: Tensor, x: Tensor) -> Tensor:
    if not isinstance(scores, Tensor):
        raise InputError(f"scores must be a torch.Tensor, got {type(scores).__name__}")
    if scores.shape != x.shape[:1]:
        raise InputError(f"scores must have shape [{x.shape[0]}], one per row of x, got {list(scores.shape)}")
    if scores.is_complex():
        raise InputError(f"scores must be real, got {scores.dtype}")
    if scores.device != x.device:
        raise InputError(f"scores must be on the device of x ({x.device}), got {scores.device}")
    return scores.detach().to(torch.float64)
