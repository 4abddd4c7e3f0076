"""Rows that a model reads its answer from are sampled, whatever the attention mask says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.decoders import PAD, gpt2, llama, opt
from support.false_alarms import share
from support.mean_gradients import gradient_projections, gradients
from support.models import VOCABULARY, bert_batch, sampled_rows, tiny_bert
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from wtacrs.integration.context.readout_rows import ReadoutRows, last_tokens, with_pooled
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.measure.capture import capture
from wtacrs.validation.statistics.significance import ProjectionTest, mean_test_from_projections

DRAWS = 200
SPEC = "crs(budget=0.3)"


def deberta() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    return DebertaV2ForSequenceClassification(DebertaV2Config(vocab_size=VOCABULARY, **sizes))


DECODERS = (gpt2, opt, llama)


def built(build: Any, pad: int | None = PAD) -> nn.Module:
    torch.manual_seed(0)
    return build(pad).train()


def batch(case: str) -> dict[str, Tensor]:
    """Three examples of 10 tokens whose masks do not agree with the ids, in a way of its own for each case."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, VOCABULARY, (3, 10), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 5:] = mask[2, 3:] = 0
    if case == "masked left":
        mask = mask.flip(1)
    elif case == "all padding":
        mask[1, :2] = 0
        ids[1] = PAD
    found = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0])}
    if case == "one example":
        found = {name: value[:1] for name, value in found.items()}
    elif case == "embeddings":
        found["inputs_embeds"] = torch.randn(3, 10, 32, generator=generator)
        del found["input_ids"]
    return found


CASES = ("ids that are not padding", "all padding", "one example", "embeddings")


@pytest.mark.parametrize("build", DECODERS)
@pytest.mark.parametrize("case", [*CASES, "masked left"])
def test_every_row_with_a_gradient_may_be_sampled(case: str, build: Any, tmp_path: Path) -> None:
    """`capture` refuses gradients at rows that are called padding."""
    model = built(build, None if case == "one example" else PAD)
    found = capture(model, [batch(case)], tmp_path / "c.safetensors")
    if case == "ids that are not padding":  # each example counts as a whole
        assert sum(int((~found[entry].mask).sum()) for entry in found) == 0


@pytest.mark.parametrize("build", DECODERS)
def test_without_the_rule_there_are_gradients_at_rows_that_are_never_sampled(
    build: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ReadoutRows, "added_to", lambda self, masks, arguments: masks)
    with pytest.raises(Exception, match="rows padding"):
        capture(built(build), [batch("ids that are not padding")], tmp_path / "c.safetensors")


def mean_test(build: Any, case: str, level: float) -> ProjectionTest:
    model, rows = built(build, None if case == "one example" else PAD), batch(case)
    exact = gradients(model, rows)
    exact = {name: gradient for name, gradient in exact.items() if gradient.norm() > 1e-9}
    approximate_(model, SPEC, min_elements=0)
    return mean_test_from_projections(gradient_projections(model, exact, rows, DRAWS), level, rounding=1e-5)


@pytest.mark.parametrize("build", DECODERS)
def test_mean_gradient_is_exact_where_masks_and_ids_disagree(build: Any) -> None:
    test = mean_test(build, "ids that are not padding", share("answers: mean gradient", tests=len(DECODERS)))
    assert not test.rejected, (test.p_value, test.effect)


@pytest.mark.parametrize("build", DECODERS)
def test_the_bias_without_the_rule_is_noticed(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadoutRows, "added_to", lambda self, masks, arguments: masks)
    assert mean_test(build, "ids that are not padding", 1e-8).rejected


@pytest.mark.parametrize("build", DECODERS)
def test_padding_that_both_agree_on_is_never_sampled(build: Any) -> None:
    model, rows = built(build), batch("ids that are not padding")
    rows["input_ids"] = torch.where(rows["attention_mask"] == 1, rows["input_ids"], PAD)
    approximate_(model, "crs(budget=0.9)", min_elements=0, share_inputs=False)
    real = set(rows["attention_mask"].flatten().nonzero().flatten().tolist())
    seen = sampled_rows(model, rows)
    assert len(seen) >= 5
    assert all(kept <= real for kept in seen.values())


@pytest.mark.parametrize("build", [tiny_bert, deberta])
def test_a_pooler_reads_the_first_position_of_padding_on_the_left(build: Any, tmp_path: Path) -> None:
    """In DeBERTa that row, which may attend to nothing, attends to everything."""
    rows = bert_batch()
    rows["attention_mask"] = rows["attention_mask"].flip(1)
    found = capture(build().train(), [rows], tmp_path / "c.safetensors")
    assert all(bool(found[entry].mask.all()) for entry in found)
    rows["attention_mask"] = rows["attention_mask"].flip(1)
    found = capture(build().train(), [rows], tmp_path / "right.safetensors")
    assert sum(int((~found[entry].mask).sum()) for entry in found) > 0


def test_a_language_model_may_be_padded_on_the_left(tmp_path: Path) -> None:
    """Its loss is where its labels are, not at the first position."""
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes)).train()
    rows = bert_batch()
    mask = rows["attention_mask"].flip(1)
    rows |= {"attention_mask": mask, "labels": torch.where(mask == 1, rows["input_ids"], -100)}
    found = capture(model, [rows], tmp_path / "c.safetensors")
    assert sum(int((~found[entry].mask).sum()) for entry in found) > 0


@pytest.mark.parametrize("name", ["ConvBert", "FNet", "Yoso", "Longformer", "XLNet"])
@pytest.mark.parametrize("left", [True, False])
def test_models_whose_tokens_meet_past_the_mask_have_none(name: str, left: bool, tmp_path: Path) -> None:
    """As many examples as positions, which is where positions that come first would be taken for examples."""
    torch.manual_seed(0)
    usual = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    special = {
        "ConvBert": {"embedding_size": 32},
        "Longformer": {"attention_window": [4], "max_position_embeddings": 32},
        "XLNet": {"d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 48},
    }.get(name, {})
    config = getattr(transformers, f"{name}Config")(
        vocab_size=VOCABULARY, **({} if name == "XLNet" else usual) | special
    )
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).train()
    ids = torch.randint(3, VOCABULARY, (8, 8), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 4:] = mask[2, 3:] = 0
    rows = {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask}
    found = capture(model, [rows | {"labels": torch.arange(8) % 2}], tmp_path / "c.safetensors")
    assert all(bool(found[entry].mask.all()) for entry in found)


@pytest.mark.parametrize("positions", [True, False])
def test_all_positions_answer_a_question(positions: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForQuestionAnswering(BertConfig(vocab_size=VOCABULARY, **sizes)).train()
    rows = bert_batch()
    places = rows.pop("labels")
    given = {"start_positions": places, "end_positions": places + 1} if positions else {}
    found = capture(
        model,
        [{**rows, **given}],
        tmp_path / "c.safetensors",
        loss_fn=None if positions else lambda out: out.start_logits.logsumexp(1).sum(),
    )
    assert all(bool(found[entry].mask.all()) for entry in found)


def test_last_tokens_are_where_transformers_looks() -> None:
    mask = torch.ones(4, 5, dtype=torch.bool)
    ids = torch.tensor([[3, 4, PAD, PAD, PAD], [PAD, PAD, 3, 4, 5], [PAD] * 5, [3, PAD, 4, PAD, PAD]])
    assert last_tokens(mask, ids, PAD).tolist() == [1, 4, 0, 2]
    assert last_tokens(mask, ids, None).tolist() == last_tokens(mask, None, PAD).tolist() == [4] * 4
    assert last_tokens(mask, ids[:, :3], PAD).tolist() == [4] * 4


def test_an_example_whose_answer_is_masked_counts_as_a_whole() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    assert with_pooled(mask, torch.tensor([1, 3])).tolist() == [[True, True, False, False], [True] * 4]


@pytest.mark.parametrize(
    "name", ["GPT2", "OPT", "Llama", "Mistral", "Qwen2", "Bloom", "GPTNeoX", "CTRL", "Falcon"]
)
def test_decoders_of_transformers_are_known_by_what_their_forward_reads(name: str) -> None:
    model = _empty(getattr(transformers, f"{name}ForSequenceClassification"))
    assert ReadoutRows(model, encoder_decoder=False)._by_pad
    wrapper = nn.ModuleDict({"model": model})
    assert ReadoutRows(wrapper, encoder_decoder=False)._by_pad


@pytest.mark.parametrize(
    "name", ["BertForSequenceClassification", "GPT2LMHeadModel", "LlamaForCausalLM", "T5ForConditionalGeneration"]
)
def test_other_models_are_not_taken_for_them(name: str) -> None:
    answers = ReadoutRows(_empty(getattr(transformers, name)), encoder_decoder=False)
    assert [answers._by_pad, answers._by_eos, answers._spans] == [[], False, False]


def test_the_decoder_of_a_t5_with_classes_has_no_mask() -> None:
    answers = ReadoutRows(_empty(transformers.T5ForSequenceClassification), encoder_decoder=True)
    mask = torch.tensor([[True, True, False]])
    classes = {"labels": torch.tensor([1])}
    assert set(answers.added_to({"source": mask, "target": mask}, classes)) == {"source"}
    tokens = {"labels": torch.tensor([[1, 2, 3]])}
    assert set(answers.added_to({"source": mask, "target": mask}, tokens)) == {"source", "target"}


def _empty(found: type[nn.Module]) -> nn.Module:
    """A module of the class without its parts: what is looked at is the code of `forward`."""
    model = found.__new__(found)
    nn.Module.__init__(model)
    return model
