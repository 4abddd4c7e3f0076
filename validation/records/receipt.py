"""What a conversion promised to keep, beside what is kept in the first step, as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from wtacrs.validation.records.base import Record
from wtacrs.validation.records.units import megabytes


class Holder(Record):
    """Bytes that others than the sampled layers hold; `modules` is their name, with `*` for numbers, and class."""

    modules: str
    bytes: int


class Receipt(Record):
    """Bytes of one forward pass of a converted model, or of a stock one, whose `layers` is 0.

    What was promised follows from shapes alone: estimators keep `promised` bytes, in place of the `inputs` of the layers.
    It is None where an estimator cannot tell without values. What is real is measured: they keep `copies`, in place of
    the inputs that are `freed`, since nothing else holds them. `kept` is what all of the model keeps for its backward
    pass, `exact` what the stock model would, or where `lean` says what neighbours keep less of, what stock linear layers
    would beside such neighbours. `stays` has the parts that were to be lean and are stock, with the reason. `holders` are
    the largest others that hold something; what several hold counts for each.
    """

    layers: int
    promised: int | None
    inputs: int
    copies: int
    freed: int
    kept: int
    exact: int
    holders: Sequence[Holder] = Field(default_factory=list)
    lean: str | None = None
    stays: dict[str, str] = Field(default_factory=dict)


def receipt_lines(receipt: Receipt) -> Iterator[str]:
    """The receipt in a few lines: promised and real, what stays stock, then who still holds what."""
    whole = f"the model keeps {megabytes(receipt.kept)} MB"
    if receipt.layers:
        promised = "an unknown size" if receipt.promised is None else f"{megabytes(receipt.promised)} MB"
        share = f"{receipt.kept / receipt.exact:.1%}" if receipt.exact else "all"
        yield (
            f"receipt: {receipt.layers} layers promised {promised} in place of {megabytes(receipt.inputs)} MB, and keep "
            f"{megabytes(receipt.copies)} MB in place of {megabytes(receipt.freed)} MB; {whole} of the "
            f"{megabytes(receipt.exact)} MB of {_exact(receipt)} ({share})"
        )
    else:
        beside = "" if receipt.lean is None else f", lean {receipt.lean}"
        yield f"receipt: no layer trains by estimates{beside}; {whole}"
    for part, reason in receipt.stays.items():
        yield f"not lean: {part}: {reason}"
    if receipt.holders:
        held = ", ".join(f"{holder.modules} {megabytes(holder.bytes)} MB" for holder in receipt.holders)
        yield f"still held by others, the largest: {held}"


def _exact(receipt: Receipt) -> str:
    if receipt.lean is None:
        return "exact training"
    return (
        f"stock linear layers, which keep their inputs, beside the same lean neighbours ({receipt.lean}); exact ones "
        "make inputs again there, and may keep less"
    )
