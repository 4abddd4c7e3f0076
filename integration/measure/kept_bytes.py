"""What a model keeps for its backward pass in one real forward pass, and what its stock layers would keep in its place.

Saved-tensor hooks see every storage that autograd keeps, and which converted layer kept it (`SavedStorages`). Nothing is
compressed, drawn or run once more: what the stock layers would keep is what is left without the converted layers, and
their inputs. An input that something else keeps anyway, as ReLU keeps its output, is in both sums, once.

Read is the balance at the moment when the backward pass reaches the model: by then the caller has let go what it will.

What is not seen: buffers inside kernels, the loss where the model does not compute it, and what selective checkpointing
holds outside the graph.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves

from wtacrs.estimators import Estimator
from wtacrs.integration.context.freed_bytes import StockInput, stock_input
from wtacrs.integration.context.recomputation import tensors_with_gradient
from wtacrs.integration.layers.compression import autocast_dtype
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.lean.convert import LeanConversion
from wtacrs.integration.layers.lean.head import LeanHead
from wtacrs.integration.layers.linear_layers import is_linear_layer
from wtacrs.integration.measure.saved_hooks import (
    compiled,
    foreign_hooks,
    in_a_backward_pass,
    pop,
    push,
    references,
)
from wtacrs.integration.measure.saved_storages import SavedStorages, Storage, is_cast, type_name, unpacked
from wtacrs.validation.layers.candidates import stored_bytes
from wtacrs.validation.patterns import pattern_of
from wtacrs.validation.properties.saved_for_backward import note_contexts
from wtacrs.validation.records.owners import MODEL, OUTSIDE
from wtacrs.validation.records.receipt import Holder, Receipt

logger = logging.getLogger(__name__)
_HOLDERS = 3
_NOT_SEEN = (
    "no forward pass with gradients was seen: none was run, or a compiled one, or one within a backward pass"
)


@dataclass(frozen=True)
class LayerBytes:
    """Bytes of one layer in one forward pass, all its calls together.

    Attributes:
        kept: by its estimator; a copy that several layers share counts for the first.
        freed: of its input, which the stock layer would keep; 0 where something else keeps it anyway. An input that
            several layers read counts for the first.
    """

    kept: int = 0
    freed: int = 0


class DrawnSample(NamedTuple):
    """What one sample was drawn from: an input `[n, d]` in a dtype."""

    estimator: Estimator
    shape: tuple[int, int]
    dtype: torch.dtype


@dataclass(frozen=True)
class KeptBytes:
    """Bytes of one forward pass of a model.

    Attributes:
        kept: for the backward pass, by all of the model; parameters, buffers and the batch are left out.
        exact: what the stock model would keep; of a lean model, what stock linear layers would beside its neighbours.
        layers: converted layers that ran and train by estimates.
        samples: that they drew, by estimator, shape and dtype; one for layers that share it.
        inputs: bytes of what they were drawn from, whoever else keeps it; the batch is left out.
        holders: modules that keep something for other reasons, by their names with `*` for numbers and their class,
            largest first; what several keep counts for each.
    """

    kept: int
    exact: int
    layers: dict[str, LayerBytes]
    samples: tuple[DrawnSample, ...] = ()
    inputs: int = 0
    holders: tuple[tuple[str, int], ...] = ()

    @property
    def promised(self) -> int | None:
        """Bytes that the estimators keep of such shapes, whatever is alive; None if one cannot tell without values."""
        try:
            with torch.random.fork_rng(devices=[]):
                return sum(stored_bytes(*sample) for sample in self.samples)
        except Exception:
            logger.debug("an estimator cannot be run on tensors without values", exc_info=True)
            return None

    @property
    def receipt(self) -> Receipt:
        """Promised beside real bytes, as data."""
        return Receipt(
            layers=len(self.layers),
            promised=self.promised,
            inputs=self.inputs,
            copies=sum(entry.kept for entry in self.layers.values()),
            freed=sum(entry.freed for entry in self.layers.values()),
            kept=self.kept,
            exact=self.exact,
            holders=[Holder(modules=name, bytes=size) for name, size in self.holders[:_HOLDERS]],
        )

    @property
    def share(self) -> float:
        """Of what the stock model would keep: above 1 where the conversion costs."""
        return self.kept / self.exact if self.exact else 1.0


def lean_receipt(receipt: Receipt, lean: str | None, conversion: LeanConversion | None) -> Receipt:
    """A receipt that says what was to be lean, and which parts stay stock all the same.

    Args:
        receipt: of `KeptBytes`.
        lean: what was asked for, in the words of `LeanOptions`; None for nothing.
        conversion: what `lean_` returned.
    """
    stays = {} if conversion is None else conversion.refused
    return receipt.model_copy(update={"lean": lean, "stays": stays})


def training_layers(model: nn.Module) -> list[str]:
    """Names of the converted layers whose dW is estimated: not those with a frozen weight or the estimator `exact`."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, EstimatedWeightGrad | LeanHead) and _trains(layer) and _is_estimated(layer.estimator)
    ]


def _is_estimated(estimator: Estimator | None) -> bool:
    return estimator is not None and estimator.traits.family != "exact"


def _trains(layer: nn.Module) -> bool:
    weight = layer._parameters.get("weight")
    if weight is not None:
        return weight.requires_grad
    return any(parameter.requires_grad for parameter in layer.parameters())  # of which a weight is computed


class KeptBytesProbe:
    """Measures the next forward pass with gradients of a model, and then leaves; what it computes is not changed.

    Only where recomputed blocks read one tensor (see `track_memory`) are other rows drawn.

    Between measurements there is no hook. Where it cannot measure it says why: where saved-tensor hooks of the user are
    active, which alone know what they keep, and where the weight of a converted layer is computed by a parametrization.
    Compiled models and passes that a backward pass runs again are not measured either.

    Args:
        model: whose `forward` it waits for.

    Attributes:
        found: what was measured, once a backward pass has begun; at once if none can.
        reason: why nothing was.
    """

    def __init__(self, model: nn.Module) -> None:
        self.found: KeptBytes | None = None
        self.reason: str | None = _NOT_SEEN
        self._pass: _Pass | None = None
        self._depth = 0
        self._thread: int | None = None
        self._handles: list[Any] = [
            model.register_forward_pre_hook(self._enter, with_kwargs=True),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or in_a_backward_pass():
            return
        if self._depth and self._thread != threading.get_ident():
            return
        self._depth, self._thread = self._depth + 1, threading.get_ident()
        if self._depth > 1:
            return
        self.reason = compiled(module) or foreign_hooks()
        if self.reason is None:
            self._pass = _Pass(module, (args, kwargs))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._depth == 0 or self._thread != threading.get_ident():
            return
        self._depth -= 1
        if self._depth:
            return
        self.remove()
        if self._pass is None:
            return
        self._pass.end()
        if output is None:
            self._pass, self.reason = None, "the forward pass has failed, or returns nothing"
            return
        outputs = list(tensors_with_gradient(output))
        for tensor in outputs:
            if tensor.grad_fn is not None:
                note_contexts(tensor.grad_fn, self._pass.saved.note)
        self.reason = "no backward pass has reached the model's output"
        self._handles = [tensor.register_hook(self._read) for tensor in outputs]
        if not outputs:
            self._read()

    def _read(self, _: Tensor | None = None) -> None:
        self.remove()
        if self._pass is not None:
            self.reason, self.found = self._pass.reason, self._pass.read()
            self._pass = None


class _Keeper(NamedTuple):
    """What saved a tensor: a call of a converted layer that samples, or another; a cast of its weight or not."""

    call: _Call | None
    cast: bool
    modules: str


@dataclass(eq=False)
class _Call:
    """One call of a converted layer that samples: what the stock layer would keep, and what was saved in it."""

    layer: str
    input: StockInput
    weight: StockInput | None
    saved: list[weakref.ref[Tensor]] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether its part of the graph still is: not in a block that is recomputed, not without use."""
        return any(reference() is not None for reference in self.saved)


class _Pass:
    """The hooks within one forward pass, and what they have seen."""

    def __init__(self, model: nn.Module, batch: Any) -> None:
        self.reason: str | None = None
        self.saved = SavedStorages(self._keeper)
        self._thread = threading.get_ident()
        self._model = model
        self._names = {module: name for name, module in model.named_modules()}
        self._patterns = {module: _told(module, name) for module, name in self._names.items()}
        self._running: list[tuple[nn.Module, _Call | None]] = []
        self._samples: list[DrawnSample] = []
        self._calls: list[_Call] = []
        self._estimated: dict[str, None] = {}
        self._cast_anyway: set[Hashable] = set()
        self._apart = references(leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
        self._handles: list[Any] = []
        for module in self._names:
            if module is not model:
                self._handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                self._handles.append(module.register_forward_hook(self._leave, always_call=True))
        self._pack = self.saved.pack
        push(self._pack, unpacked)
        self._enter(model, *batch)

    def end(self) -> None:
        """Take all hooks off."""
        pop(self._pack)
        self._running.clear()
        for handle in self._handles:
            handle.remove()
        self._apart |= references((*self._model.parameters(), *self._model.buffers()))

    def read(self) -> KeptBytes | None:
        """The balance now; None where something hides a part of it."""
        if self.reason is not None:
            return None
        alive = self.saved.alive(self._apart)
        calls = [call for call in self._calls if call.alive]
        elsewhere = {key for key, found in alive.items() if any(keeper.call is None for keeper in found.keepers)}
        stock = {
            found.key: found.bytes
            for call in calls
            for found in (call.input, call.weight)
            if found is not None and found.key not in self._apart and found.key not in elsewhere
        }
        others = sum(alive[key].bytes for key in elsewhere)
        alone = sum(found.bytes for key, found in alive.items() if key not in elsewhere)
        inputs = {call.input.key: call.input.bytes for call in calls if call.input.key not in self._apart}
        held = sum(size for key, size in stock.items() if _is_alive(key) and key not in alive)
        return KeptBytes(
            kept=others + alone + held,
            exact=others + sum(size for key, size in stock.items() if key not in self._cast_anyway),
            layers=self._by_layer(calls, alive, elsewhere),
            samples=tuple(self._samples),
            inputs=sum(inputs.values()),
            holders=_holders(alive.values()),
        )

    def _by_layer(
        self, calls: list[_Call], alive: dict[StorageWeakRef, Storage], elsewhere: set[StorageWeakRef]
    ) -> dict[str, LayerBytes]:
        kept, freed = dict.fromkeys(self._estimated, 0), dict.fromkeys(self._estimated, 0)
        order = {call: place for place, call in enumerate(self._calls)}
        for key, found in alive.items():
            keepers = [call for call, cast, _ in found.keepers if call is not None and not cast]
            if key not in elsewhere and keepers:
                kept[min(keepers, key=order.__getitem__).layer] += found.bytes
        seen: set[Hashable] = set()
        for call in calls:
            if call.input.key not in seen and call.input.key not in self._apart and not call.input.alive:
                seen.add(call.input.key)
                freed[call.layer] += call.input.bytes
        return {layer: LayerBytes(kept[layer], freed[layer]) for layer in self._estimated}

    def _keeper(self, tensor: Tensor) -> _Keeper:
        module, call = self._running[-1] if self._running else (None, None)
        modules = OUTSIDE if module is None else self._patterns[module]
        if call is None:
            return _Keeper(None, False, modules)
        call.saved.append(weakref.ref(tensor))
        return _Keeper(call, is_cast(tensor, module), modules)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        # weights that `fully_shard` has gathered are the module's parameters only now
        self._apart |= references(module.parameters(recurse=False))
        self.reason = self.reason or foreign_hooks(self._pack)
        self._running.append((module, self._call_of(module, (*args, *kwargs.values()))))

    def _leave(self, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self._running.pop()

    def _call_of(self, module: Any, inputs: tuple[Any, ...]) -> _Call | None:
        if not is_linear_layer(module) or not inputs or not isinstance(inputs[0], Tensor):
            return None
        x = inputs[0]
        if isinstance(module, EstimatedWeightGrad):
            if is_parametrized(module, "weight"):
                self.reason = f"the weight of {self._names[module]!r} is computed by a parametrization"
                return None
            with torch.enable_grad():
                if module.samples(x):
                    self._estimated.setdefault(self._names[module])
            if module.samples(x):
                dtype = autocast_dtype(x)
                if not module.finds_shared(x):
                    shape = x.numel() // x.shape[-1], x.shape[-1]
                    self._samples.append(DrawnSample(module.estimator_for(x), shape, dtype))
                self._calls.append(
                    _Call(self._names[module], stock_input(x, dtype), _stock_weight(module, x, dtype))
                )
                return self._calls[-1]
        if not is_parametrized(module, "weight"):
            weight = _stock_weight(module, x, autocast_dtype(x))
            self._cast_anyway |= set() if weight is None else {weight.key}
        return None


def _stock_weight(layer: Any, x: Tensor, dtype: torch.dtype) -> StockInput | None:
    """What a stock layer keeps for dX: its weight, or under autocast the cast of it."""
    return stock_input(layer.weight, dtype) if x.requires_grad else None


def _told(module: nn.Module, name: str) -> str:
    return f"{pattern_of(name)} ({type_name(module)})" if name else MODEL


def _holders(alive: Iterable[Storage]) -> tuple[tuple[str, int], ...]:
    sizes: Counter[str] = Counter()
    for found in alive:
        for modules in {keeper.modules for keeper in found.keepers if keeper.call is None}:
            sizes[modules] += found.bytes
    return tuple(sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])))


def _is_alive(key: Hashable) -> bool:
    return isinstance(key, StorageWeakRef) and not key.expired()
