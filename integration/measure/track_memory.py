"""Every tensor that a step of a loop of one's own keeps for its backward pass, with all that hold it.

>>> import torch
>>> from torch import nn
>>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
>>> with track_memory(model) as m:
...     model(torch.ones(4, 8)).square().sum().backward()
>>> m.kept  # the rectified rows, which the second layer keeps too, and the output of the model
160
>>> m.freed_by("1"), m.freed_by("[12]")
(0, 128)

A saved-tensor hook sees what autograd keeps, the hooks of modules say who was running, and the backward pass itself says
which operation asks for a tensor. What stands in the place of a saved tensor lives as long as the graph that holds it. It
is read when a backward pass begins, before anything is let go: what is told is what is alive then.

What is not seen: buffers inside kernels, what checkpointing holds outside the graph (keyword arguments, selected
outputs), Python numbers (8 bytes each), and what other threads run than the one that entered the block.
"""

from __future__ import annotations

import sys
import threading
import weakref
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.autograd import Function, Variable
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.recomputation import tensors_with_gradient
from wtacrs.integration.layers.dynamic_classes import own_class
from wtacrs.integration.measure import saved_hooks
from wtacrs.integration.measure.owners_table import owners_table
from wtacrs.integration.measure.saved_storages import (
    CASTS,
    Packed,
    SavedStorages,
    bytes_alive,
    is_cast,
    storages_of,
    type_name,
)
from wtacrs.integration.score_memory.gradient_norms import gradient_norms_of
from wtacrs.validation.arguments import check_kind
from wtacrs.validation.patterns import check_patterns
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.owners import MODEL, NOT_RUN, OUTSIDE, By, KeptStorage, Owner, OwnerBytes, within
from wtacrs.validation.records.track_memory import TrackedMemoryResult

CHECKPOINT = "checkpoint"
"""The operation that saves the inputs of a block that is recomputed."""
_REMEMBERED = 500_000
"""As many operations are known by number before the numbers of the past are let go: about a hundred passes of a T5."""
_APPLY = Function.apply.__func__.__code__  # type: ignore[attr-defined]
_NO_BACKWARD = "no backward pass has begun in the block for what was run in it"


def track_memory(model: nn.Module, *, optimizer: torch.optim.Optimizer | None = None) -> TrackedMemory:
    """Track what is kept for the backward passes that a `with` block runs, and by whom.

    Gradients, random numbers and errors are those of a run without the block, but for this: sampled layers in recomputed
    blocks that read one tensor (the source of cross-attention) draw rows of their own, since saved-tensor hooks give each
    block another object; the estimate is as unbiased. It costs time in the forward pass, and holds no tensor. On CUDA the
    peak of the allocator is reset when the block begins.

    Args:
        model: whose modules are told apart; the loss may be computed outside of it, and the block may run it often.
        optimizer: whose states are counted too.

    Raises:
        InputError: if `model` is no module; on entering, if another block is under way in this thread.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model={type(model).__name__}: an nn.Module is needed")
    if optimizer is not None and not hasattr(optimizer, "state"):
        raise InputError(f"optimizer={type(optimizer).__name__}: an object with a `state` is needed")
    return TrackedMemory(model, optimizer)


@dataclass(eq=False)
class _Save:
    """One tensor that was saved: by which module, in which operation.

    Attributes:
        number: of autograd for the operation; None if it is not known.
        operation: its name, once it is known.
        holder: what lives as long as the graph holds the tensor.
    """

    module: str
    type: str
    shape: list[int]
    dtype: str
    number: int | None
    operation: str | None
    holder: weakref.ref[Any] | None = None

    @property
    def alive(self) -> bool:
        return self.holder is not None and self.holder() is not None


@dataclass
class _Reading:
    """What was alive when a backward pass began."""

    kept: list[tuple[int, list[_Save]]]
    batch: int

    @property
    def total(self) -> int:
        return sum(size for size, _ in self.kept)


@dataclass
class _Rest:
    """Bytes beside what is kept, the most that was seen."""

    gradients: int = 0
    device_before: int | None = None
    device_peak: int | None = None


class TrackedMemory:
    """What `track_memory` found: complete when its block has ended.

    Attributes:
        reason: why nothing could be told; None if it could.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
        self.reason: str | None = _NO_BACKWARD
        self._model, self._optimizer = model, optimizer
        self._result: TrackedMemoryResult | None = None
        self._names: list[str] = []
        self._ledger: _Ledger | None = None

    def __repr__(self) -> str:
        return f"TrackedMemory({self.reason if self._result is None else f'{self.kept:,} bytes kept'})"

    @property
    def result(self) -> TrackedMemoryResult:
        """All of it as data, to be written as JSON.

        Raises:
            InputError: if nothing could be told: see `reason`.
        """
        if self._result is None:
            raise InputError(f"track_memory: {self.reason}")
        return self._result

    @property
    def kept(self) -> int:
        """Bytes kept for the backward pass; of several passes the most."""
        return self.result.total

    @property
    def storages(self) -> list[KeptStorage]:
        """All that is kept, largest first."""
        return list(self.result.kept)

    def owners(self, pattern: str = "*") -> list[KeptStorage]:
        """What a module and those within it hold, or all modules whose name fits a pattern.

        Raises:
            InputError: if the model has no such module.
        """
        self._check(pattern)
        return self.result.owners(pattern)

    def freed_by(self, pattern: str = "*", *, operation: str = "*", type: str = "*") -> int:
        """Bytes that only such owners hold: they would be freed if all of them let go.

        Args:
            pattern: of the modules' names; those within a module that fits count too.
            operation: pattern of the operations' names, as in `"Softmax*"`.
            type: pattern of the modules' classes; converted layers go by their stock class.

        Raises:
            InputError: if the model has no such module.
        """
        self._check(pattern)
        return self.result.freed_by(pattern, operation=operation, type=type)

    def by(self, by: By = "module") -> list[OwnerBytes]:
        """Bytes by module, by pattern of its name, by operation or by type, largest first."""
        return self.result.by(by)

    def table(self, by: By = "pattern", rows: int = 20) -> Table:
        """The largest owners as a table for the terminal, for `rich.print`; the totals stand below."""
        return owners_table(self.result, by=by, rows=rows)

    def _check(self, pattern: str) -> None:
        check_kind(pattern, "pattern", str)
        result = self.result
        held = {owner.module for entry in result.kept for owner in entry.owners}
        if not any(within(name, pattern) for name in held):
            check_patterns([pattern], self._names, what="modules", argument="pattern", synonyms=[MODEL, OUTSIDE])

    def __enter__(self) -> TrackedMemory:
        if _Ledger.under_way():
            raise InputError(
                "track_memory: a block is under way in this thread; leave it before another one begins"
            )
        if self._ledger is not None:
            raise InputError("track_memory: this block has been used; call track_memory for another one")
        self._names = [name or MODEL for name, _ in self._model.named_modules()]
        self._ledger = _Ledger(self._model)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ledger is not None
        self._ledger.end()
        self.reason = self._ledger.reason or (None if self._ledger.best else _NO_BACKWARD)
        if self.reason is None:
            self._result = _result(self._model, self._optimizer, self._ledger)


@dataclass(eq=False)
class _Ledger:
    """The hooks of a block, and what they have seen."""

    model: nn.Module
    reason: str | None = None
    best: _Reading | None = None
    backward_passes: int = 0
    rest: _Rest = field(default_factory=_Rest)

    def __post_init__(self) -> None:
        self._thread = threading.get_ident()
        self._saved = SavedStorages(self._keeper)
        self._names = {module: name or MODEL for name, module in self.model.named_modules()}
        self._running: list[nn.Module] = []
        self._starts: tuple[list[int], list[nn.Module | None]] = ([], [])
        self._operations: dict[int, str] = {}
        self._saving: tuple[int | None, str | None] = (None, None)
        self._under_way = self._ended = False
        self._apart = self._own()
        self._batch: set[StorageWeakRef] = set()
        self._handles: list[Any] = []
        self.reason = saved_hooks.compiled(self.model) or saved_hooks.foreign_hooks()
        self._device = next((p.device for p in self.model.parameters() if p.device.type == "cuda"), None)
        if self._device is not None:
            self.rest.device_before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        self._pack, self._unpack = self.pack, self.unpack
        if self.reason is None:
            for module in self._names:
                self._handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                self._handles.append(module.register_forward_hook(self._leave, always_call=True))
            saved_hooks.push(self._pack, self._unpack)

    @staticmethod
    def under_way() -> bool:
        """Whether the hooks on top are those of a block."""
        top: Any = torch._C._autograd._top_saved_tensors_default_hooks(True)
        return top is not None and isinstance(getattr(top[0], "__self__", None), _Ledger)

    def end(self) -> None:
        """Take all hooks off."""
        self._ended = True
        if self._handles:
            saved_hooks.pop(self._pack)
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._running.clear()
        self._note_gradients()
        if self._device is not None:
            self.rest.device_peak = torch.cuda.max_memory_allocated(self._device)

    def pack(self, tensor: Tensor) -> Packed:
        """The hook of the forward pass."""
        self._saving = (self._number(), _saving_function(sys._getframe(1)))
        packed = self._saved.pack(tensor)
        packed.keeper.holder = weakref.ref(packed)
        return packed

    def unpack(self, packed: Packed) -> Tensor:
        """The hook of the backward pass: the first one that asks begins it; each names the operation that asks."""
        if not self._ended and saved_hooks.in_a_backward_pass():
            node = torch._C._current_autograd_node()
            self._begin_backward(node)
            if node is not None and packed.keeper.operation is None:
                packed.keeper.operation = node.name()
        return packed.unpack()

    def kept(self) -> list[KeptStorage]:
        """The largest reading, by storage, largest first."""
        found = []
        for size, saves in [] if self.best is None else self.best.kept:
            owners = {(save.module, save.type, self._operation(save)) for save in saves}
            found.append(
                KeptStorage(
                    bytes=size,
                    shape=saves[0].shape,
                    dtype=saves[0].dtype,
                    owners=[Owner(module=m, type=t, operation=o) for m, t, o in sorted(owners)],
                )
            )
        return sorted(found, key=lambda entry: -entry.bytes)

    def _operation(self, save: _Save) -> str:
        known = None if save.number is None else self._operations.get(save.number)
        return save.operation or known or NOT_RUN

    def _number(self) -> int | None:
        """Of the operation that is being recorded, of which autograd counts those of each thread."""
        if threading.get_ident() != self._thread:
            return None
        return int(torch._C._autograd._get_sequence_nr()) - 1

    def _keeper(self, tensor: Tensor) -> _Save:
        number, operation = self._saving
        module = self._running[-1] if self._running and threading.get_ident() == self._thread else None
        return self._save(module, tensor, number, operation)

    def _save(self, module: nn.Module | None, tensor: Tensor, number: int | None, operation: str | None) -> _Save:
        return _Save(
            OUTSIDE if module is None else self._names[module],
            CASTS if is_cast(tensor, module) else type_name(module),
            list(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            number,
            operation,
        )

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        # weights that `fully_shard` has gathered are the module's parameters only now
        self._apart |= saved_hooks.references(module.parameters(recurse=False))
        self.reason = self.reason or saved_hooks.foreign_hooks(self._pack)
        if module is self.model:
            given = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
            self._batch |= saved_hooks.references(leaf for leaf in given if leaf.grad_fn is None)
        self._running.append(module)
        self._note_start()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() != self._thread or not self._running:
            return
        self._running.pop()
        self._note_start()
        if module is not self.model or output is None or saved_hooks.in_a_backward_pass():
            return
        for tensor in tensors_with_gradient(output):
            self._learn(tensor.grad_fn)
            self._handles.append(tensor.register_hook(self._reached))

    def _note_start(self) -> None:
        """Which module records the operations from here on."""
        numbers, modules = self._starts
        numbers.append(int(torch._C._autograd._get_sequence_nr()))
        modules.append(self._running[-1] if self._running else None)

    def _module_at(self, number: int) -> nn.Module | None:
        numbers, modules = self._starts
        place = bisect_right(numbers, number)
        return modules[place - 1] if place else None

    def _learn(self, node: Any) -> None:
        """The names of the operations below a node, and the tensors that autograd Functions hold as attributes."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            number = None if node is None else node._sequence_nr()
            # leaves have no number of their own, and nothing saved
            if number is None or number >= 2**63 or number in self._operations:
                continue
            self._operations[number] = node.name()
            self._note_attributes(node, number)
            waiting.extend(following for following, _ in node.next_functions)

    def _note_attributes(self, node: Any, number: int) -> None:
        for value in getattr(node, "__dict__", {}).values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, Tensor):
                    save = self._save(self._module_at(number), item, number, node.name())
                    save.holder = weakref.ref(node)
                    self._saved.enter(item, save)

    def _reached(self, _: Tensor) -> None:
        if not self._ended:
            self._begin_backward(None)

    def _begin_backward(self, node: Any) -> None:
        """Read once in a backward pass; what it runs within itself, as reentrant checkpointing does, is part of it."""
        if self._under_way:
            return
        self._under_way = True
        Variable._execution_engine.queue_callback(self._end_backward)
        if threading.get_ident() == self._thread:
            self._learn(node)
        self._read()

    def _end_backward(self) -> None:
        self._under_way = False
        if not self._ended:
            self._note_gradients()

    def _read(self) -> None:
        self.backward_passes += 1
        self._apart |= self._own()
        kept = []
        for storage in self._saved.alive(self._apart | self._batch).values():
            saves = [save for save in storage.keepers if save.alive]
            if saves:
                kept.append((storage.bytes, sorted(saves, key=lambda save: save.number or 0)))
        reading = _Reading(kept, sum(bytes_alive(reference) for reference in self._batch))
        if self.best is None or reading.total > self.best.total:
            self.best = reading
        self._saved.forget_freed()
        if len(self._operations) > _REMEMBERED:
            self._forget_operations()

    def _forget_operations(self) -> None:
        """Enter the names of operations where they are needed, and let go the others: a block may hold a long loop."""
        waiting = [save for storage in self._saved.alive().values() for save in storage.keepers]
        told = [] if self.best is None else [save for _, saves in self.best.kept for save in saves]
        for save in (*waiting, *told):
            if save.operation is None and save.number is not None:
                save.operation = self._operations.get(save.number)
        self._operations.clear()
        self._starts = ([], [])
        self._note_start()

    def _own(self) -> set[StorageWeakRef]:
        return saved_hooks.references((*self.model.parameters(), *self.model.buffers()))

    def _note_gradients(self) -> None:
        gradients = (p.grad for p in self.model.parameters() if p.grad is not None)
        self.rest.gradients = max(self.rest.gradients, bytes_of(gradients))


def _saving_function(frame: FrameType) -> str | None:
    """What saves in Python, by the frame that calls the hook; None for an operation of torch, which has no frame.

    What checkpointing saves is in no graph, and is asked for by whatever operation needs it first.
    """
    function = frame.f_locals["cls"] if frame.f_code is _APPLY else None
    module = frame.f_globals.get("__name__") if function is None else function.__module__
    if module == "torch.utils.checkpoint":
        return CHECKPOINT
    return None if function is None else f"{function.__name__}Backward"


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, every storage once."""
    return sum(bytes_alive(reference) for reference in {r for tensor in tensors for r in storages_of(tensor)})


def _result(model: nn.Module, optimizer: Any, ledger: _Ledger) -> TrackedMemoryResult:
    memory = gradient_norms_of(model)
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    states = (
        None if optimizer is None else (x for x in tree_leaves(dict(optimizer.state)) if isinstance(x, Tensor))
    )
    return TrackedMemoryResult(
        stamp=stamp(seed=None, device=device),
        model=own_class(model).__name__,
        kept=ledger.kept(),
        backward_passes=ledger.backward_passes,
        parameters=bytes_of(model.parameters()),
        buffers=bytes_of(model.buffers()),
        gradients=ledger.rest.gradients,
        batch=0 if ledger.best is None else ledger.best.batch,
        optimizer=None if states is None else bytes_of(states),
        score_memory=0 if memory is None else memory.nbytes,
        device_peak=ledger.rest.device_peak,
        device_before=ledger.rest.device_before,
    )
