"""Running averages of gradient norms, by something that a row is known by beforehand."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.gradient_norms import FLOOR
from wtacrs.integration.score_memory.norms_by_place import NormsByPlace, Note
from wtacrs.validation.arguments import is_number

DECAY = 0.9


class RunningNorms(NormsByPlace):
    """Exponential moving average of ‖dY‖² for every key and layer; its root is the expected norm.

    Squares are averaged since `p ∝ ‖x‖ √E‖y‖²` minimises the mean of `Σ w_i²/p_i` where all that is known of a row is
    its key. The average of a key moves by `1 − decay` towards the mean over its rows of a batch, whenever it occurs; the
    first one counts whole. No example ids are needed. Bytes: 4 per key and layer, on the device of dY.

    Args:
        decay: weight of what was known before, in [0, 1).
        floor: share of the probability that is spread evenly.
    """

    def __init__(self, *, decay: float = DECAY, floor: float = FLOOR) -> None:
        super().__init__(floor=floor)
        if not is_number(decay) or not 0 <= decay < 1:
            raise InputError(f"decay={decay!r} must be in [0, 1)")
        self.decay = decay
        self._averages: dict[str, Float[Tensor, " keys"]] = {}

    @property
    @abstractmethod
    def keys(self) -> int:
        """How many keys there are."""

    @property
    def nbytes(self) -> int:
        """Bytes of the averages."""
        return sum(table.numel() * table.element_size() for table in self._averages.values())

    def state_dict(self) -> dict[str, Any]:
        """The averages."""
        self.enter()
        averages = {layer: table.detach().cpu().clone() for layer, table in self._averages.items()}
        return {"kind": self.kind, "decay": self.decay, "averages": averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the averages (see `GradientNorms.load_state_dict`)."""
        self._check_kind(state)
        for layer, table in state["averages"].items():
            if table.shape != (self.keys,):
                raise InputError(f"scores={self.kind!r}: {layer!r} has {table.numel()} keys, not {self.keys}")
        self._seen = []
        self._averages = {layer: table.clone() for layer, table in state["averages"].items()}

    def _kind_of_rows(self, current: ForwardPass, layer: str, stream: Stream | None, shape: torch.Size) -> str:
        return f"{stream} {list(shape)}"

    def _read(
        self, note: Note, kind: str, layer: str, places: Tensor, device: torch.device
    ) -> Float64[Tensor, " n"]:
        if "averages" not in note.read:
            note.read["averages"] = dict(self._averages)  # tables are replaced, never changed
        table = note.read["averages"].get(layer)
        if table is None:
            return torch.full(places.shape, -1.0, dtype=torch.float64, device=device)
        found = table.to(device)[places.clamp(min=0)].double()
        return torch.where(places >= 0, found, -1.0)

    def _write(self, kind: str, layer: str, places: Tensor, norms: Float64[Tensor, " n"]) -> None:
        table = self._averages.get(layer)
        if table is None:
            table = torch.full((self.keys,), -1.0)
        before = table.to(norms.device).double()
        # rows without a place are added to a place of their own, which is cut off
        bins = torch.where(places >= 0, places, self.keys)
        sums, counts = before.new_zeros(self.keys + 1), before.new_zeros(self.keys + 1)
        # index_put_, unlike index_add_, sums in one order on CUDA
        sums.index_put_((bins,), norms.square(), accumulate=True)
        counts.index_put_((bins,), torch.ones_like(norms), accumulate=True)
        now = (sums / counts.clamp(min=1))[:-1]
        moved = torch.where(before >= 0, self.decay * before.square() + (1 - self.decay) * now, now).sqrt()
        self._averages[layer] = torch.where(counts[:-1] > 0, moved, before).float()
