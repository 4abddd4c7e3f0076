"""Which sequence the rows of a layer run along: the one that the model reads, or the decoder's."""

from __future__ import annotations

from typing import Literal

from torch import nn

Stream = Literal["source", "target"]
"""`source` is the sequence the model reads (the only one unless it has encoder and decoder), `target` the decoder's."""


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether the model says of itself that it has an encoder and a decoder."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def usual_stream(model: nn.Module, layer: nn.Module) -> Stream:
    """The sequence that a layer is taken to read where both are of one length: the shape tells them apart elsewhere.

    Layers of the encoder, as the model names it, read the source, and all others of an encoder–decoder the target.
    Cross-attention's keys and values are then taken for rows of the target, which costs a good score and no more.
    """
    if not is_encoder_decoder(model):
        return "source"
    getter = getattr(model, "get_encoder", None)
    encoder = None if getter is None else getter()
    inside = isinstance(encoder, nn.Module) and any(module is layer for module in encoder.modules())
    return "source" if inside else "target"
