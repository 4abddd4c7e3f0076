"""Which token a row is of, from the arguments that Hugging Face models take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wtacrs.integration.context.masks import by_stream, is_table
from wtacrs.integration.context.streams import Stream


def tokens_from_arguments(encoder_decoder: bool, arguments: Mapping[str, Any]) -> dict[Stream, Tensor]:
    """Token ids `[batch, positions]` of both streams; a decoder position goes by its label if there are labels."""
    source, target = _as_tokens(arguments.get("input_ids")), None
    if encoder_decoder:
        labels = _as_tokens(arguments.get("labels"))
        target = _as_tokens(arguments.get("decoder_input_ids")) if labels is None else labels
    return by_stream(source=source, target=target)


def _as_tokens(ids: Any) -> Tensor | None:
    return ids if is_table(ids) and not ids.is_floating_point() else None
