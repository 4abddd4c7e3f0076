"""The paper's cache: the norms of dY that the same tokens of the same example had when they were last seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.gradient_norms import FLOOR
from wtacrs.integration.score_memory.norm_table import NormTable
from wtacrs.integration.score_memory.norms_by_place import NormsByPlace, Note


class LastSeenNorms(NormsByPlace):
    """Last seen ‖dY‖ per example, token and layer, in bf16; an epoch old in the second epoch.

    Source: Liu et al., arXiv 2305.15265: a cache of gradient norms. Owned by the run, saved and loaded; tokens
    that were not seen are no zeros.

    How large an example's gradients are may change beyond recognition within an epoch, and then this is worse than row
    norms. Through the second epoch of the small T5 on `docstrings` (lr 1e-3, 44 batches), where the logarithms of an
    example's norms then and now have a correlation of 0.1–0.3, the variance of `wta_crs(0.3)` was 1.91 times that of row
    norms with ε = 0.1, 1.31 times with 0.3 and 1.11 times with 0.5; by token it was 0.99, 0.94 and 0.93 times, by
    position 0.97, 0.96 and 0.97 times, and with the oracle's scores 0.04 times. Measure before you rely on it.

    Examples are told apart by their position in the data set, which the model's hook finds in the argument
    `example_ids` (int64 `[batch]`, taken away before the model sees it), or which `given` states. A token is counted
    within its example, padding left out, on whatever side it is. Bytes: 2 per token and layer, where layers that share
    an input count once, and 12 per example; a table grows by half when it is full.

    Args:
        folder: folder for the tables (`numpy.memmap`), which are made anew; on the CPU's memory if None.
        floor: share of the probability that is spread evenly.
    """

    kind: ClassVar[str] = "last-seen"
    needs_ids: ClassVar[bool] = True

    def __init__(self, folder: Path | None = None, *, floor: float = FLOOR) -> None:
        super().__init__(floor=floor)
        if folder is not None and not (isinstance(folder, Path) and folder.is_dir()):
            raise InputError(f"folder={folder} must be the Path of a folder")
        self._folder = folder
        self._tables: dict[str, NormTable] = {}

    @contextmanager
    def given(self, ids: Tensor | Sequence[int]) -> Iterator[None]:
        """State the positions of a batch's examples in their data set, around its forward pass."""
        before = self.ids
        self.ids = torch.as_tensor(ids)
        try:
            yield
        finally:
            self.ids = before

    @property
    def nbytes(self) -> int:
        """Bytes of all tables, on disk or in memory."""
        return sum(table.nbytes for table in self._tables.values())

    @property
    def examples(self) -> int:
        """Of how many examples something is remembered."""
        return max((table.examples for table in self._tables.values()), default=0)

    def state_dict(self) -> dict[str, Any]:
        """The tables, values and all, from the disk too."""
        self.enter()
        return {"kind": self.kind, "tables": {name: table.state_dict() for name, table in self._tables.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace all tables (see `GradientNorms.load_state_dict`)."""
        self._check_kind(state)
        self._seen, self._tables = [], {}
        for name, saved in state["tables"].items():
            self._table(name).load_state_dict(saved)

    def _kind_of_rows(self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size) -> str:
        # rows without a mask may be the same tokens as those of another layer, or not: a table of its own is safe
        return layer if stream is None or current.mask(shape) is None else stream

    def _places(
        self, current: ForwardPass, kind: str, stream: Stream | None, shape: torch.Size
    ) -> Int64[Tensor, " n"] | None:
        ids = self._checked_ids(current)
        if not shape or shape[0] != ids.shape[0]:
            return None  # rows that are no longer ordered by example
        mask = current.mask(shape)
        counted = torch.ones(shape, dtype=torch.bool) if mask is None else mask.cpu()
        counted = counted.reshape(shape[0], -1)
        starts = self._table(kind).places(ids, counted.sum(1))
        return torch.where(counted, starts.unsqueeze(1) + counted.cumsum(1) - 1, -1).reshape(-1)

    def _checked_ids(self, current: ForwardPass) -> Int64[Tensor, " b"]:
        ids = current.ids
        if ids is None:
            raise InputError(
                "scores='last-seen' need to know the examples: give the model example_ids=, their positions in the "
                "data set, or run it within LastSeenNorms.given(ids)"
            )
        if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise InputError(f"example_ids must be integers of shape [batch], got {ids.dtype} {list(ids.shape)}")
        return ids.cpu().long()

    def _read(
        self, note: Note, kind: str, layer: str, places: Tensor, device: torch.device
    ) -> Float64[Tensor, " n"]:
        table = self._table(kind)
        if kind not in note.read:  # all layers at once: one transfer
            note.read[kind] = (list(table.columns), table.read(places).to(device))
        columns, values = note.read[kind]
        if layer not in columns:
            return torch.full(places.shape, -1.0, dtype=torch.float64, device=device)
        return values[:, columns.index(layer)].double()

    def _write(self, kind: str, layer: str, places: Tensor, norms: Float64[Tensor, " n"]) -> None:
        self._table(kind).write(places, layer, norms)

    def _table(self, name: str) -> NormTable:
        if name not in self._tables:
            path = None if self._folder is None else self._folder / f"{name}.bf16"
            self._tables[name] = NormTable(path)
        return self._tables[name]
