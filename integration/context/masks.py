"""Which rows are padding, from the arguments that Hugging Face models take.

A padded position has `y_i = 0`: whatever is spent on its row is wasted, and a row that is never sampled must really have
`y_i = 0`. So a mask that cannot be derived for certain is left out, and all rows are sampled, which is always unbiased.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wtacrs.integration.context.streams import Stream

IGNORED_LABEL = -100


def masks_from_arguments(
    encoder_decoder: bool, attention: Tensor | None, decoder_attention: Tensor | None, labels: Tensor | None
) -> dict[Stream, Tensor]:
    """Masks `[batch, positions]` of both streams, True for a row that may carry a gradient; doubtful ones are left out.

    A decoder position counts if it is attended to or if a label asks for it. Without a decoder mask it counts if
    any label at or after it counts, since attention is causal and ignored labels (−100) carry no loss.

    Args:
        encoder_decoder: whether labels are those of a decoder.
        attention: `attention_mask` `[batch, positions]`; of another number of axes, it says nothing here.
        decoder_attention: `decoder_attention_mask`, likewise.
        labels: `[batch, positions]` for labels of tokens.
    """
    source = _as_mask(attention)
    token_labels = None if labels is None or labels.ndim != 2 else labels != IGNORED_LABEL
    if not encoder_decoder:
        return by_stream(source=_add_labelled(source, token_labels))
    target = _as_mask(decoder_attention)
    if target is not None and token_labels is not None:
        target = target | token_labels
    elif token_labels is not None:
        target = token_labels.flip(1).cummax(1).values.flip(1)
    return by_stream(source=source, target=target)


def by_stream(*, source: Tensor | None = None, target: Tensor | None = None) -> dict[Stream, Tensor]:
    """Those of the two that there are, by their stream."""
    given: dict[Stream, Tensor | None] = {"source": source, "target": target}
    return {stream: rows for stream, rows in given.items() if rows is not None}


def of_several_examples(found: dict[Stream, Tensor]) -> dict[Stream, Tensor]:
    """Those that are not of one example alone."""
    return {stream: rows for stream, rows in found.items() if rows.shape[0] > 1}


def _add_labelled(mask: Tensor | None, labelled: Tensor | None) -> Tensor | None:
    """Padding that is labelled does carry a loss: from its own row, or in a causal model from the row before."""
    if mask is None or labelled is None or labelled.shape != mask.shape:
        return mask
    return mask | labelled | torch.nn.functional.pad(labelled[:, 1:], (0, 1))


def _as_mask(attention: Any) -> Tensor | None:
    if attention is None or attention.ndim != 2:
        return None
    return attention != 0
