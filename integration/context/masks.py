"""Which rows may be padding, from the arguments that Hugging Face models take.

A padded position should have `y_i = 0`, and whatever is spent on its row is then wasted. What is found here is a hint: it
may be another sequence's mask that happens to fit, the opposite convention, or a loss may read padded rows. Layers leave
such rows within reach (`wtacrs.estimators.core.mask_floor`), and look at dY (`MaskWatch`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from wtacrs.integration.context.streams import Stream

IGNORED_LABEL = -100
MASK_ARGUMENTS = ("attention_mask", "decoder_attention_mask")
"""Arguments of a module's `forward` that say which positions of its own sequences are attended to."""
TARGET_ARGUMENTS = ("decoder_attention_mask", "labels")
"""Those that tell an encoder–decoder of padding in its target."""


def masks_from_arguments(encoder_decoder: bool, arguments: Mapping[str, Any]) -> list[Tensor]:
    """Masks `[batch, positions]`, True for a row that may carry a gradient, of all sequences that there are masks for.

    A decoder position counts if it is attended to or if a label asks for it. Without a decoder mask it counts if
    any label at or after it counts, since attention is causal and ignored labels (−100) carry no loss.

    Args:
        encoder_decoder: whether labels are those of a decoder.
        arguments: those of a `forward`, by name; what has another number of axes says nothing here.
    """
    return [mask for _, mask in mask_sources(encoder_decoder, arguments)]


def mask_sources(encoder_decoder: bool, arguments: Mapping[str, Any]) -> list[tuple[Any, Tensor]]:
    """The same, each with the argument that it was made of; None where it is made of labels alone."""
    given = [arguments.get(name) for name in MASK_ARGUMENTS]
    attention, target = (as_mask(argument) for argument in given)
    labelled = _labelled(arguments.get("labels"))
    if not encoder_decoder:
        found = [_add_labelled(attention, labelled), target]
    elif target is not None and labelled is not None:
        there = moved(labelled, target.device)
        found = [attention, target if there is None or target.shape != there.shape else target | there]
    elif labelled is not None:
        given[1] = None
        found = [attention, labelled.flip(1).cummax(1).values.flip(1)]
    else:
        found = [attention, target]
    return [(argument, mask) for argument, mask in zip(given, found, strict=True) if mask is not None]


def by_stream(*, source: Tensor | None = None, target: Tensor | None = None) -> dict[Stream, Tensor]:
    """Those of the two that there are, by their stream."""
    given: dict[Stream, Tensor | None] = {"source": source, "target": target}
    return {stream: rows for stream, rows in given.items() if rows is not None}


def moved(rows: Tensor, device: torch.device) -> Tensor | None:
    """The tensor on a device; None if there are no values to move, or none wanted."""
    if rows.is_meta != (device.type == "meta"):
        return None
    return rows.to(device, non_blocking=True)


def _labelled(labels: Any) -> Tensor | None:
    if not is_table(labels) or labels.is_floating_point():
        return None
    return labels != IGNORED_LABEL


def _add_labelled(mask: Tensor | None, labelled: Tensor | None) -> Tensor | None:
    """Padding that is labelled does carry a loss: from its own row, or in a causal model from the row before."""
    if mask is None or labelled is None or labelled.shape != mask.shape:
        return mask
    there = moved(labelled, mask.device)
    if there is None:
        return mask
    return mask | there | torch.nn.functional.pad(there[:, 1:], (0, 1))


def as_mask(attention: Any) -> Tensor | None:
    """True where a mask of bools, integers or numbers calls a row live; None for what is no `[batch, positions]`."""
    if not is_table(attention):
        return None
    if not attention.is_floating_point():
        return attention != 0
    # numbers that are added to scores of attention, 0 for live rows, are not all from 0 to 1, or are all 0
    factors = ((attention >= 0) & (attention <= 1)).all() & (attention > 0).any()
    return torch.where(factors, attention > 0, attention >= 0)


def is_table(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a dense real tensor of two axes."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested
    return dense and value.ndim == 2 and not value.is_complex()
