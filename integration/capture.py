"""Capture `(x, dy, mask)` of every linear layer of a model on real batches, for study in `wtacrs.validation`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wtacrs.estimators import InputError
from wtacrs.integration.padding import RowMasks, Stream, stream_of
from wtacrs.validation.captures import Captures, LayerCapture, load_captures, write_captures

LossFn = Callable[[Any], Tensor]


class _Recorder:
    """Collects the inputs, masks and outputs of chosen layers during one forward pass."""

    def __init__(
        self, layers: Mapping[str, nn.Linear], streams: Mapping[str, Stream | None], masks: RowMasks
    ) -> None:
        self._streams = streams
        self._masks = masks
        self.entries: dict[str, tuple[Tensor, Tensor]] = {}
        self.outputs: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}
        self._handles = [
            layer.register_forward_hook(lambda _, args, output, name=name: self._record(name, args[0], output))
            for name, layer in layers.items()
        ]

    def _record(self, name: str, x: Tensor, output: Tensor) -> None:
        if not output.requires_grad:
            return
        call = self._calls[name] = self._calls.get(name, -1) + 1
        entry = name if call == 0 else f"{name}@{call}"
        rows = x.detach().reshape(-1, x.shape[-1])
        mask = self._masks.rows(self._streams[name], x)
        if mask is None:
            mask = torch.ones(rows.shape[0], dtype=torch.bool, device=x.device)
        self.entries[entry] = (rows, mask)
        self.outputs[entry] = output

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def capture(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    filter_fn: Callable[[str, nn.Linear], bool] | None = None,
    loss_fn: LossFn | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Captures:
    """Run batches through a model and write every linear layer's `x`, `dy` and padding mask to one file.

    `dy` is the gradient of the loss by the layer's output, found with `torch.autograd.grad`: the parameters'
    `.grad` stay as they were. The model keeps its mode (dropout included) and its parameters. Everything captured
    is held in memory, on the model's device, until it is written.

    Args:
        model: any module with `nn.Linear` layers, converted or not.
        batches: keyword arguments of the forward pass, one mapping per batch.
        path: the safetensors file to write, atomically.
        filter_fn: called with each layer's name and the layer; False leaves it out. Default: all.
        loss_fn: from the model's output to a scalar; default the output's `.loss`.
        metadata: anything JSON can hold, kept in the file.
        progress: called with the number of batches done.

    Returns:
        The file, opened lazily.

    Raises:
        InputError: if there is no batch, no layer, no loss, a layer's dY is not finite, or gradient flows through
            rows that the attention mask calls padding: a sampler told to leave them out would be biased.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (filter_fn is None or filter_fn(name, module))
    }
    if not layers:
        raise InputError(f"model={type(model).__name__} has no nn.Linear that filter_fn accepts")
    streams = {name: stream_of(model, name) for name in layers}
    masks = RowMasks.on(model)
    own_masks = None if masks is not None else RowMasks(model)
    captured: dict[str, LayerCapture] = {}
    try:
        for index, batch in enumerate(batches):
            recorder = _Recorder(layers, streams, masks or own_masks)  # type: ignore[arg-type]
            try:
                captured |= _one_batch(model, batch, recorder, loss_fn or _loss_of, index)
            finally:
                recorder.remove()
            if progress is not None:
                progress(index + 1)
    finally:
        if own_masks is not None:
            own_masks.remove()
    if not captured:
        raise InputError("batches: no layer was captured; there is no batch, or no layer needs a gradient")
    write_captures(Path(path), captured, {"model": type(model).__name__, **(metadata or {})})
    return load_captures(path)


def _loss_of(output: Any) -> Tensor:
    loss = getattr(output, "loss", None)
    if not isinstance(loss, Tensor):
        raise InputError("the model's output has no loss: pass labels in the batches, or loss_fn")
    return loss


def _one_batch(
    model: nn.Module, batch: Mapping[str, Any], recorder: _Recorder, loss_fn: LossFn, index: int
) -> dict[str, LayerCapture]:
    with torch.enable_grad():
        loss = loss_fn(model(**batch))
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            loss, list(recorder.outputs.values()), allow_unused=True
        )
    captured = {}
    for (entry, (x, mask)), dy in zip(recorder.entries.items(), gradients, strict=True):
        if dy is None:
            continue
        rows = dy.detach().reshape(-1, dy.shape[-1])
        _check_gradient(entry, rows, mask)
        captured[f"{entry}#{index}"] = LayerCapture(x, rows, mask)
    return captured


def _check_gradient(entry: str, dy: Tensor, mask: Tensor) -> None:
    if not torch.isfinite(dy).all():
        raise InputError(f"layer {entry}: the gradient by its output is NaN or infinite")
    leaking = (dy[~mask] != 0).any(dim=1).sum().item()
    if leaking:
        raise InputError(
            f"layer {entry}: the mask calls {int((~mask).sum())} rows padding, but {leaking} of them "
            "have a gradient; the loss or the pooling ignores the attention mask"
        )
