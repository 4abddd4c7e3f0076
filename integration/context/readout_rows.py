"""Rows that carry a gradient although the attention mask calls them padding.

A mask says which tokens are attended to. Where the loss begins is another matter, which each kind of model settles in its
own way:

| kind | reads its answer from |
|---|---|
| decoders with a classification head | the last token whose id is not `pad_token_id`, or the last of all |
| encoders of transformers | perhaps the first position |
| question answering | all positions: each competes for being the start |
| encoder–decoders with a classification head | the decoder's last `eos_token_id` |

Some models let tokens reach each other past the mask: by convolution (ConvBERT, Mamba), by mixing that knows no mask
(FNet), by attention that estimates its own (YOSO, Nyströmformer). Others keep positions before examples (XLNet,
Longformer), where a mask of as many examples as positions would fit the wrong way round. For these there are no masks.

As long as masks and ids agree, and padding is on the right, these are rows that the mask has. Where they do not, a row
that is left out would make dW biased; one that is added costs no more than its share of the budget.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from wtacrs.integration.context.streams import Stream

_UNMASKED = {"fnet", "led", "longformer", "mra", "nystromformer", "reformer", "rwkv", "xlnet", "yoso"}


class ReadoutRows:
    """Where a model reads its answer from, as far as its classes and its arguments tell.

    A class finds its answer by token id if its `forward` names `pad_token_id` (or `eos_token_id`): transformers' own
    classifiers do, and so do those that are written after their fashion, whatever they are called. A class that names it
    for another purpose (BigBird's, to fill up blocks) gives rows away where ids and mask disagree, and nothing else.

    Args:
        model: the model, or a wrapper of one.
        encoder_decoder: whether labels are those of a decoder.
    """

    def __init__(self, model: nn.Module, *, encoder_decoder: bool) -> None:
        self._encoder_decoder = encoder_decoder
        classes = {type(module) for module in model.modules()}
        self._mixes = any(_mixes_positions(module) for module in model.modules())
        # what a language model is asked for is said by labels, or by a loss on tokens of its own
        writes = [found.can_generate() for found in classes if hasattr(found, "can_generate")]
        by_pad = {found for found in classes if _names(found, "pad_token_id")}
        # no modules: a layer that is copied without its model would take them along
        self._by_pad = [getattr(module, "config", None) for module in model.modules() if type(module) in by_pad]
        finds_last = any(_names(found, "argmax") for found in by_pad)
        self._may_read_first = bool(writes) and not any(writes) and not finds_last
        self._by_eos = any(_names(found, "eos_token_id") for found in classes)
        self._spans = any("ForQuestionAnswering" in base.__name__ for found in classes for base in found.__mro__)

    def added_to(self, masks: dict[Stream, Tensor], arguments: dict[str, Any]) -> dict[Stream, Tensor]:
        """The masks with the rows that answers are read from; a mask that would have to have all rows is left out.

        Args:
            masks: `[batch, positions]`, True for a row that may carry a gradient.
            arguments: those of the model's `forward`, by name.
        """
        if (
            self._mixes
            or self._spans
            or any(arguments.get(name) is not None for name in ("start_positions", "end_positions"))
        ):
            return {}
        if self._answers_every_token(masks, arguments.get("labels")):
            return masks  # which have the rows with labels
        found = dict(masks)
        if self._by_eos or self._by_pad:
            found.pop("target", None)
        if "source" in found:
            for pooled in self._pooled(found["source"], arguments):
                found["source"] = with_pooled(found["source"], pooled)
        return found

    def _pooled(self, mask: Tensor, arguments: dict[str, Any]) -> list[Tensor]:
        """Positions `[batch]` that answers may be read from."""
        found = [last_tokens(mask, arguments.get("input_ids"), _pad_of(config)) for config in self._by_pad]
        if self._may_read_first:
            found.append(torch.zeros(len(mask), dtype=torch.long, device=mask.device))
        return found

    def _answers_every_token(self, masks: dict[Stream, Tensor], labels: Any) -> bool:
        if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.is_floating_point():
            return False
        return self._encoder_decoder or ("source" in masks and masks["source"].shape == labels.shape)


def last_tokens(mask: Bool[Tensor, "batch positions"], ids: Any, pad: int | None) -> Tensor:
    """Position `[batch]` that classifiers of transformers read, which they find from the ids alone.

    It is that of the last id which is not `pad`, the first if there is none, and the last of all where ids or `pad` are
    not known.
    """
    batch, positions = mask.shape
    if pad is None or not isinstance(ids, Tensor) or ids.shape != mask.shape:
        return torch.full((batch,), positions - 1, device=mask.device)
    counted = torch.arange(positions, device=mask.device) * (ids.to(mask.device) != pad)
    return counted.argmax(-1)


def with_pooled(mask: Bool[Tensor, "batch positions"], pooled: Tensor) -> Bool[Tensor, "batch positions"]:
    """The mask, but for examples whose pooled row is not in it: all of their rows count.

    Such a row may attend to padding too: what attention makes of a query without any key that it may see is for the
    kernel to say, and several take the mean of all.
    """
    return mask | ~mask.gather(1, pooled[:, None])


def _mixes_positions(module: nn.Module) -> bool:
    """Whether tokens meet in a module without the mask having a say, as far as is known."""
    if isinstance(module, nn.Conv1d):
        return module.kernel_size[0] > 1
    return getattr(getattr(module, "config", None), "model_type", None) in _UNMASKED


def _names(found: type[nn.Module], attribute: str) -> bool:
    """Whether a `forward` of the class or of one that it derives from reads an attribute of this name."""
    forwards = (vars(base).get("forward") for base in found.__mro__)
    return any(attribute in _code_names(forward) for forward in forwards if callable(forward))


def _code_names(function: Callable[..., Any]) -> tuple[str, ...]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return () if code is None else code.co_names


def _pad_of(config: Any) -> int | None:
    getter = getattr(config, "get_text_config", None)
    return getattr(config if getter is None else getter(), "pad_token_id", None)
