"""One small model of every architecture, and a padded batch for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from support.runs import TASK
from wtacrs.integration.models.loading import is_text_to_text, small_t5
from wtacrs.integration.models.small_models import NEW_MODELS, new_model

T5 = "t5"


ARCHITECTURES = (T5, *NEW_MODELS)


LENGTHS = (11, 6, 9)


VOCABULARY = 80  # of the smallest tokenizer that the task gives


def build(name: str, tokenizer: PreTrainedTokenizerBase) -> nn.Module:
    return (small_t5(tokenizer) if name == T5 else new_model(name, tokenizer, TASK)).train()


def padded_batch(model: nn.Module) -> dict[str, Tensor]:
    """Three examples of different lengths; nothing else is told of the padding than the attention mask."""
    generator = torch.Generator().manual_seed(1)
    longest = max(LENGTHS)
    ids = torch.randint(3, VOCABULARY, (len(LENGTHS), longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(LENGTHS)[:, None]).long()
    labels = torch.tensor([0, 1, 0])
    if is_text_to_text(model):
        labels = torch.randint(3, VOCABULARY, (len(LENGTHS), 5), generator=generator)
        labels[0, 3:] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}
