"""Models with adapters of peft."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

RANK, ALPHA = 4, 8


def with_lora(model: nn.Module, dropout: float = 0.0, **options: Any) -> PeftModel:
    """Adapters on every linear layer. B is not zero as peft starts it, since dA would be."""
    torch.manual_seed(4)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=dropout, **options)
    adapted = get_peft_model(model, config).train()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return adapted
