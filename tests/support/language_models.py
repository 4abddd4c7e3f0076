"""Tiny language models of several architectures with dropout everywhere, a padded batch, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

VOCABULARY, LENGTHS = 80, (10, 6, 8)
_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}


def _t5(dropout: float) -> dict[str, Any]:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return {"vocab_size": VOCABULARY, **sizes, "decoder_start_token_id": 0, "dropout_rate": dropout}


def _bert(dropout: float) -> dict[str, Any]:
    return {
        **_SIZES,
        "intermediate_size": 48,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def _gpt2(dropout: float) -> dict[str, Any]:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4}
    return {
        "vocab_size": VOCABULARY, **sizes, **_NO_TOKENS,
        "resid_pdrop": dropout, "attn_pdrop": dropout, "embd_pdrop": dropout,
    }  # fmt: skip


def _llama(dropout: float) -> dict[str, Any]:
    return {
        **_SIZES,
        **_NO_TOKENS,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "attention_dropout": dropout,
    }


def _opt(dropout: float) -> dict[str, Any]:
    sizes = {"word_embed_proj_dim": 32, "ffn_dim": 48}
    return {**_SIZES, **_NO_TOKENS, **sizes, "dropout": dropout, "attention_dropout": dropout}


_KINDS: dict[str, tuple[str, str, Callable[[float], dict[str, Any]]]] = {
    "T5": ("T5Config", "T5ForConditionalGeneration", _t5),
    "BERT": ("BertConfig", "BertForMaskedLM", _bert),
    "GPT-2": ("GPT2Config", "GPT2LMHeadModel", _gpt2),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", _llama),
    "OPT": ("OPTConfig", "OPTForCausalLM", _opt),
}
MODELS = tuple(_KINDS)


def language_model(name: str, dropout: float) -> PreTrainedModel:
    """Two layers (T5: each of encoder and decoder) of width 32, in training mode; Llama's heads share keys in twos."""
    torch.manual_seed(0)
    config, kind, options = _KINDS[name]
    made: PreTrainedModel = getattr(transformers, kind)(getattr(transformers, config)(**options(dropout)))
    made.config.use_cache = False
    return made.train()


def language_batch(side: Literal["right", "left"]) -> dict[str, Tensor]:
    """Three texts of 10, 6 and 8 tokens, padded on a side; each is its own label."""
    longest = max(LENGTHS)
    tokens = torch.randint(4, VOCABULARY, (3, longest), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    for i, length in enumerate(LENGTHS):
        mask[i, slice(length, None) if side == "right" else slice(0, longest - length)] = 0
    return {"input_ids": tokens, "attention_mask": mask, "labels": tokens.masked_fill(mask == 0, -100)}


def gradients(
    model: Callable[..., Any], batch: dict[str, Tensor], owner: nn.Module | None = None, seed: int = 3
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step from a seed, and what it leaves in `.grad` of `owner` (the model itself)."""
    owner = model if owner is None else owner  # type: ignore[assignment]
    assert isinstance(owner, nn.Module)
    owner.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in owner.named_parameters() if p.grad is not None}
