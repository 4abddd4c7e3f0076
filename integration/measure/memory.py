"""Bytes that a training step keeps for its backward pass, by type of layer, and the most that it has alive at once.

Measured, not computed: a saved-tensor hook sees what autograd keeps, and what is still alive when the forward pass has
ended is counted, every storage once. The hooks of modules say which of them was running. Storages that several types of
modules keep are told apart from those that one keeps: a linear layer that keeps less of an input which a ReLU keeps as
its output saves nothing, and exact query, key and value keep their one input once. Under autocast the casts of weights
are kept as well, exact or not; they have a row of their own.

What is not seen: buffers inside kernels, the allocator's rounding (on CUDA `peak` has it), and tensors that Python
objects outside the graph hold.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.sampling_state import misled_layers
from wtacrs.integration.layers.choice import made_of_argument
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS, checked_budget_of
from wtacrs.integration.layers.lean.convert import lean_
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.least_elements import checked_min_elements
from wtacrs.integration.layers.linear_layers import filter_of
from wtacrs.integration.measure.kept_bytes import training_layers
from wtacrs.integration.measure.saved_storages import (
    CASTS,
    SavedStorages,
    is_cast,
    storages_of,
    type_name,
    unpacked,
)
from wtacrs.integration.measure.track_memory import track_memory
from wtacrs.integration.parallel.wrappers import unwrapped
from wtacrs.validation.arguments import check_batch, check_flag, shown
from wtacrs.validation.properties.saved_for_backward import note_contexts
from wtacrs.validation.records.memory import StepMemory, TypeBytes
from wtacrs.validation.records.owners import KeptStorage, owner_bytes, shared_bytes

Batch = Mapping[str, Tensor]


def step_memory(
    model: nn.Module,
    batch: Batch,
    *,
    estimator: str = "exact",
    checkpointing: bool = False,
    precision: str = "fp32",
    layers: Sequence[str] | None = None,
    min_elements: int = MIN_ELEMENTS,
    owners: bool = False,
    lean: str | None = None,
    budget_of: str = "all-rows",
    min_rows: int = 0,
) -> StepMemory:
    """Take two training steps without an update, one for what is saved and one for the peak.

    The model is left as it was: stock, in its mode, with its gradients; so are torch's random numbers.

    Args:
        model: a stock transformers model, or a module whose output has a `loss`.
        batch: keyword arguments of its forward pass, on its device, labels included.
        estimator: a spec for the linear layers; "exact" converts none.
        checkpointing: recompute activations, block by block.
        precision: "fp32", or "bf16" for autocast.
        layers: patterns of the names of the layers to convert; None for all.
        min_elements: as in `approximate_`.
        owners: take a third step, for who holds what.
        lean: what neighbours of linear layers keep less of, in the words of `LeanOptions`; None for stock ones.
        budget_of: as in `approximate_`.
        min_rows: as in `approximate_`.

    Raises:
        InputError: on an unusable argument, where owners cannot be told (see `track_memory`), and if the model cannot
            checkpoint, does so already, or gives no loss.
    """
    min_elements = checked_min_elements(min_elements)
    unwrapped(model)  # which refuses what is no module
    check_batch(batch, "batch")
    if not batch or not all(isinstance(value, Tensor) for value in batch.values()):
        raise InputError(f"batch={shown(batch)} must hold tensors, and labels among them")
    made_of_argument(estimator)
    checked_budget_of(budget_of)
    options = None if lean is None else LeanOptions.parse(lean)
    check_flag(checkpointing, "checkpointing")
    check_flag(owners, "owners")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision={precision!r} must be 'fp32' or 'bf16'")
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise InputError(f"model={type(model).__name__}: its activation checkpointing is on already; turn it off")
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    mode = model.training
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), without_cache(model), checkpointed(model, checkpointing):
            neighbours = None if options is None else lean_(model, **options.arguments())
            converted = _convert(
                model.train(),
                estimator,
                layers,
                min_elements=min_elements,
                min_rows=min_rows,
                budget_of=budget_of,
            )
            saved = saved_by_type(model, lambda: loss_of(model, batch, precision), batch)
            model.zero_grad(set_to_none=True)
            peak = _peak(model, lambda: loss_of(model, batch, precision).backward())
            kept = _kept(model, lambda: loss_of(model, batch, precision).backward()) if owners else []
            misled = misled_layers(model)
    finally:
        restore_(model)
        model.train(mode)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
    return StepMemory(
        estimator=estimator,
        lean=None if options is None else str(options),
        checkpointing=checkpointing,
        converted=converted,
        saved=saved,
        peak=peak,
        masked_gradient=misled,
        owners=owner_bytes(kept, "pattern"),
        shared=shared_bytes(kept, "pattern"),
        stays={} if neighbours is None else neighbours.refused,
    )


def _convert(model: nn.Module, estimator: str, layers: Sequence[str] | None, **options: Any) -> int:
    if estimator == "exact":
        return 0
    approximate_(model, estimator, filter_fn=filter_of(model, layers), **options)
    return len(training_layers(model))


def loss_of(model: nn.Module, batch: Batch, precision: str) -> Tensor:
    """The loss of a forward pass, under autocast where `precision` is "bf16".

    Raises:
        InputError: if there is none.
    """
    device = next(iter(batch.values())).device.type
    with torch.enable_grad(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        loss = getattr(model(**batch), "loss", None)
    if not isinstance(loss, Tensor):
        raise InputError(f"batch: {type(model).__name__} gives no loss for {', '.join(batch)}; labels are needed")
    return loss


Keeper = tuple[nn.Module | None, str]
"""A module, and what is told of it."""


def saved_by_type(model: nn.Module, forward: Callable[[], Tensor], batch: Batch) -> list[TypeBytes]:
    """What one forward pass keeps for its backward pass, by type of module, largest first.

    Args:
        model: converted or not.
        forward: runs it, and returns the loss.
        batch: what is not counted, besides parameters and buffers.
    """
    running: list[nn.Module] = []

    def keeper(tensor: Tensor) -> Keeper:
        module = running[-1] if running else None
        return module, CASTS if is_cast(tensor, module) else type_name(module)

    saved = SavedStorages(keeper)
    with _noting_modules(model, running), torch.autograd.graph.saved_tensors_hooks(saved.pack, unpacked):
        loss = forward()
    note_contexts(loss.grad_fn, saved.note)
    apart = (*model.parameters(), *model.buffers(), *batch.values())
    known = {reference for tensor in apart for reference in storages_of(tensor)}
    sizes: Counter[tuple[str, ...]] = Counter()
    keepers: dict[tuple[str, ...], set[nn.Module | None]] = {}
    for size, found in saved.alive(known).values():
        types = tuple(sorted({name for _, name in found}))
        sizes[types] += size
        keepers.setdefault(types, set()).update(module for module, _ in found)
    return [TypeBytes(types=types, modules=len(keepers[types]), bytes=size) for types, size in sizes.most_common()]


@contextlib.contextmanager
def _noting_modules(model: nn.Module, running: list[nn.Module]) -> Iterator[None]:
    def enter(module: nn.Module, _: Any) -> None:
        running.append(module)

    def leave(*_: Any) -> None:
        running.pop()

    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _kept(model: nn.Module, step: Callable[[], None]) -> list[KeptStorage]:
    model.zero_grad(set_to_none=True)
    with track_memory(model) as tracked:
        step()
    return tracked.storages


def _peak(model: nn.Module, step: Callable[[], None]) -> int:
    with PeakWatch(model) as watch:
        step()
    return watch.peak


class PeakWatch:
    """The most bytes that are alive at once in what runs within: what was there before is not counted.

    Args:
        model: on whose device it runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._device = next(model.parameters()).device
        self._live = LiveBytes()
        self._before = 0
        self.peak = 0

    def __enter__(self) -> PeakWatch:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self._device) - self._before
        else:
            self._live.__exit__(*error)
            self.peak = self._live.peak


class LiveBytes(TorchDispatchMode):
    """Sums the storages that are made under it and not yet freed.

    Seen is what operators return, in the thread that runs them; on the CPU the backward pass runs there too.

    Attributes:
        now: bytes alive.
        peak: the largest sum so far.

    >>> with LiveBytes() as live:
    ...     x = torch.ones(1000)
    ...     y = (x + 1).sum()
    >>> live.now, live.peak
    (4004, 8004)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator; what it is given was there before, what it returns may be new."""
        for storage in _storages((args, kwargs)):
            self._known.setdefault(storage, None)
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage not in self._known:
                self._new(storage)
        self.peak = max(self.peak, self.now)
        return result

    def _new(self, storage: torch.UntypedStorage) -> None:
        self._known[storage] = None
        self.now += storage.nbytes()
        weakref.finalize(storage, self._free, storage.nbytes()).atexit = False

    def _free(self, size: int) -> None:
        self.now -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor) and leaf.device.type == "meta":
            continue  # a shape without memory
        if isinstance(leaf, Tensor) and leaf.layout is torch.sparse_coo:
            yield from _storages((leaf._indices(), leaf._values()))
        elif isinstance(leaf, Tensor):
            yield leaf.untyped_storage()


@contextlib.contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Keys and values for generation are of no use in training, and checkpointing cannot keep them."""
    found = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    before = [(config, config.use_cache) for config in found.values() if hasattr(config, "use_cache")]
    for config, _ in before:
        config.use_cache = False
    try:
        yield
    finally:
        for config, value in before:
            config.use_cache = value


@contextlib.contextmanager
def checkpointed(model: nn.Module, on: bool) -> Iterator[None]:
    """Recompute activations block by block within the block, if it is on.

    Raises:
        InputError: if the model cannot.
    """
    if not on:
        yield
        return
    if not can_checkpoint(model):
        raise InputError(f"checkpointing: {type(model).__name__} does not support it")
    # transformers 5 renames it on the way
    name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    options = {f"{name}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(model, f"{name}_checkpointing_enable")(**options)
    try:
        yield
    finally:
        getattr(model, f"{name}_checkpointing_disable")()
        getattr(
            model, "disable_input_require_grads", lambda: None
        )()  # hooks on the embeddings that the library leaves


def can_checkpoint(model: nn.Module) -> bool:
    """Whether a model says that its blocks can be run again in the backward pass."""
    return bool(getattr(model, "supports_gradient_checkpointing", False))
