"""`approximate_` by a plan: some blocks sampled, others lean or checkpointed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.language_models import language_batch, language_model
from support.lean_gradients import deviation, model_gradients
from support.result_examples import plan as example
from torch import nn

from wtacrs.estimators import InputError
from wtacrs.integration import approximate_, lean_, load_plan, restore_
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.checkpointed import Checkpointed
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.lean.activation import LeanActivation
from wtacrs.integration.layers.lean.attention import is_attention
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.layers.lean.convert import lean_by_block_
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.validation.records.plan import BlockChoices, Choice, Plan, PlannedBlock
from wtacrs.validation.records.results import write_result

EXACT = (
    Choice(lean="neighbours"),
    Choice(checkpointed=True),
    Choice(lean="neighbours", checkpointed=True),
    Choice(),
)
MIXED = (
    Choice(lean="attention"),
    Choice(lean="attention-again"),
    Choice(lean="neighbours"),
    Choice(),
    Choice(lean="attention-again", checkpointed=True),
)
"""Exact, with attention of its own in every block."""
SAMPLED = Choice(estimator="wta_crs(budget=0.5)", lean="neighbours")


def choices(model: nn.Module, *some: Choice, head: str | None = None) -> BlockChoices:
    names = list(blocks_of(model))
    return BlockChoices(blocks={name: some[i % len(some)] for i, name in enumerate(names)}, head=head)  # type: ignore[arg-type]


def kinds(model: nn.Module, name: str) -> set[str]:
    """What has been done with a block."""
    block = model.get_submodule(name)
    found = {"checkpointed"} if isinstance(block, Checkpointed) else set()
    for part in block.modules():
        found |= {"lean"} if isinstance(part, LeanModule) else set()
        found |= {"sampled"} if isinstance(part, EstimatedWeightGrad) else set()
    return found


ATTENTION: dict[str | None, str] = {"attention": "keep", "attention-again": "again"}


def attentions(block: nn.Module) -> str | None:
    """The one mode of all attention layers of a block; None for stock ones."""
    found = {vars(part).get("lean_attention", "stock") for part in block.modules() if is_attention(part)}
    assert len(found) == 1
    mode = found.pop()
    return None if mode == "stock" else mode


@pytest.mark.parametrize("head", [None, "forward", "again"])
@pytest.mark.parametrize("name", ["T5", "BERT", "GPT-2", "Llama"])
def test_exact_choices_have_the_gradients_of_the_stock_model(name: str, head: str | None) -> None:
    model, batch = language_model(name, 0.1), language_batch("right")
    stock, state = model_gradients(model, batch)
    approximate_(model, choices(model, *EXACT, head=head))
    found, now = model_gradients(model, batch)
    assert deviation(found, stock) < 1e-5
    assert torch.equal(state, now)
    names = list(blocks_of(model))
    assert [kinds(model, name) for name in names[:2]] == [{"lean"}, {"checkpointed"}]
    restore_(model)
    assert [kinds(model, name) for name in names] == [set()] * len(names)
    assert deviation(model_gradients(model, batch)[0], stock) == 0.0


@pytest.mark.parametrize("first", range(len(MIXED)))
@pytest.mark.parametrize("name", ["T5", "BERT", "GPT-2", "Llama"])
def test_attention_differs_from_block_to_block(name: str, first: int) -> None:
    model, batch = language_model(name, 0.1), language_batch("right")
    stock, state = model_gradients(model, batch)
    ways = [MIXED[(first + i) % len(MIXED)] for i in range(len(blocks_of(model)))]
    approximate_(model, choices(model, *ways))
    assert [attentions(block) for block in blocks_of(model).values()] == [ATTENTION.get(w.lean) for w in ways]
    found, now = model_gradients(model, batch)
    assert deviation(found, stock) < 1e-5
    assert torch.equal(state, now)
    restore_(model)
    assert deviation(model_gradients(model, batch)[0], stock) == 0.0


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama"])
def test_codes_are_of_the_blocks_that_ask_for_them(name: str) -> None:
    """The last block has codes, and with them gradients that are right on average alone; without them all are exact."""
    model, batch = language_model(name, 0.0), language_batch("right")
    stock, _ = model_gradients(model, batch)
    names = list(blocks_of(model))
    ways = [Choice(lean="attention-again"), *[Choice(lean="attention")] * (len(names) - 2), Choice(lean="4-bit")]
    approximate_(model, choices(model, *ways), seed=0)
    found, _ = model_gradients(model, batch)
    coded = [n for n, m in model.named_modules() if isinstance(m, LeanActivation) and m.lean_terms.codes]
    assert coded
    assert all(name.startswith(f"{names[-1]}.") for name in coded)
    assert deviation(found, stock) > 1e-5
    restore_(model)
    approximate_(model, choices(model, *ways[:-1], Choice(lean="neighbours")), seed=0)
    assert deviation(model_gradients(model, batch)[0], stock) < 1e-5


def test_a_hybrid_samples_where_it_says() -> None:
    model, batch = language_model("T5", 0.0), language_batch("right")
    stock, _ = model_gradients(model, batch)
    planned = choices(model, SAMPLED, Choice(checkpointed=True), Choice(), Choice(lean="neighbours"))
    conversion = approximate_(model, planned, min_elements=1, seed=0)
    assert {name.rpartition(".layer")[0] for name in conversion} == {"encoder.block.0"}
    found, _ = model_gradients(model, batch)
    differs = {n for n in stock if (found[n] - stock[n]).norm() > 1e-5 * stock[n].norm() + 1e-9}
    assert differs
    assert all(name.startswith("encoder.block.0.") for name in differs)
    assert [kinds(model, name) for name in planned.blocks] == [
        {"sampled", "lean"}, {"checkpointed"}, set(), {"lean"},
    ]  # fmt: skip


def test_a_second_plan_counts_alone() -> None:
    model = language_model("T5", 0.0)
    lean_(model, attention="keep", head="forward")
    approximate_(model, choices(model, SAMPLED, Choice(checkpointed=True)), min_elements=1)
    approximate_(model, choices(model, Choice(), Choice(lean="neighbours")))
    assert [kinds(model, name) for name in blocks_of(model)] == [set(), {"lean"}, set(), {"lean"}]
    assert type(model.lm_head) is nn.Linear
    assert model.config._attn_implementation in ("eager", "sdpa")


def test_estimates_within_are_those_of_the_estimator_alone() -> None:
    """A checkpointed block beside a sampled one draws nothing of the sampled one's."""
    model, batch = language_model("Llama", 0.0), language_batch("right")
    approximate_(model, {"model.layers.0.*": "crs(budget=0.5)"}, min_elements=1, seed=3)
    alone, _ = model_gradients(model, batch)
    restore_(model)
    sampled = Choice(estimator="crs(budget=0.5)")
    approximate_(model, choices(model, sampled, Choice(checkpointed=True)), min_elements=1, seed=3)
    assert deviation(model_gradients(model, batch)[0], alone) < 1e-6


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    model = language_model("BERT", 0.0)
    blocks = [PlannedBlock(name=n, choice=SAMPLED, kept=0, seconds=0.0, noise=0.0) for n in blocks_of(model)]
    write_result(tmp_path / "plan.json", example().model_copy(update={"blocks": blocks}))
    plan = load_plan(tmp_path / "plan.json")
    assert isinstance(plan, Plan)
    assert len(approximate_(model, plan)) == 12
    assert str(plan.does).startswith("plan ")
    assert plan.does.digest != choices(model, Choice()).digest


def test_what_cannot_be_done_changes_nothing() -> None:
    model = language_model("BERT", 0.0)
    before = {name: type(module) for name, module in model.named_modules()}
    here = choices(model, SAMPLED)
    for planned, arguments, fragment in (
        (BlockChoices(blocks={"encoder.9": SAMPLED}), {}, "no block 'encoder.9'"),
        (choices(model, Choice(lean="attentoin")), {}, "lean='attentoin'"),
        (here, {"lean": True}, "lean=True: a plan says it"),
        (here, {"filter_fn": lambda *_: True}, "filter_fn="),
        (choices(model, Choice(estimator="crs(budget=2.0)")), {}, "budget=2.0"),
        (choices(model, Choice(lean="quick-dropout"), Choice(lean="attention")), {}, "of the whole model"),
    ):
        with pytest.raises(InputError, match=fragment.replace("(", r"\(")):
            approximate_(model, planned, **arguments)
        assert {name: type(module) for name, module in model.named_modules()} == before


def test_lean_by_block() -> None:
    model = language_model("Llama", 0.0)
    found = lean_by_block_(model, {"model.layers.1": LeanOptions()})
    assert found
    assert all(name.startswith("model.layers.1.") for name in found)
    assert found.stays["model.norm"] == "left out by the filter"
    assert lean_by_block_(model, {}, head="again").head == {}
    assert kinds(model, "model.layers.1") == set()
    with pytest.raises(InputError, match="of the whole model, and must not differ"):
        lean_by_block_(model, {"model.layers.0": LeanOptions(dropout="quick"), "model.layers.1": LeanOptions()})
