"""Linear + cross-entropy by pieces of rows against torch: loss, gradients, planted defects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from tests.support.lean_heads import MODES, V, tensors
from wtacrs.integration.layers.lean import cross_entropy as lean
from wtacrs.integration.layers.lean.cross_entropy import (
    LinearCrossEntropy,
    LinearCrossEntropyAgain,
    Terms,
    linear_cross_entropy,
)
from wtacrs.integration.layers.lean.options import HeadMode


@pytest.mark.parametrize("ignored", ["some", "none"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradients_are_those_of_torch(
    piece: None, mode: HeadMode, reduction: Any, smoothing: float, biased: bool, ignored: str
) -> None:
    x, weight, bias, labels = tensors()
    labels = labels if ignored == "some" else labels.clamp(min=0)
    asked = (x, weight, bias) if biased else (x, weight)
    options: Any = {"reduction": reduction, "label_smoothing": smoothing}
    expected = F.cross_entropy(F.linear(x, weight, bias if biased else None), labels, **options)
    found = linear_cross_entropy(x, weight, bias if biased else None, labels, mode=mode, **options)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    upstream = torch.linspace(0.3, 2.0, expected.numel(), dtype=torch.float64).view(expected.shape)
    for one, other in zip(
        torch.autograd.grad(expected, asked, upstream), torch.autograd.grad(found, asked, upstream), strict=True
    ):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)
    with torch.no_grad():
        alone = linear_cross_entropy(x, weight, bias if biased else None, labels, mode=mode, **options)
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("function", [LinearCrossEntropy, LinearCrossEntropyAgain])
def test_gradcheck(piece: None, function: Any, smoothing: float) -> None:
    *asked, labels = tensors()
    terms = Terms(torch.float64, smoothing=smoothing)
    assert gradcheck(lambda *given: function.apply(*given, labels, None, terms), asked)


def test_gradcheck_of_losses_by_row(piece: None) -> None:
    *asked, labels = tensors()
    terms = Terms(torch.float64, reduction="none")
    assert gradcheck(lambda *given: LinearCrossEntropyAgain.apply(*given, labels, None, terms), asked)


@pytest.mark.parametrize("planted", ["label", "ignored", "count", "smoothing"])
def test_planted_defects_are_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, labels = tensors()
    if planted == "label":
        monkeypatch.setattr(Tensor, "scatter_add_", lambda dz, *_: dz)
    elif planted == "ignored":
        stock = lean._pieces
        monkeypatch.setattr(lean, "_pieces", lambda *given: list(stock(*given))[1:])
        monkeypatch.setattr(lean, "PIECE", 8 * V * 2)
    elif planted == "count":
        monkeypatch.setattr(lean, "_reduced", lambda losses, *_: losses.mean())
    else:
        monkeypatch.setattr(lean, "_row_losses", lambda z, y, terms, lse: lse - z.gather(1, y[:, None]).squeeze(1))
    expected = F.cross_entropy(F.linear(x, weight, bias), labels, label_smoothing=0.1)
    found = linear_cross_entropy(x, weight, bias, labels, label_smoothing=0.1)
    same = [torch.allclose(found, expected)]
    same += [
        torch.allclose(a, b)
        for a, b in zip(*(torch.autograd.grad(loss, (x, weight)) for loss in (expected, found)), strict=True)
    ]
    assert not all(same)


@pytest.mark.parametrize("mode", MODES)
def test_without_a_label_the_loss_is_that_of_torch(mode: HeadMode) -> None:
    x, weight, bias, labels = tensors()
    nothing = torch.full_like(labels, -100)
    assert linear_cross_entropy(x, weight, bias, nothing, mode=mode).isnan()
    loss = linear_cross_entropy(x, weight, bias, nothing, mode=mode, reduction="sum")
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert x.grad.count_nonzero() == 0


def test_fp16_gradients_survive_many_rows() -> None:
    """Divided by 4,096 rows before GradScaler's factor is known, they would be zero in fp16."""
    x, weight, bias, _ = tensors(torch.float16)
    rows = x.detach().repeat(4096, 1)[:4096].requires_grad_()
    labels = torch.zeros(4096, dtype=torch.int64)
    wide = [t.detach().double().requires_grad_() for t in (rows, weight, bias)]
    truth = torch.autograd.grad(F.cross_entropy(F.linear(*wide), labels) * 65536.0, wide[0])[0]
    for mode in MODES:
        loss = linear_cross_entropy(rows, weight, bias, labels, mode=mode)
        assert loss.dtype == torch.float32
        (dx,) = torch.autograd.grad(loss * 65536.0, rows)
        torch.testing.assert_close(dx.double(), truth, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_a_second_backward_pass_gives_the_same(mode: HeadMode) -> None:
    x, weight, bias, labels = tensors()
    loss = linear_cross_entropy(x, weight, bias, labels, mode=mode) * 3.0
    once, twice = (torch.autograd.grad(loss, (x, weight, bias), retain_graph=True) for _ in range(2))
    last = torch.autograd.grad(loss, (x, weight, bias))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(once, last, strict=True))
