"""Small models and batches with padding, for tests of the integration, and a spy on what their layers keep."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5ForConditionalGeneration

from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad

VOCABULARY = 64


def tiny_t5(*, dropout: float = 0.0, layers: int = 2) -> T5ForConditionalGeneration:
    """An encoder–decoder of so many layers each, in training mode."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=layers,
        num_heads=4,
        dropout_rate=dropout,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config).train()


def tiny_bert() -> BertForSequenceClassification:
    """An encoder of one layer with a classifier, in training mode."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config).train()


def t5_batch(source_length: int = 10, target_length: int = 7) -> dict[str, Tensor]:
    """Three examples with padding in source and target."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(2, VOCABULARY, (3, source_length), generator=generator)
    labels = torch.randint(2, VOCABULARY, (3, target_length), generator=generator)
    mask = torch.ones_like(tokens)
    mask[0, source_length // 2 :] = 0
    mask[2, 3:] = 0
    labels[1, 4:] = -100
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def bert_batch() -> dict[str, Tensor]:
    """Three examples with padding, and their classes."""
    batch = t5_batch()
    return {**batch, "labels": torch.tensor([0, 1, 0])}


def sampled_rows(model: nn.Module, batch: dict[str, Tensor], times: int = 3) -> dict[str, set[int]]:
    """Rows that each converted layer kept, over a few forward passes."""
    rows: dict[str, set[int]] = {}
    by_estimator = {}

    class Spy:
        def __init__(self, name: str, estimator: object) -> None:
            self.name, self.estimator = name, estimator
            self.traits = estimator.traits

        def compress(
            self, x: Tensor, *, scores: Tensor | None = None, generator: torch.Generator | None = None
        ) -> object:
            saved = self.estimator.compress(x, scores=scores, generator=generator)
            rows.setdefault(self.name, set()).update(saved.indices.tolist())
            return saved

        def contract(self, saved: object, dy: Tensor) -> Tensor:
            return self.estimator.contract(saved, dy)

    for name, module in model.named_modules():
        if isinstance(module, EstimatedWeightGrad):
            by_estimator[name] = module.estimator
            module.estimator = Spy(name, module.estimator)
    for _ in range(times):
        model(**batch).loss.backward()
    for name, estimator in by_estimator.items():
        model.get_submodule(name).estimator = estimator
    return rows
