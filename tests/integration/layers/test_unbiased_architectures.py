"""E dW = dW in every architecture, in adapters, and in adapters that checkpointing runs again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.decoders import gpt2, llama, opt
from support.false_alarms import share
from support.lora_models import with_lora
from support.mean_gradients import gradient_projections, gradients, repeated
from support.models import VOCABULARY, bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification, T5Config, T5ForConditionalGeneration

from wtacrs.integration.layers.convert import approximate_
from wtacrs.validation.statistics.significance import ProjectionTest, mean_test_from_projections

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:None of the inputs:UserWarning")
DRAWS, COPIES = 56, 8
"""Copies of the examples in a batch: see `test_unbiased_t5.py`."""
Case = Callable[[], tuple[nn.Module, dict[str, Tensor]]]


def gated_t5() -> tuple[nn.Module, dict[str, Tensor]]:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "dropout_rate": 0.0}
    config = T5Config(
        vocab_size=VOCABULARY,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        **sizes,
    )
    return T5ForConditionalGeneration(config).train(), t5_batch()


def deberta() -> tuple[nn.Module, dict[str, Tensor]]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = DebertaV2Config(
        vocab_size=VOCABULARY,
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **sizes,
    )
    return DebertaV2ForSequenceClassification(config).train(), bert_batch()


def bert() -> tuple[nn.Module, dict[str, Tensor]]:
    return tiny_bert(), bert_batch()


def decoder(build: Callable[[], nn.Module]) -> Case:
    def case() -> tuple[nn.Module, dict[str, Tensor]]:
        batch = bert_batch()
        batch["input_ids"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], 1)
        return build().train(), batch

    case.__name__ = build.__name__
    return case


def lora() -> tuple[nn.Module, dict[str, Tensor]]:
    return with_lora(tiny_bert(), task_type="SEQ_CLS"), bert_batch()


def checkpointed_lora() -> tuple[nn.Module, dict[str, Tensor]]:
    """Its draws equal those of one without checkpointing (`test_lora.py`), so this is the mean of that too."""
    model = with_lora(tiny_t5(layers=1))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model, t5_batch()


CASES: tuple[Case, ...] = (
    gated_t5,
    bert,
    deberta,
    decoder(gpt2),
    decoder(opt),
    decoder(llama),
    lora,
    checkpointed_lora,
)


@pytest.mark.parametrize("build", CASES, ids=lambda case: case.__name__)
def test_mean_gradient_is_the_exact_one(unchecked: None, build: Case) -> None:
    test = mean_test(build, "crs(budget=0.3)", share("architectures: mean gradient", tests=len(CASES)))
    assert not test.rejected, (test.p_value, test.effect)


@pytest.mark.parametrize("build", [decoder(gpt2), lora], ids=lambda case: case.__name__)
def test_a_biased_estimator_is_noticed(unchecked: None, build: Case) -> None:
    assert mean_test(build, "topk(budget=0.3)", 1e-9, draws=8).rejected


def mean_test(build: Case, spec: str, level: float, draws: int = DRAWS) -> ProjectionTest:
    torch.manual_seed(0)
    model, batch = build()
    batch = repeated(batch, COPIES)
    found = gradients(model, batch)
    exact = {name: gradient for name, gradient in found.items() if gradient.norm() > 1e-7}  # not keys' biases
    approximate_(model, spec, min_elements=0)
    return mean_test_from_projections(gradient_projections(model, exact, batch, draws), level, rounding=1e-5)
