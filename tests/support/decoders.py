"""Small decoders with a classification head."""

from __future__ import annotations

from torch import nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
)

from support.models import VOCABULARY

PAD = 1


def gpt2(pad: int | None = PAD) -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=VOCABULARY, pad_token_id=pad, **sizes, **dropout))


def opt(pad: int | None = PAD) -> nn.Module:
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "max_position_embeddings": 16}
    config = OPTConfig(
        vocab_size=VOCABULARY, num_hidden_layers=1, num_attention_heads=2, dropout=0.0, pad_token_id=pad, **sizes
    )
    return OPTForSequenceClassification(config)


def llama(pad: int | None = PAD) -> nn.Module:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=pad,
    )
    return LlamaForSequenceClassification(config)
