"""Modelled seconds by hand: products at one rate, bytes at another."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wtacrs.integration.planning.modelled_time import ModelledClock, ModelledWork, measured_rates
from wtacrs.validation.records.plan import Rates

RATES = Rates(flops=1.0, bytes=1e9, by="given")  # a byte takes no time that shows
MOVES = Rates(flops=1e12, bytes=1.0, by="given")


def test_products_of_a_linear_layer() -> None:
    layer, x = torch.nn.Linear(5, 7, bias=False), torch.randn(3, 5, requires_grad=True)
    with ModelledWork(RATES) as work:
        y = layer(x).sum()
        assert work.seconds == pytest.approx(2 * 3 * 5 * 7, abs=0.01)
        y.backward()  # dX and dW
    assert work.seconds == pytest.approx(3 * 2 * 3 * 5 * 7, abs=0.01)
    assert ModelledClock(work).read() == (work.seconds, work.seconds)


def test_attention_is_two_products_and_five() -> None:
    q, k, v = (torch.randn(2, 4, n, 8, requires_grad=True) for n in (16, 24, 24))
    one = 2 * (2 * 4) * 16 * 24 * 8
    with ModelledWork(RATES) as work:
        y = F.scaled_dot_product_attention(q, k, v)
        assert work.seconds == pytest.approx(2 * one, abs=0.01)
        y.sum().backward()
    assert work.seconds == pytest.approx(7 * one, abs=0.01)


def test_bytes_that_are_read_and_written() -> None:
    x, y = torch.ones(100), torch.ones(100)
    with ModelledWork(MOVES) as work:
        x.view(10, 10).t()
        torch.empty(1000)
        assert work.seconds == 0.0
        z = x + y
        assert work.seconds == 3 * 400
        z.add_(x)
        assert work.seconds == 6 * 400
        x[None].expand(3, 100).clone()
    assert work.seconds == 6 * 400 + 2 * 3 * 400


def test_rates_of_this_machine() -> None:
    found = measured_rates(rounds=1)
    assert found.by == "measured"
    assert found.flops > 0
    assert found.bytes > 0
