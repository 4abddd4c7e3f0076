"""Times over exact: of the right thing, and all of what is called."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wtacrs.estimators import make
from wtacrs.validation.benchmarks import over_exact
from wtacrs.validation.benchmarks.over_exact import times_over_exact
from wtacrs.validation.problems import make_problem
from wtacrs.validation.properties.external_estimators import ExternalLinear, ExternalProduct


def test_a_layer_is_measured_against_a_layer_and_all_others_against_the_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[int] = []

    def product(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        called.append(len(x))
        return dy.T @ x

    def clock(runs, *, rounds, device):  # the second is the layer
        for run in runs:
            run()
        return [1.0, 10.0, *(20.0 for _ in runs[2:])]

    monkeypatch.setattr(over_exact, "interleaved_medians", clock)
    x, dy = make_problem("gaussian", 12, 4, 3, generator=torch.Generator().manual_seed(0))
    pieces = [make("crs(budget=0.5)"), ExternalProduct("p", product), ExternalLinear("l", nn.Linear)]
    assert times_over_exact(x, dy, pieces) == [20.0, 20.0, 2.0]
    assert called == [12]


def test_it_runs_on_the_clock() -> None:
    x, dy = make_problem("gaussian", 12, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    assert min(times_over_exact(x, dy, [make("exact"), ExternalLinear("l", nn.Linear)], rounds=2)) > 0
