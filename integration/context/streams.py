"""Which sequence the rows of a layer run along: the one that the model reads, or the decoder's."""

from __future__ import annotations

import re
from typing import Literal

from torch import nn

from wtacrs.integration.context.peft_names import projection_name

Stream = Literal["source", "target"]
"""`source` is the sequence the model reads (the only one unless it has encoder and decoder), `target` the decoder's."""

_CROSS_ATTENTION = re.compile(r"encdec|cross|encoder_?att", re.IGNORECASE)
_KEY_OR_VALUE = {"k", "v", "key", "value", "k_proj", "v_proj", "key_proj", "value_proj"}
_QUERY_OR_OUTPUT = {"q", "o", "query", "q_proj", "query_proj", "out_proj", "o_proj"}
# tables of relative positions, shaped like a batch of one: their rows are no tokens
_READS_POSITIONS = {"pos_proj", "pos_key_proj", "pos_query_proj", "linear_pos"}
# layers that are given [batch · positions, d], by the class that holds them; elsewhere such rows may come in any order
_FLATTENING = {"OPTDecoderLayer": ("fc1", "fc2")}


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether the model says of itself that it has an encoder and a decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def stream_of(model: nn.Module, name: str) -> Stream | None:
    """Which sequence the input of the layer `name` runs along; None if that is not certain.

    The key and value projections of cross-attention read the encoder's output. They are known by the names that
    Hugging Face architectures use; a decoder without any such name is of an unknown kind, and gets no mask.
    """
    parts = projection_name(name).split(".")
    if parts[-1] in _READS_POSITIONS:
        return None
    crosses = any(_CROSS_ATTENTION.search(part) for part in parts)
    if not is_encoder_decoder(model):
        return "source" if not crosses or parts[-1] in _QUERY_OR_OUTPUT else None
    half = next((part for part in parts if part in ("encoder", "decoder")), None)
    if half == "encoder":
        return "source"
    if half is None and model.get_submodule(name) not in _output_projection(model):
        return None
    if not any(_CROSS_ATTENTION.search(module) for module, _ in model.named_modules()):
        return None
    if crosses and parts[-1] in _KEY_OR_VALUE:
        return "source"
    return "target" if not crosses or parts[-1] in _QUERY_OR_OUTPUT else None


def flattens(model: nn.Module, name: str) -> bool:
    """Whether the layer `name` is known to get its tokens as `[batch · positions, d]`, in their order.

    OPT does so before its feed-forward layers. The shape alone would not tell it: the rows that a mixture of experts
    sends to one expert are in another order.
    """
    parent, _, last = projection_name(name).rpartition(".")
    return last in _FLATTENING.get(type(model.get_submodule(parent)).__name__, ())


def shares_with_positions(model: nn.Module) -> bool:
    """Whether layers of the model that read tokens also read a table of positions, as some DeBERTas do.

    The table has the shape of one example, so that a mask of one example would fit it by accident.
    """
    return any(getattr(module, "share_att_key", False) for module in model.modules())


def _output_projection(model: nn.Module) -> list[nn.Module]:
    """The layer before the logits and, where peft has wrapped it, everything inside."""
    getter = getattr(model, "get_output_embeddings", None)
    found = None if getter is None else getter()
    return [] if found is None else list(found.modules())
