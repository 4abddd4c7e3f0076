"""Which rows are padding: how the layers of a model learn it, encoder and decoder apart.

A padded position has `y_i = 0`: whatever is spent on its row is wasted, and a row that is never sampled must
really have `y_i = 0`. One object, `RowMasks`, holds the masks of the forward pass under way; the layers look their
own up. It is filled by a hook on the model, from the arguments Hugging Face models take (`attention_mask`,
`decoder_attention_mask`, `labels`), or by hand with `RowMasks.given`. It also says which forward pass a layer runs in
(`ForwardPass`), which activation checkpointing needs to know when it runs the layer again.

A mask is used only where it is certain to fit; a layer in doubt samples all rows, which is always unbiased. Rows that
a model reads its answer from count whatever the mask says of them (`wtacrs.integration.context.readout_rows`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from wtacrs.integration.context.forward_pass import NOT_COMPILED, ForwardPass, Stream, tensors_with_gradient
from wtacrs.integration.context.readout_rows import ReadoutRows
from wtacrs.integration.layers.linear_layers import projection_name
from wtacrs.integration.parallel.processes import own_seed
from wtacrs.integration.score_memory.gradient_norms import GradientNorms

IGNORED_LABEL = -100
_CROSS_ATTENTION = re.compile(r"encdec|cross|encoder_?att", re.IGNORECASE)
_KEY_OR_VALUE = {"k", "v", "key", "value", "k_proj", "v_proj", "key_proj", "value_proj"}
_QUERY_OR_OUTPUT = {"q", "o", "query", "q_proj", "query_proj", "out_proj", "o_proj"}
# tables of relative positions, shaped like a batch of one: their rows are no tokens
_READS_POSITIONS = {"pos_proj", "pos_key_proj", "pos_query_proj", "linear_pos"}
# layers that are given [batch · positions, d], by the class that holds them; elsewhere such rows may come in any order
_FLATTENING = {"OPTDecoderLayer": ("fc1", "fc2")}
_ARGUMENTS = ("attention_mask", "decoder_attention_mask", "labels")

EXAMPLE_IDS = "example_ids"
"""An argument that the hook takes away before the model sees it: positions of the examples in their data set."""


class RowMasks:
    """Masks `[batch, positions]` of the forward pass under way, True for a row that may carry a gradient.

    `source` is the sequence the model reads (the only one of encoder-only and decoder-only models), `target` the
    decoder's of an encoder–decoder model. Outside a forward pass there are none, with one exception: once a backward pass
    has gone through an output of the model, and until it ends, layers that are run again by activation checkpointing
    belong to the forward pass which that output is of. If it goes through outputs of several passes, nothing is known.

    The hook takes the argument `example_ids` away before the model sees it: `[batch]`, the positions of the examples in
    their data set, for scores that are remembered by example.

    Args:
        model: the module to hook; its `forward` is where the masks arrive.
        sampled: whether layers draw: every forward pass with gradients enabled then takes one number from torch's
            default generator, the seed of its layers; each of several processes mixes in its rank.
    """

    def __init__(self, model: nn.Module, *, sampled: bool = False) -> None:
        self.sampled = sampled
        self.gradient_norms: GradientNorms | None = None
        self._now: ForwardPass | None = None
        self._outer: list[ForwardPass | None] = []
        self._recomputed: ForwardPass | None = None
        self._outside: ForwardPass | None = None
        self._ids: Tensor | None = None
        self._encoder_decoder = is_encoder_decoder(model)
        self._readout_rows = ReadoutRows(model, encoder_decoder=self._encoder_decoder)
        # their layers read a table of positions too, which has the shape of one example
        self._shared_with_positions = any(getattr(m, "share_att_key", False) for m in model.modules())
        self._names = _argument_names(model)
        self._handles = [
            model.register_forward_pre_hook(self._enter, with_kwargs=True),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    @staticmethod
    def on(model: nn.Module) -> RowMasks | None:
        """The masks whose hooks sit on this very module, or None."""
        owners = (getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values())
        return next((owner for owner in owners if isinstance(owner, RowMasks)), None)

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
        return self._now or self._recomputed or self._outside

    @contextmanager
    def given(
        self, *, source: Tensor | None = None, target: Tensor | None = None, ids: Tensor | None = None
    ) -> Iterator[None]:
        """State masks and ids by hand around a forward pass of a model that does not take them as arguments."""
        before = self._now, self._ids
        self._ids = ids
        self._now = ForwardPass(_present(source=source, target=target), self._new_seed(), ids=ids)
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
        # a model that has an argument of this name keeps it
        taken = {EXAMPLE_IDS} - set(self._names)
        rest = {name: value for name, value in kwargs.items() if name not in taken}
        arguments = dict(zip(self._names, args, strict=False)) | rest
        ids = kwargs.get(EXAMPLE_IDS, self._ids)
        if self.gradient_norms is None:
            self._begin(arguments, ids)
        else:
            self._begin_uncompiled(arguments, self.gradient_norms.ids if ids is None else ids)
        return args, rest

    def _begin(self, arguments: dict[str, Any], ids: Tensor | None) -> None:
        attention, decoder_attention, labels = (arguments.get(name) for name in _ARGUMENTS)
        found = masks_from_arguments(self._encoder_decoder, attention, decoder_attention, labels)
        found = self._readout_rows.added_to(found, arguments)
        tokens = tokens_from_arguments(self._encoder_decoder, arguments)
        if self._shared_with_positions:
            found, tokens = _but_for_one_example(found), _but_for_one_example(tokens)
        self._outer.append(self._now)
        given = {} if self._now is None else self._now.masks  # masks given by hand stay in force
        self._now = ForwardPass(found or given, self._new_seed(), tokens=tokens, ids=ids)
        self._recomputed = None

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _begin_uncompiled(self, arguments: dict[str, Any], ids: Tensor | None) -> None:
        self._begin(arguments, ids)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        ended, self._now = self._now, self._outer.pop() if self._outer else None
        if ended is not None and ended.seed is not None:
            self._end(ended, output)

    @torch.compiler.disable(reason=NOT_COMPILED)  # type: ignore[untyped-decorator]
    def _end(self, ended: ForwardPass, output: Any) -> None:
        self._remember(ended)
        for tensor in tensors_with_gradient(output):
            tensor.register_hook(lambda _: self._recompute(ended))

    def _remember(self, ended: ForwardPass) -> None:
        ended.forget_calls()
        if ended.seed is not None:
            self._outside = ForwardPass(seed=ended.seed, known=False)

    def _recompute(self, ended: ForwardPass) -> None:
        if self._recomputed is ended:
            return
        if self._recomputed is None:
            self._recomputed = ended
            torch.autograd.Variable._execution_engine.queue_callback(self._backward_ends)
        else:
            self._recomputed = self._recomputed.together_with(ended)

    def _backward_ends(self) -> None:
        if self._recomputed is not None:
            self._recomputed.forget_calls()
        self._recomputed = None

    def _new_seed(self) -> int | None:
        """None where nothing is sampled, and in compiled code, where layers draw from torch's default generator."""
        if not self.sampled or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        return own_seed()


def tokens_from_arguments(encoder_decoder: bool, arguments: dict[str, Any]) -> dict[Stream, Tensor]:
    """Token ids of both streams from a model's arguments; a decoder position goes by its label if there are labels."""
    source, target = _as_tokens(arguments.get("input_ids")), None
    if encoder_decoder:
        labels = _as_tokens(arguments.get("labels"))
        target = _as_tokens(arguments.get("decoder_input_ids")) if labels is None else labels
    return _present(source=source, target=target)


def _as_tokens(ids: Any) -> Tensor | None:
    return ids if isinstance(ids, Tensor) and ids.ndim == 2 and not ids.is_floating_point() else None


def masks_from_arguments(
    encoder_decoder: bool, attention: Tensor | None, decoder_attention: Tensor | None, labels: Tensor | None
) -> dict[Stream, Tensor]:
    """Masks of both streams from a model's arguments; a mask that cannot be derived is left out.

    A decoder position counts if it is attended to or if a label asks for it. Without a decoder mask it counts if
    any label at or after it counts, since attention is causal and ignored labels (−100) carry no loss.
    """
    source = _as_mask(attention)
    token_labels = None if labels is None or labels.ndim != 2 else labels != IGNORED_LABEL
    if not encoder_decoder:
        return _present(source=_add_labelled(source, token_labels))
    target = _as_mask(decoder_attention)
    if target is not None and token_labels is not None:
        target = target | token_labels
    elif token_labels is not None:
        target = token_labels.flip(1).cummax(1).values.flip(1)
    return _present(source=source, target=target)


def _add_labelled(mask: Tensor | None, labelled: Tensor | None) -> Tensor | None:
    """Padding that is labelled does carry a loss: from its own row, or in a causal model from the row before."""
    if mask is None or labelled is None or labelled.shape != mask.shape:
        return mask
    return mask | labelled | torch.nn.functional.pad(labelled[:, 1:], (0, 1))


def _as_mask(attention: Tensor | None) -> Tensor | None:
    if attention is None or attention.ndim != 2:
        return None
    return attention != 0


def _present(**masks: Tensor | None) -> dict[Stream, Tensor]:
    return {name: mask for name, mask in masks.items() if mask is not None}  # type: ignore[misc]


def _but_for_one_example(found: dict[Stream, Tensor]) -> dict[Stream, Tensor]:
    return {stream: rows for stream, rows in found.items() if rows.shape[0] > 1}


def _argument_names(model: nn.Module) -> list[str]:
    """Names of the positional arguments of `forward`; a wrapper of peft that takes any passes them on."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters
    names = [name for name, parameter in parameters.items() if parameter.kind in kinds]
    wrapped = getattr(model, "get_base_model", None)
    return names if names or wrapped is None else _argument_names(wrapped())


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


def _output_projection(model: nn.Module) -> list[nn.Module]:
    """The layer before the logits and, where peft has wrapped it, everything inside."""
    getter = getattr(model, "get_output_embeddings", None)
    found = None if getter is None else getter()
    return [] if found is None else list(found.modules())


def gradient_norms_of(model: nn.Module) -> GradientNorms | None:
    """What the layers of a converted model remember of gradient norms; None for row norms and unconverted models."""
    masks = RowMasks.on(model)
    return None if masks is None else masks.gradient_norms
