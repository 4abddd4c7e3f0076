"""Capture `(x, dy, mask)` of every linear layer of a model on real batches, for study in `wtacrs.validation`."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wtacrs.estimators import InputError, WtacrsWarning, row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.mask_watch import TOLERANCE, padding_share
from wtacrs.integration.layers.linear_layers import FilterFn, is_linear_layer, layer_input
from wtacrs.integration.parallel.wrappers import unwrapped
from wtacrs.validation.arguments import check_batch, check_callable, shown
from wtacrs.validation.layers.captures import Captures, LayerCapture, load_captures, write_captures
from wtacrs.validation.masked_gradient import masked_gradient_sentence

LossFn = Callable[[Any], Tensor]


class _Recorder:
    """Collects the inputs, masks and outputs of chosen layers during one forward pass."""

    def __init__(self, layers: Mapping[str, Any], context: ForwardContext) -> None:
        self._context = context
        self.entries: dict[str, tuple[Tensor, Tensor]] = {}
        self.outputs: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}
        self._handles = [
            layer.register_forward_hook(
                lambda layer, args, kwargs, output, name=name: self._record(
                    name, layer_input(layer, args, kwargs), output
                ),
                with_kwargs=True,
            )
            for name, layer in layers.items()
        ]

    def _record(self, name: str, x: Tensor, output: Tensor) -> Tensor | None:
        if not output.requires_grad:
            return None
        call = self._calls[name] = self._calls.get(name, -1) + 1
        entry = name if call == 0 else f"{name}@{call}"
        rows = x.detach().reshape(-1, x.shape[-1])
        current = self._context.current
        mask = None if current is None else current.mask(x.shape[:-1], x.device)
        mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask
        self.entries[entry] = (rows, mask.reshape(-1))
        self.outputs[entry] = output
        return output.clone()  # what reads the output may change it in place, and dY with it

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class RecordedModel:
    """A model whose chosen layers are recorded, batch by batch."""

    def __init__(
        self, model: nn.Module, layers: Mapping[str, Any], context: ForwardContext, loss_fn: LossFn
    ) -> None:
        self._model, self._layers, self._context, self._loss_fn = model, layers, context, loss_fn
        self.misled: dict[str, float] = {}

    def run(self, batch: Mapping[str, Any]) -> dict[str, LayerCapture]:
        """What one forward and backward pass shows of every layer that gets a gradient."""
        recorder = _Recorder(self._layers, self._context)
        try:
            with torch.enable_grad():
                loss = self._loss_fn(self._model(**batch))
                if not recorder.outputs:
                    return {}
                _check_loss(loss)
                gradients: Sequence[Tensor | None] = torch.autograd.grad(
                    loss, list(recorder.outputs.values()), allow_unused=True
                )
        finally:
            recorder.remove()
        captured = {}
        for (entry, (x, mask)), dy in zip(recorder.entries.items(), gradients, strict=True):
            if dy is None:
                continue
            rows = dy.detach().reshape(-1, dy.shape[-1])
            _check_gradient(entry, rows)
            share = padding_share(rows, mask)
            if share > TOLERANCE:
                layer = entry.partition("@")[0]
                self.misled[layer] = max(share, self.misled.get(layer, 0.0))
                mask = torch.ones_like(mask)
            captured[entry] = LayerCapture(x, rows, mask)
        return captured


def capture(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    earlier: nn.Module | None = None,
    filter_fn: FilterFn | None = None,
    loss_fn: LossFn | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Captures:
    """Run batches through a model and write every linear layer's `x`, `dy` and padding mask to one file.

    `dy` is the gradient of the loss by the layer's output, found with `torch.autograd.grad`: the parameters'
    `.grad` stay as they were. The model keeps its mode (dropout included) and its parameters. Everything captured
    is held in memory, on the model's device, until it is written.

    With `earlier`, the same model at an earlier state of its training, the batches run through that one too, and the
    row norms of its dY become the entries' `stale`: what a sampler knows that remembers the norms last seen. Its
    dropout is drawn anew, as it was then, and leaves the random numbers of `model` as they were.

    Args:
        model: any module with linear layers (`nn.Linear`, `Conv1D`), converted or not.
        batches: keyword arguments of the forward pass, one mapping per batch.
        path: the safetensors file to write, atomically.
        earlier: a model of the same structure on the same device.
        filter_fn: called with each layer and its name; False leaves it out. Default: all.
        loss_fn: from the model's output to a scalar; default the output's `.loss`.
        metadata: anything JSON can hold, kept in the file.
        progress: called with the number of batches done.

    Returns:
        The file, opened lazily.

    Raises:
        InputError: if there is no batch, no layer, no loss of one number, a layer's dY is not finite, `earlier` has
            other layers than the model, or an argument is not of the type that is said here.

    Warns:
        WtacrsWarning: once, if rows that a mask calls padding carry gradient. Every row of such an entry counts as real,
            and the metadata say which layers these are and their share of ‖dY‖² (`masked_gradient`).
    """
    model = unwrapped(model)
    earlier = None if earlier is None else unwrapped(earlier, "earlier")
    check_callable(filter_fn, "filter_fn", takes="a layer and its name")
    check_callable(loss_fn, "loss_fn", takes="the model's output")
    check_callable(progress, "progress", takes="the number of batches done")
    _check_file_arguments(path, metadata)
    _check_batches(batches)
    layers = chosen_layers(model, filter_fn)
    if not layers:
        raise InputError(f"model={type(model).__name__} has no linear layer that filter_fn accepts")
    before = None if earlier is None else _same_layers(earlier, layers, filter_fn)
    captured: dict[str, LayerCapture] = {}
    with ExitStack() as stack:
        now = stack.enter_context(recording(model, layers, loss_fn))
        then = (
            None if earlier is None or before is None else stack.enter_context(recording(earlier, before, loss_fn))
        )
        for index, batch in enumerate(batches):
            check_batch(batch, f"batches[{index}]")
            found = now.run(batch)
            if then is not None:
                found = _with_stale(found, _elsewhere_in_the_random_numbers(then, batch))
            captured |= of_batch(index, found)
            if progress is not None:
                progress(index + 1)
    if not captured:
        raise InputError("batches: no layer was captured; there is no batch, or no layer needs a gradient")
    told = masked_gradient_sentence(now.misled)
    if told is not None:
        warnings.warn(told, WtacrsWarning, stacklevel=2)
    found_out = {"masked_gradient": now.misled} if now.misled else {}
    write_captures(Path(path), captured, {"model": type(model).__name__, **found_out, **(metadata or {})})
    return load_captures(path)


@contextmanager
def recording(
    model: nn.Module, layers: Mapping[str, Any], loss_fn: LossFn | None = None
) -> Iterator[RecordedModel]:
    """The model, ready to run batches and be recorded: with a context of its own where it has none yet.

    Args:
        model: any module.
        layers: linear layers of it by name.
        loss_fn: from the model's output to a scalar; default the output's `.loss`.
    """
    known = ForwardContext.of(model)
    context = ForwardContext(model) if known is None else known
    try:
        yield RecordedModel(model, layers, context, loss_fn or _loss_of)
    finally:
        if known is None:
            context.remove()


def chosen_layers(model: nn.Module, filter_fn: FilterFn | None) -> dict[str, Any]:
    """Linear layers by name that the filter accepts, all if it is None."""
    return {
        name: module
        for name, module in model.named_modules()
        if is_linear_layer(module) and (filter_fn is None or filter_fn(module, name))
    }


def of_batch(number: int, layers: Mapping[str, LayerCapture]) -> dict[str, LayerCapture]:
    """The layers that one of several batches called, under names that tell the batch."""
    return {f"{entry}#{number}": layer for entry, layer in layers.items()}


def _same_layers(earlier: nn.Module, layers: Mapping[str, Any], filter_fn: FilterFn | None) -> dict[str, Any]:
    """The chosen layers of the earlier model, which must be those of the model, in name and size."""
    found = chosen_layers(earlier, filter_fn)
    for name in [*layers, *found]:
        if name not in found or name not in layers:
            has, lacks = ("model", "earlier one") if name in layers else ("earlier one", "model")
            raise InputError(
                f"earlier={type(earlier).__name__}: the {has} has a layer {name!r}, the {lacks} has not"
            )
        theirs, ours = list(found[name].weight.shape), list(layers[name].weight.shape)
        if theirs != ours:
            raise InputError(f"earlier={type(earlier).__name__}: the weight of {name!r} is {theirs}, not {ours}")
    return found


def _elsewhere_in_the_random_numbers(then: RecordedModel, batch: Mapping[str, Any]) -> dict[str, LayerCapture]:
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        return then.run(batch)


def _with_stale(now: dict[str, LayerCapture], then: Mapping[str, LayerCapture]) -> dict[str, LayerCapture]:
    for entry, layer in now.items():
        if entry not in then or then[entry].dy.shape != layer.dy.shape:
            raise InputError(f"earlier: layer {entry} gets no gradient there, or one of another shape")
    return {
        entry: dataclasses.replace(layer, stale=row_norms(then[entry].dy).float()) for entry, layer in now.items()
    }


def _loss_of(output: Any) -> Tensor:
    loss = getattr(output, "loss", None)
    if not isinstance(loss, Tensor):
        raise InputError("the model's output has no loss: pass labels in the batches, or loss_fn")
    return loss


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        given = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"loss_fn: gave {given}; a tensor of one number is needed")
    if not loss.requires_grad:
        raise InputError("loss_fn: gave a tensor without a gradient; it must be computed from the model's output")


def _check_batches(batches: object) -> None:
    """Refuse one batch in the place of several, and what holds none."""
    if isinstance(batches, (str, Mapping)) or not (
        hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")
    ):
        raise InputError(f"batches={shown(batches)} must be a list, or the like, of mappings, one per batch")


def _check_file_arguments(path: object, metadata: object) -> None:
    """Refuse, before any work is done, what could not be written at its end."""
    if not isinstance(path, (str, Path)) or not str(path) or Path(path).is_dir():
        raise InputError(f"path={path!r} must name a file")
    if metadata is None:
        return
    try:
        json.dumps(dict(metadata))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata={shown(metadata)} must be a mapping that JSON can hold: {error}") from None


def _check_gradient(entry: str, dy: Tensor) -> None:
    if not torch.isfinite(dy).all():
        raise InputError(f"layer {entry}: the gradient by its output is NaN or infinite")
