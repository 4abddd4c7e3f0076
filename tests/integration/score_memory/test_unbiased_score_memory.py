"""E dW = dW through whole models sampled by remembered gradient norms, with padding and shared inputs."""

from __future__ import annotations

import pytest
import torch
from support.false_alarms import share
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn

from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.score_memory.gradient_norms import gradient_norms_of
from wtacrs.integration.score_memory.kinds import TRAINING_SCORES
from wtacrs.validation.statistics.significance import mean_test_from_projections

SPEC = "wta_crs(budget=0.3)"
KINDS = TRAINING_SCORES[1:]
DRAWS = 300


def projections(scores: str, spec: str, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """`[draws, layers × directions]` as in the test of row norms; the first tokens of every example are remembered."""
    ids = {"example_ids": torch.tensor([4, 0, 7])}
    model(**batch).loss.backward()
    exact = gradients(model)
    approximate_(model, spec, min_elements=0, scores=scores)
    norms = gradient_norms_of(model)
    assert norms is not None
    torch.manual_seed(1)
    shorter = {key: value[:, :5].contiguous() if value.ndim == 2 else value for key, value in batch.items()}
    model(**shorter, **ids).loss.backward()
    state = norms.state_dict()
    generator = torch.Generator().manual_seed(1)
    directions = {}
    for name, gradient in exact.items():
        random = torch.randn(3, *gradient.shape, generator=generator, dtype=torch.float64)
        probes = torch.cat([random, gradient[None]])
        directions[name] = probes / probes.flatten(1).norm(dim=1)[(...,) + (None,) * gradient.ndim]
    torch.manual_seed(2)
    rows = []
    for _ in range(DRAWS):
        norms.load_state_dict(state)  # draws are independent given what is remembered
        model.zero_grad()
        model(**batch, **ids).loss.backward()
        found = gradients(model)
        rows.append(
            torch.cat(
                [
                    (directions[name] * (found[name] - exact[name])).flatten(1).sum(1) / exact[name].norm()
                    for name in exact
                ]
            )
        )
    return torch.stack(rows)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone().double() for name, p in model.named_parameters() if p.grad is not None}


MODELS = {"bert": (tiny_bert, bert_batch), "t5": (tiny_t5, t5_batch)}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k == "learned" else pytest.mark.slow) for k in KINDS]
)
@pytest.mark.parametrize("name", ["bert", pytest.param("t5", marks=pytest.mark.slow)])
def test_mean_gradient_of_every_layer(name: str, kind: str) -> None:
    """Layers share inputs, and some rows are remembered; at one stated level for all."""
    model, batch = MODELS[name]
    level = share("scores in training", tests=len(KINDS) * len(MODELS))
    test = mean_test_from_projections(projections(kind, SPEC, model(), batch()), level, rounding=1e-5)
    assert not test.rejected, (kind, test.p_value, test.effect)


def test_a_biased_estimator_is_noticed() -> None:
    found = projections("last-seen", "topk(budget=0.3)", tiny_bert(), bert_batch())
    assert mean_test_from_projections(found, 1e-7, rounding=1e-5).rejected
