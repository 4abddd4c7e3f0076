"""`ForwardContext`: what the layers of a model may know of the forward pass that they run in.

A hook on the model reads the arguments that Hugging Face models take, and makes a `ForwardPass` of them. Its parts come
from files of their own: masks, rows that the model reads its answer from, tokens, example ids, the seed. Layers look the
pass up, also when activation checkpointing runs them again (`Recomputation`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.arguments import EXAMPLE_IDS, ForwardArguments
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.masks import by_stream, masks_from_arguments, of_several_examples
from wtacrs.integration.context.readout_rows import ReadoutRows
from wtacrs.integration.context.recomputation import Recomputation
from wtacrs.integration.context.score_memory_protocol import NOT_COMPILED, ScoreMemory
from wtacrs.integration.context.seed import new_pass_seed
from wtacrs.integration.context.streams import Stream, is_encoder_decoder, shares_with_positions
from wtacrs.integration.context.tokens import tokens_from_arguments

_MASK_ARGUMENTS = ("attention_mask", "decoder_attention_mask", "labels")


class ForwardContext:
    """Owns the hooks on a model, and the forward pass under way; `given` states masks and ids by hand.

    Outside a forward pass nothing is known of the layers but a seed, unless activation checkpointing runs them again (see
    `Recomputation`). The hook takes the argument `example_ids` away before the model sees it: `[batch]`, the positions of
    the examples in their data set, for scores that are remembered by example.

    Args:
        model: the module to hook; its `forward` is where the arguments arrive.
        sampled: whether layers draw: every forward pass with gradients enabled then takes one number from torch's
            default generator, the seed of its layers; each of several processes mixes in its rank.

    Attributes:
        sampled: as above.
        score_memory: what the scores of the layers are remembered in, if they are.
    """

    def __init__(self, model: nn.Module, *, sampled: bool = False) -> None:
        self.sampled = sampled
        self.score_memory: ScoreMemory | None = None
        self._now: ForwardPass | None = None
        self._outer: list[ForwardPass | None] = []
        self._outside: ForwardPass | None = None
        self._recomputation = Recomputation()
        self._ids: Tensor | None = None
        self._arguments = ForwardArguments(model)
        self._encoder_decoder = is_encoder_decoder(model)
        self._readout_rows = ReadoutRows(model, encoder_decoder=self._encoder_decoder)
        self._shares_with_positions = shares_with_positions(model)
        self._handles = [
            model.register_forward_pre_hook(self._enter, with_kwargs=True),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    @staticmethod
    def of(model: nn.Module) -> ForwardContext | None:
        """The context whose hooks sit on this very module, or None."""
        owners = (getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values())
        return next((owner for owner in owners if isinstance(owner, ForwardContext)), None)

    @property
    def hooked(self) -> bool:
        """Whether the hooks are on a module: not after `remove`, and not in a copy of a layer without its model."""
        return any(handle.id in (handle.hooks_dict_ref() or ()) for handle in self._handles)

    def __getstate__(self) -> dict[str, Any]:
        """Without handles of a model that is gone, which could not be copied."""
        return {**self.__dict__, "_handles": self._handles if self.hooked else []}

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    @property
    def current(self) -> ForwardPass | None:
        """The forward pass under way, or the one that is being recomputed; None before the first.

        Outside of both it is a pass of which nothing is known but a seed, so that a layer draws from torch's default
        generator neither in a forward pass nor when it is recomputed.
        """
        return self._now or self._recomputation.current or self._outside

    @contextmanager
    def given(
        self, *, source: Tensor | None = None, target: Tensor | None = None, ids: Tensor | None = None
    ) -> Iterator[None]:
        """State masks and ids by hand around a forward pass of a model that does not take them as arguments.

        Args:
            source: bool `[batch, positions]`, True for a row that may carry a gradient, of the sequence that is read.
            target: the same of the decoder's sequence.
            ids: int64 `[batch]`, positions of the examples in their data set.

        Raises:
            InputError: if a mask is no tensor.
        """
        for name, mask in (("source", source), ("target", target)):
            if mask is not None and not isinstance(mask, Tensor):
                raise InputError(f"{name}={mask!r} must be a tensor, True for a row that may carry a gradient")
        before = self._now, self._ids
        self._ids = ids
        self._now = ForwardPass(by_stream(source=source, target=target), self._new_seed(), ids=ids)
        try:
            yield
        finally:
            self._remember(self._now)
            self._now, self._ids = before

    def rows(self, stream: Stream | None, x: Tensor, *, flattened: bool = False) -> Bool[Tensor, " n"] | None:
        """The mask for the rows of an input, or None if there is none that fits.

        Args:
            stream: the sequence that the rows run along.
            x: `[batch, positions, d]`.
            flattened: `x` may also be `[batch · positions, d]`, as `flattens` tells.
        """
        current = self.current
        if current is None:
            return None
        if flattened:
            x = current.unflattened(stream, x)
        mask = current.mask(stream, x.shape[:-1])
        return None if mask is None else mask.reshape(-1)

    def _enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        seen = self._arguments.known(kwargs)
        arguments = self._arguments.by_name(args, seen)
        ids = kwargs.get(EXAMPLE_IDS, self._ids)
        if self.score_memory is None:
            self._begin(arguments, ids)
        else:
            self._begin_uncompiled(arguments, self.score_memory.ids if ids is None else ids)
        return args, seen

    def _begin(self, arguments: dict[str, Any], ids: Tensor | None) -> None:
        masks, tokens = self._masks(arguments), tokens_from_arguments(self._encoder_decoder, arguments)
        if self._shares_with_positions:
            masks, tokens = of_several_examples(masks), of_several_examples(tokens)
        self._outer.append(self._now)
        given = {} if self._now is None else self._now.masks  # masks given by hand stay in force
        self._now = ForwardPass(masks or given, self._new_seed(), tokens=tokens, ids=ids)
        self._recomputation.forget()

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _begin_uncompiled(self, arguments: dict[str, Any], ids: Tensor | None) -> None:
        self._begin(arguments, ids)

    def _masks(self, arguments: dict[str, Any]) -> dict[Stream, Tensor]:
        attention, decoder_attention, labels = (arguments.get(name) for name in _MASK_ARGUMENTS)
        found = masks_from_arguments(self._encoder_decoder, attention, decoder_attention, labels)
        return self._readout_rows.added_to(found, arguments)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        ended, self._now = self._now, self._outer.pop() if self._outer else None
        if ended is not None and ended.seed is not None:
            self._end(ended, output)

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _end(self, ended: ForwardPass, output: Any) -> None:
        self._remember(ended)
        self._recomputation.watch(ended, output)

    def _remember(self, ended: ForwardPass) -> None:
        ended.forget_calls()
        if ended.seed is not None:
            self._outside = ForwardPass(seed=ended.seed, known=False)

    def _new_seed(self) -> int | None:
        return new_pass_seed() if self.sampled else None
