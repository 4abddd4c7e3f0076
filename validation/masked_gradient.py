"""Layers whose rows called padding carry gradient, in one line."""

from __future__ import annotations

from collections.abc import Mapping

ADVICE = (
    "it is not used there any more, and all estimates stay unbiased. If the mask is wrong, pass the right one or state "
    "it by ForwardContext.given; if the loss means to read these rows, nothing needs to be done"
)
_NAMED = 3


def masked_gradient_sentence(shares: Mapping[str, float]) -> str | None:
    """Which layers these are, how much gradient there is, and what to do; None if there is no layer.

    Args:
        shares: of ‖dY‖² in rows that a mask calls padding, by layer.

    >>> print(masked_gradient_sentence({"encoder.wi": 0.25}).partition(", so")[0])
    rows that a mask calls padding carry gradient in 1 layer (share of ‖dY‖²: encoder.wi 0.25)
    """
    return f"{masked_gradient_finding(shares)}; {ADVICE}" if shares else None


def masked_gradient_finding(shares: Mapping[str, float]) -> str:
    """The finding alone, of at least one layer; the worst layers are named."""
    worst = sorted(shares, key=lambda layer: -shares[layer])
    named = ", ".join(f"{layer or 'the model'} {shares[layer]:.2g}" for layer in worst[:_NAMED])
    others = f" and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
    layers = "1 layer" if len(worst) == 1 else f"{len(worst)} layers"
    return (
        f"rows that a mask calls padding carry gradient in {layers} (share of ‖dY‖²: {named}{others}), "
        "so the mask does not fit the loss"
    )
