"""The receipt in two lines."""

from __future__ import annotations

from wtacrs.validation.records.receipt import Holder, Receipt, receipt_lines

RECEIPT = Receipt(
    layers=2,
    promised=1_000_000,
    inputs=4_000_000,
    copies=1_200_000,
    freed=3_000_000,
    kept=8_200_000,
    exact=10_000_000,
    holders=[Holder(modules="a.*.softmax", bytes=5_000_000), Holder(modules="(model)", bytes=300_000)],
)


def test_promised_and_real_stand_side_by_side() -> None:
    first, second = receipt_lines(RECEIPT)
    assert first == (
        "receipt: 2 layers promised 1.00 MB in place of 4.00 MB, and keep 1.20 MB in place of 3.00 MB; "
        "the model keeps 8.20 MB of the 10.0 MB of exact training (82.0%)"
    )
    assert second == "still held by others, the largest: a.*.softmax 5.00 MB, (model) 0.30 MB"


def test_what_is_not_known_is_said() -> None:
    assert "promised an unknown size" in next(receipt_lines(RECEIPT.model_copy(update={"promised": None})))
    exact = RECEIPT.model_copy(update={"layers": 0, "holders": []})
    assert list(receipt_lines(exact)) == ["receipt: no layer trains by estimates; the model keeps 8.20 MB"]
