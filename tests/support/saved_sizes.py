"""What a forward pass keeps for its backward pass: shapes and bytes of the tensors, every storage once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wtacrs.integration.measure.saved_storages import SavedStorages, storages_of, unpacked
from wtacrs.validation.properties.saved_for_backward import note_contexts


def kept_tensors(model: nn.Module, batch: Mapping[str, Tensor]) -> list[tuple[torch.Size, int]]:
    """Shape and bytes of what is alive after the forward pass, when the loss alone is held; no parameters, no batch."""
    saved: SavedStorages[torch.Size] = SavedStorages(lambda tensor: tensor.shape)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, unpacked):
        loss = model(**batch).loss
    note_contexts(loss.grad_fn, saved.note)
    apart = (*model.parameters(), *model.buffers(), *batch.values())
    known = {reference for tensor in apart for reference in storages_of(tensor)}
    return [
        (shape, storage.bytes) for storage in saved.alive(known).values() for shape in list(storage.keepers)[:1]
    ]
