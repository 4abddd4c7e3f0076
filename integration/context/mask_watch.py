"""`MaskWatch`: what the backward pass shows of rows that a mask calls padding, and which masks are not used any more."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from wtacrs.estimators.core.errors import InputError, WtacrsWarning
from wtacrs.validation.arguments import is_number, shown
from wtacrs.validation.masked_gradient import ADVICE, masked_gradient_finding

MaskedGradient = Literal["warn", "raise", "ignore"]
"""What happens where rows that a mask calls padding carry gradient."""

TOLERANCE = 1e-9
"""Share of ‖dY‖² in the rows called padding up to which a mask is taken to be right."""


_ONE_AT_A_TIME = threading.RLock()
"""Of all watches: a lock within would not be copied with the model."""


@dataclass
class _Seen:
    """Σ ‖y_i‖² over the rows called padding and over all, of one layer since the last forward pass began."""

    padding: Tensor
    all: Tensor


@dataclass
class _Reading:
    """Shares on their way to the host."""

    layers: list[str]
    shares: Tensor
    ready: Any = None


@dataclass
class MaskWatch:
    """Finds layers whose rows called padding carry gradient, and stops the use of masks there.

    The backward pass of a layer has all of dY in hand. If the rows that a mask calls padding hold more than `TOLERANCE`
    of ‖dY‖², the mask is wrong for this layer: it is not used there from the next forward pass on. What a forward pass
    draws is so a function of earlier ones, and every estimate stays unbiased.

    On CUDA the host never waits: sums and verdicts stay on the device, and what is told of them arrives when it is there.

    Attributes:
        on_gradient: "warn" tells it once for every layer; "raise" raises `InputError` in the backward pass, which waits
            for the device; "ignore" does not look at dY, and goes on with every mask.
        shares: by layer that uses no mask any more, the share of ‖dY‖² that gave it away; what is on its way is not in it
            (see `read`).
    """

    on_gradient: MaskedGradient = "warn"
    shares: dict[str, float] = field(default_factory=dict)
    _misled: dict[str, Tensor] = field(default_factory=dict)
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _readings: list[_Reading] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)

    def misled(self, layer: str) -> Bool[Tensor, ""] | None:
        """Whether masks mislead a layer, on the device where it was seen; None if nothing speaks against them."""
        return self._misled.get(layer)

    def observe(self, layer: str, mask: Bool[Tensor, " n"], dy: Float[Tensor, "n m"]) -> None:
        """Look at the rows of dY that a mask calls padding.

        Args:
            layer: that drew by the mask.
            mask: False at rows called padding.
            dy: as it arrives in the backward pass.

        Raises:
            InputError: if they carry gradient and `on_gradient` is "raise".
        """
        padding, total = _padding_and_all(dy, mask)
        if self.on_gradient == "raise":
            share = float(padding / total)
            if share > TOLERANCE:
                raise InputError(f"masked_gradient='raise': {masked_gradient_finding({layer: share})}")
        with _ONE_AT_A_TIME:
            before = self._seen.get(layer)
            if before is not None:
                padding, total = before.padding + padding, before.all + total
            self._seen[layer] = _Seen(padding, total)

    def enter(self) -> None:
        """Draw the conclusions: a forward pass begins."""
        with _ONE_AT_A_TIME:
            if self._seen:
                self._conclude()
            if self._readings and all(entry.ready is None or entry.ready.query() for entry in self._readings):
                self._take_in()
            fresh = {layer: share for layer, share in self.shares.items() if layer not in self._told}
            self._told |= fresh.keys()
        if fresh:
            warnings.warn(f"{masked_gradient_finding(fresh)}; {ADVICE}", WtacrsWarning, stacklevel=2)

    def read(self) -> dict[str, float]:
        """`shares` with all that was seen so far; waits for the device."""
        with _ONE_AT_A_TIME:
            if self._seen:
                self._conclude()
            for entry in self._readings:
                if entry.ready is not None:
                    entry.ready.synchronize()
            self._take_in()
            return dict(self.shares)

    def state_dict(self) -> dict[str, float]:
        """Layers that use no mask any more, and why."""
        return self.read()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what `state_dict` returned; what it holds is not told again.

        Raises:
            InputError: if it is no such state.
        """
        check_misled(state)
        with _ONE_AT_A_TIME:
            self._seen, self._readings = {}, []
            self.shares = {layer: float(share) for layer, share in state.items()}
            self._misled = {layer: torch.tensor(True) for layer in state}
            self._told = set(state)

    def _conclude(self) -> None:
        concluded, self._seen = self._seen, {}
        layers = list(concluded)
        shares = torch.stack([seen.padding / seen.all for seen in concluded.values()]).clamp(max=1.0)
        if is_fake(shares):  # of a step without numbers
            return
        for layer, wrong in zip(layers, (shares > TOLERANCE).unbind(), strict=True):
            before = self._misled.get(layer)
            self._misled[layer] = wrong if before is None else before.to(wrong.device) | wrong
        if any(layer not in self.shares for layer in layers):
            self._readings.append(_on_its_way(layers, shares))

    def _take_in(self) -> None:
        for entry in self._readings:
            for layer, share in zip(entry.layers, entry.shares.tolist(), strict=True):
                if share > TOLERANCE:
                    self.shares.setdefault(layer, share)
                elif layer not in self.shares and not self._misled[layer].is_cuda:
                    self._misled.pop(layer)  # no mask to leave out: nothing to compute with
        self._readings = []


def check_misled(state: object, argument: str = "state['misled']") -> None:
    """Refuse what `MaskWatch.state_dict` cannot have returned.

    Raises:
        InputError: naming the entry, its value and what is accepted.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"{argument}={shown(state)} must be a dict of layers")
    for layer, share in state.items():
        if not is_number(share) or not 0 <= share <= 1:  # NaN is neither
            raise InputError(
                f"{argument}[{layer!r}]={shown(share)} must be a number from 0 to 1, the share of ‖dY‖²"
            )


def check_masked_gradient(value: object) -> None:
    """Refuse what is no `MaskedGradient`.

    Raises:
        InputError: naming what is accepted.
    """
    if value not in get_args(MaskedGradient):
        accepted = ", ".join(map(repr, get_args(MaskedGradient)))
        raise InputError(f"masked_gradient={value!r} must be one of {accepted}")


def padding_share(dy: Float[Tensor, "n m"], mask: Bool[Tensor, " n"]) -> float:
    """Share of ‖dY‖² in the rows that a mask calls padding; 0 where dY is 0."""
    padding, total = _padding_and_all(dy, mask)
    return min(float(padding / total), 1.0) if bool(total > 0) else 0.0


def _padding_and_all(dy: Float[Tensor, "n m"], mask: Bool[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Σ ‖y_i‖² over the rows called padding and over all, in one pass over dY and without a host synchronisation."""
    wide = torch.float64 if dy.dtype == torch.float64 else torch.float32
    squares = torch.linalg.vector_norm(dy, dim=1, dtype=wide).double().square()
    return torch.where(mask, 0.0, squares).sum(), squares.sum()


def _on_its_way(layers: list[str], shares: Tensor) -> _Reading:
    """On the CPU it is there already."""
    if not shares.is_cuda:
        return _Reading(layers, shares)
    host = torch.empty(shares.shape, dtype=shares.dtype, pin_memory=True)
    host.copy_(shares, non_blocking=True)
    ready = torch.cuda.Event()
    ready.record()
    return _Reading(layers, host, ready)
