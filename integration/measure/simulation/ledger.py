"""`Ledger`: all storages of a training step, when they are made and freed, by whom, and in which phase."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wtacrs.integration.layers.dynamic_classes import own_class
from wtacrs.integration.measure.memory import LiveBytes
from wtacrs.validation.patterns import pattern_of
from wtacrs.validation.records.owners import MODEL, OUTSIDE
from wtacrs.validation.records.simulation import AliveBytes, Phase

Place = Literal["device", "host"]
AT_WORK = "at work"
KEPT = "kept for the backward pass"
GRADIENTS = "gradients"
UPDATE = "update"


@dataclass(frozen=True)
class _Made:
    """A storage: its size, and what was running when it was made."""

    size: int
    phase: Phase
    module: str
    operation: str


@dataclass
class Peak:
    """The moment at which most is alive.

    Attributes:
        bytes: alive then, of what was made in the step.
        phase: what was running.
        alive: what is alive then, largest first.
        phases: the most that is alive in each phase.
        kept: alive when the forward pass has ended.
        host: the most that is alive on the host; `host_kept` when the forward pass has ended.
    """

    bytes: int = 0
    phase: Phase = "forward"
    alive: list[AliveBytes] = field(default_factory=list)
    phases: dict[Phase, int] = field(default_factory=dict)
    kept: int = 0
    host: int = 0
    host_kept: int = 0


class Ledger(LiveBytes):
    """Writes down every storage that is made under it, and when it is freed.

    Nothing is held, and no saved-tensor hook is needed: what is made in the forward pass and alive at its end is what the
    backward pass keeps.

    Args:
        model: whose modules are named.

    Attributes:
        phase: what is running now; the caller sets it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.phase: Phase = "forward"
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[nn.Module] = []
        self._operation = ""
        self._made: list[_Made] = []
        self._events: list[int | Phase] = []
        self._gradients: set[int] = set()
        self._host: set[int] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> Ledger:
        for module in self._names:
            self._handles.append(module.register_forward_pre_hook(self._enter_module))
            self._handles.append(module.register_forward_hook(self._leave_module, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and note its name."""
        before, self._operation = self._operation, func.overloadpacket.__name__
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._operation = before

    def begin(self, phase: Phase) -> None:
        """A phase of the step begins."""
        self.phase = phase
        self._events.append(phase)

    def note_gradients(self, tensors: Iterable[Tensor]) -> None:
        """Tell the ledger which storages are gradients of parameters."""
        self._gradients |= self._numbers(tensors)

    def note_host(self, tensor: Tensor) -> None:
        """Tell the ledger that a tensor lies on the host."""
        self._host |= self._numbers([tensor])

    def peak_of(self) -> Peak:
        """Go through the step again: the most that is alive, and what that is."""
        found, place = Peak(), -1
        device = host = 0
        phase: Phase = "forward"
        for at, event in enumerate(self._events):
            if isinstance(event, str):
                if phase == "forward":
                    found.kept, found.host_kept = device, host
                phase = event
                continue
            number = event if event >= 0 else ~event
            size = self._made[number].size if event >= 0 else -self._made[number].size
            if number in self._host:
                host += size
            else:
                device += size
            found.host = max(found.host, host)
            found.phases[phase] = max(found.phases.get(phase, 0), device)
            if device > found.bytes:
                found.bytes, found.phase, place = device, phase, at
        found.alive = self._alive_at(place)
        return found

    def _alive_at(self, place: int) -> list[AliveBytes]:
        kept = self._alive_after(self._end_of_forward())
        sizes: Counter[tuple[str, str, str]] = Counter()
        for number in self._alive_after(place) - self._host:
            made = self._made[number]
            kind = AT_WORK if number not in kept else KEPT
            if number in self._gradients:
                sizes[GRADIENTS, "", ""] += made.size
            else:
                sizes[kind, pattern_of(made.module), made.operation] += made.size
        return [
            AliveBytes(kind=kind, modules=modules, operation=operation, bytes=size)
            for (kind, modules, operation), size in sizes.most_common()
        ]

    def _end_of_forward(self) -> int:
        starts = [at for at, event in enumerate(self._events) if isinstance(event, str) and event != "forward"]
        return starts[0] if starts else len(self._events) - 1

    def _alive_after(self, place: int) -> set[int]:
        alive: set[int] = set()
        for event in self._events[: place + 1]:
            if isinstance(event, int):
                (alive.add if event >= 0 else alive.discard)(event if event >= 0 else ~event)
        return alive

    def _numbers(self, tensors: Iterable[Tensor]) -> set[int]:
        found = (self._known.get(tensor.untyped_storage()) for tensor in tensors)
        return {number for number in found if number is not None}

    def _new(self, storage: torch.UntypedStorage) -> None:
        number, size = len(self._made), storage.nbytes()
        self._known[storage] = number
        module = self._names[self._running[-1]] or MODEL if self._running else OUTSIDE
        self._made.append(_Made(size, self.phase, module, self._operation))
        self._events.append(number)
        self.now += size
        weakref.finalize(storage, self._freed, number).atexit = False

    def _freed(self, number: int) -> None:
        self._events.append(~number)
        self.now -= self._made[number].size

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        self._running.append(module)

    def _leave_module(self, *_: Any) -> None:
        self._running.pop()

    def __repr__(self) -> str:
        return f"Ledger({own_class(self._model).__name__}, {len(self._made)} storages)"
