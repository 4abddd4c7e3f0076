"""How a tensor came about, kept in place of the tensor where what it came from is kept anyway.

A norm keeps its input, and the linear layers after it keep its output: the same numbers twice. With a recipe they keep
the input as well, the same storage, and make the output again in their backward pass.

**Functions, not saved-tensor hooks.** Hooks around a model's forward pass would reach every stock operation. But torch
asks only the innermost hooks, so that ours would hide the user's (offloading, measurements) and be hidden by
checkpointing's; what a hook has packed has no version that autograd checks; and compiled code breaks at them. Here
whoever keeps a recipe is an autograd Function, and its leaves go through `save_for_backward`: hooks, offloading and
both kinds of checkpointing see them, and a change in place is refused as ever. The price: operations without a Function
of ours keep what they keep.

**Leaves are held weakly.** A recipe is worth something only while its leaves are kept anyway, and may not keep them
alive itself: the output of a checkpointed block lives on, the tensors inside are to be freed. So a recipe knows the
storage of a leaf, and has lapsed once that is gone. What a recipe owns itself, such as a copy of a norm's weight, is
small. (The weight itself may not be a leaf: `fully_shard` frees the weights of a block after use, and optimizers may
step within the backward pass. A linear layer that keeps the norm's output is not touched by either.)

**None within a checkpointed block.** There torch counts what is saved, and the recomputation must save the same; but
which leaves live differs between the two. Nothing is kept of such a block anyway; while it is recomputed its linear
layers keep their inputs. (Reentrant checkpointing recomputes in a backward pass of its own, with recipes.)

**Nothing is guessed.** A recipe is found by the very tensor, or the one that a view is of, and only while autograd's
version counter says that neither it nor a leaf has been changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import checkpoint
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary

Kind = Literal["cheap", "product"]
"""`cheap`: element by element, or row by row. `product`: a matrix product (q, k, v from what they are projected from)."""


class _Layout(NamedTuple):
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: Tensor) -> _Layout:
        return _Layout(tensor.size(), tensor.stride(), int(tensor.storage_offset()))


class _Leaf:
    """A tensor that something else keeps, or that the recipe owns."""

    def __init__(self, tensor: Tensor, *, owned: bool) -> None:
        tensor = tensor.detach() if owned else tensor
        self.owned = tensor if owned else None
        self._tensor = TensorWeakRef(tensor)
        self._version = tensor._version
        self._storage = StorageWeakRef(tensor.untyped_storage())
        self._layout, self._like = _Layout.of(tensor), (tensor.dtype, tensor.device)

    @property
    def key(self) -> Hashable:
        return self._storage, self._layout, self._like[0]

    def get(self) -> Tensor | None:
        """The tensor, or None if it is gone or was changed."""
        if self.owned is not None:
            return self.owned
        tensor = self._tensor()
        if tensor is not None:  # shares the version counter, so that autograd sees later changes
            return tensor.detach() if tensor._version == self._version else None
        storage = torch.UntypedStorage._new_with_weak_ptr(self._storage.cdata)
        if storage is None or storage.nbytes() == 0:
            return None
        dtype, device = self._like
        size, stride, offset = self._layout
        return torch.empty(0, dtype=dtype, device=device).set_(storage, offset, size, stride)


class _Autocast(NamedTuple):
    """State of autocast, under which a recipe runs as its operation did."""

    kind: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def now(kind: str) -> _Autocast:
        return _Autocast(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def __call__(self) -> torch.autocast:
        return torch.autocast(self.kind, self.dtype, self.enabled, cache_enabled=False)


class Recipe(NamedTuple):
    """`run(*inputs)` makes the tensor again.

    Attributes:
        run: of tensors and constants.
        inputs: leaves, recipes and constants.
        kind: what it costs.
        version: of the tensor when it came about.
        autocast: its state then.
    """

    run: Callable[..., Tensor]
    inputs: tuple[Any, ...]
    kind: Kind
    version: int
    autocast: _Autocast


class Owned(NamedTuple):
    """A small tensor that a recipe holds itself."""

    tensor: Tensor


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()


def register(output: Tensor, run: Callable[..., Tensor], *inputs: Any, kind: Kind = "cheap") -> None:
    """Remember, while `output` lives, that it is `run(*inputs)`, of the same dtype.

    Nothing is remembered of what needs no gradient (then nothing is kept) or does not lie in one piece.

    Args:
        output: plain tensor, as the operation returned it.
        run: must not draw random numbers, nor change its inputs.
        *inputs: tensors that something keeps anyway for the backward pass, or that have recipes; `Owned`; constants.
        kind: what it costs.
    """
    if not output.requires_grad or not output.is_contiguous() or output.storage_offset() or is_checkpointed():
        return
    found = tuple(_input(value) for value in inputs)
    autocast = _Autocast.now(output.device.type)
    _known[output] = Recipe(run, found, kind, output._version, autocast)


class Asked:
    """Whether anything has asked for the recipe of an output, or of what dropout has made of it.

    Attributes:
        by_any: whether something has.
    """

    def __init__(self) -> None:
        self.by_any = False


_watched: WeakIdKeyDictionary = WeakIdKeyDictionary()


def watch(output: Tensor, asked: Asked) -> None:
    """Note in `asked`, while `output` lives, that a Function would keep its recipe in its place; it need not have one."""
    _watched[output] = asked


def watch_too(output: Tensor, source: Tensor) -> None:
    """Watch what was made of a tensor that is watched."""
    asked = _watch_on(source)
    if asked is not None:
        _watched[output] = asked


def _watch_on(tensor: Tensor) -> Asked | None:
    base = tensor._base if tensor._is_view() else tensor
    found: Asked | None = None if base is None else _watched.get(base)
    return found


def is_checkpointed() -> bool:
    """Whether non-reentrant checkpointing runs a block, for the first time or again."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", None) == checkpoint.__name__


def _input(value: Any) -> Any:
    if isinstance(value, Owned):
        return _Leaf(value.tensor, owned=True)
    if not isinstance(value, Tensor):
        return value
    recipe = recipe_of(value)
    whole = recipe is not None and not value._is_view()
    return recipe if whole else _Leaf(value, owned=False)


def recipe_of(tensor: Tensor) -> Recipe | None:
    """The recipe of a tensor, or of the one that it is a view of; None if there is none, or the tensor was changed."""
    base = tensor._base if tensor._is_view() else tensor
    recipe = None if base is None else _known.get(base)
    return recipe if recipe is not None and recipe.version == tensor._version else None


class Packed(NamedTuple):
    """A tensor as the leaves of its recipe.

    Attributes:
        plan: how it is made of them; holds no tensor, so that a context that keeps it keeps nothing alive.
        leaves: for `save_for_backward`, every one once.
    """

    plan: Plan
    leaves: tuple[Tensor, ...]


class _Step(NamedTuple):
    run: Callable[..., Tensor]
    inputs: tuple[Any, ...]
    autocast: _Autocast


class _Place(NamedTuple):
    number: int


class Plan(NamedTuple):
    """How a tensor is made again of leaves."""

    step: _Step
    layout: _Layout

    def make(self, leaves: tuple[Tensor, ...]) -> Tensor:
        """The tensor again, without a graph."""
        with torch.no_grad():
            whole = _made(self.step, leaves).contiguous()
        size, stride, offset = self.layout
        return whole if _Layout.of(whole) == self.layout else whole.as_strided(size, stride, offset)


def packed(tensor: Tensor, *, products: bool = False) -> Packed | None:
    """What a Function keeps in place of a tensor; None where the tensor itself must be kept.

    Args:
        tensor: a plain tensor, or a view of one, that a recipe may be known of.
        products: whether recipes of kind "product" are followed too.
    """
    asked = _watch_on(tensor)
    if asked is not None:
        asked.by_any = True
    recipe = None if is_checkpointed() else recipe_of(tensor)
    if recipe is None:
        return None
    places: dict[Hashable, tuple[int, Tensor]] = {}
    step = _planned(recipe, products, places)
    if step is None:
        return None
    return Packed(Plan(step, _Layout.of(tensor)), tuple(leaf for _, leaf in places.values()))


def _planned(recipe: Recipe, products: bool, places: dict[Hashable, tuple[int, Tensor]]) -> _Step | None:
    if recipe.kind == "product" and not products:
        return None
    inputs: list[Any] = []
    for value in recipe.inputs:
        found = value
        if isinstance(value, Recipe):
            found = _planned(value, products, places)
        elif isinstance(value, _Leaf):
            found = _placed(value, places)
        if found is None and value is not None:
            return None
        inputs.append(found)
    return _Step(recipe.run, tuple(inputs), recipe.autocast)


def _placed(leaf: _Leaf, places: dict[Hashable, tuple[int, Tensor]]) -> _Place | None:
    if leaf.key not in places:
        tensor = leaf.get()
        if tensor is None:
            return None
        places[leaf.key] = len(places), tensor
    return _Place(places[leaf.key][0])


def _made(step: _Step, leaves: tuple[Tensor, ...]) -> Tensor:
    values = []
    for value in step.inputs:
        if isinstance(value, _Place):
            value = leaves[value.number]
        elif isinstance(value, _Step):
            value = _made(value, leaves)
        values.append(value)
    with step.autocast():
        return step.run(*values)
