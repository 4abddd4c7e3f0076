"""Runs that are killed in the middle of a write."""

from __future__ import annotations

import os
import signal

from torch import nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from wtacrs.integration.models.loading import small_t5


def wide(tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    """Wide enough for its inputs to be sampled."""
    return small_t5(tokenizer, d_model=128, layers=1, heads=2, d_ff=64, dropout=0.1)


class KilledAt:
    """An observer that ends its process without a farewell, in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def started(self, model: nn.Module, step: int) -> None:
        pass

    def gradients(self, step: int) -> None:
        if step == self.step:
            kill()

    def saving(self) -> None:
        pass


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
