"""Rows that a model reads its answer from: every layer is unbiased whatever a mask says, and a wrong one is told.

Decoders that look for their last token, tokens that meet past the mask; poolers and spans are among `misleading_masks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from support.decoders import PAD, gpt2, llama, opt
from support.expected_gradients import layer_biases
from support.models import VOCABULARY
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForSequenceClassification

from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_

pytestmark = pytest.mark.filterwarnings("ignore:rows that a mask calls padding")
SPEC = "wta_crs(budget=0.3)"
DECODERS = (gpt2, opt, llama)
CASES = ("ids that are not padding", "all padding", "one example", "embeddings", "masked left")


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
        found["inputs_embeds"] = torch.randn(3, 10, 32, generator=generator, dtype=torch.float64)
        del found["input_ids"]
    return found


def misled_by(model: nn.Module, rows: dict[str, Tensor]) -> set[str]:
    """Layers whose mask is found wrong; all are unbiased in the first step and in the second."""
    approximate_(model, SPEC, min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None

    def step() -> None:
        torch.manual_seed(1)
        model.zero_grad()
        model(**rows).loss.backward()

    assert max(layer_biases(model, step).values()) <= 1e-9
    misled = set(context.watch.read())
    assert max(layer_biases(model, step).values()) <= 1e-9
    return misled


@pytest.mark.parametrize("build", DECODERS)
@pytest.mark.parametrize("case", CASES)
def test_decoders_that_look_for_their_last_token(case: str, build: Any) -> None:
    """By the ids, or by the end of the row; where masks are on the left the end is no padding."""
    torch.manual_seed(0)
    model = build(None if case == "one example" else PAD).train().double()
    misled = misled_by(model, batch(case))
    assert bool(misled) == (case != "masked left")


@pytest.mark.parametrize("build", DECODERS)
def test_padding_that_ids_and_mask_agree_on_misleads_nobody(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    rows = batch("ids that are not padding")
    rows["input_ids"] = torch.where(rows["attention_mask"] == 1, rows["input_ids"], PAD)
    assert misled_by(build().train().double(), rows) == set()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        *((name, left) for name in ("ConvBert", "FNet", "XLNet") for left in (False, True)),
        ("Longformer", False),  # padded on the left, its own attention gives NaN
    ],
)
def test_models_whose_tokens_meet_past_the_mask(name: str, left: bool) -> None:
    """As many examples as positions, whose rows one might take for each other's."""
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
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).train().double()
    ids = torch.randint(3, VOCABULARY, (8, 8), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, 4:] = mask[2, 3:] = 0
    rows = {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask, "labels": torch.arange(8) % 2}
    misled_by(model, rows)


def test_a_language_model_may_be_padded_on_the_left() -> None:
    """Its loss is where its labels are, and no mask misleads."""
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes)).train().double()
    rows = batch("masked left")
    rows["labels"] = torch.where(rows["attention_mask"] == 1, rows["input_ids"], -100)
    assert misled_by(model, rows) == set()


def test_the_decoder_of_a_t5_with_classes_reads_its_last_token() -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "dropout_rate": 0.0}
    config = T5Config(
        vocab_size=VOCABULARY, decoder_start_token_id=0, eos_token_id=1, classifier_dropout=0.0, **sizes
    )
    rows = batch("ids that are not padding")
    rows["input_ids"][:, 9] = 1
    misled = misled_by(T5ForSequenceClassification(config).train().double(), rows)
    assert any("decoder" in layer for layer in misled)
