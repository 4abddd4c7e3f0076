"""Scores side by side: each is what it would be by itself, and what is measured is its variance in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.models import bert_batch, tiny_bert
from support.runs_study import Colours
from torch import Tensor, nn

from wtacrs.estimators import InputError, joint_norms, make, row_norms
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.measure.training_scores import SideBySide
from wtacrs.integration.score_memory.gradient_norms import GradientNorms
from wtacrs.integration.score_memory.kinds import TRAINING_SCORES
from wtacrs.integration.score_memory.learned_norms import LearnedNorms
from wtacrs.integration.score_memory.token_norms import TokenNorms
from wtacrs.integration.studies.scores import scores_study
from wtacrs.integration.tables.scores import scores_tables
from wtacrs.validation.records.results import load_result

SPEC = "wta_crs(budget=0.3)"
LAYER = "bert.encoder.layer.0.intermediate.dense"


def memories() -> dict[str, GradientNorms]:
    return {"by-token": TokenNorms(), "learned": LearnedNorms()}


def steps(memory: GradientNorms, count: int = 3) -> nn.Module:
    """Of a model whose weights stay as they are."""
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0, scores=memory, seed=0, filter_fn=lambda _, name: name == LAYER)
    for _ in range(count):
        model(**bert_batch()).loss.backward()
    memory.enter()
    return model


def test_each_memory_sees_what_it_sees_by_itself() -> None:
    together = memories()
    steps(SideBySide(together, {}))
    for kind, alone in memories().items():
        steps(alone)
        assert repr(together[kind].state_dict()) == repr(alone.state_dict()), kind


def test_what_is_measured_is_the_variance_over_that_of_row_norms() -> None:
    """By hand, from x, dY and the scores of a memory by itself; rows called padding left out."""
    alone = LearnedNorms()
    model = steps(alone)
    seen: list[Tensor] = []
    layer = model.get_submodule(LAYER)

    def watch(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        seen.extend([args[0].detach().reshape(30, -1), layer.scores_of(args[0])])
        output.register_hook(lambda dy: seen.append(dy.reshape(30, -1).clone()))

    layer.register_forward_hook(watch)
    model(**bert_batch()).loss.backward()
    x, scores, dy = seen
    live = bert_batch()["attention_mask"].flatten().bool()
    x, scores, dy = x[live], scores[live], dy[live]
    estimator = make(SPEC)
    side = SideBySide(memories(), {0.3: estimator})
    model = steps(side)
    side.measuring = True
    model(**bert_batch()).loss.backward()
    side.enter()
    beside = float(estimator.variance(x, dy, scores=row_norms(x)))
    for kind, by_hand in (("learned", scores), ("oracle", joint_norms(x, dy))):
        expected = float(estimator.variance(x, dy, scores=by_hand)) / beside
        assert side.ratios[kind, 0.3][LAYER] == pytest.approx([expected], rel=1e-4), kind


def test_a_study_measures_every_kind(tmp_path: Path) -> None:
    result = scores_study(
        Colours(),
        "wta_crs",
        [0.1, 0.3],
        tmp_path,
        after=1,
        steps=3,
        batches=2,
        batch_size=8,
        lr=3e-3,
        max_length=24,
    )
    kinds = {row.scores for row in result.rows}
    assert kinds == {*TRAINING_SCORES[1:], "oracle"}
    oracle = {row.budget: row.variance for row in result.rows if row.scores == "oracle"}
    assert all(row.variance >= oracle[row.budget] for row in result.rows)
    sizes = {entry.scores: entry for entry in result.bytes}
    assert sizes["learned"].rows > 0
    assert sizes["by-token"].rows == 0
    assert all(entry.memory > 0 for entry in result.bytes)
    assert load_result(tmp_path / "scores.json") == result
    assert [table.row_count for table in scores_tables(result)] == [len(kinds)]


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    settings = {"after": 0, "steps": 1, "batches": 1, "batch_size": 8, "lr": 1e-3, "max_length": 24}
    with pytest.raises(InputError, match="leave the budget out"):
        scores_study(Colours(), SPEC, [0.1], tmp_path, **settings)
    with pytest.raises(InputError, match=r"estimator='pivotal'|no closed form|NoClosedForm"):
        scores_study(Colours(), "pivotal", [0.3], tmp_path, **settings)
    assert not torch.is_autocast_enabled("cpu")
