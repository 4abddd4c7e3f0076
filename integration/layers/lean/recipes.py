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
small. (A norm's weight itself is no leaf: `fully_shard` frees the weights of a block after use, and optimizers may step
within the backward pass. A linear layer that keeps the norm's output is not touched by either.)

**Products.** The output of a linear layer, q, k or v, is a product of its input and its weight. The weight is too large
to copy, and is the leaf: it goes through `save_for_backward`, as a linear layer itself saves it, so that a step of the
optimizer before the backward pass is refused. Under `fully_shard` it is there again when the backward pass of its own
group runs; a layer that is a group by itself gives no recipe, and a leaf without memory is refused. A product is followed
once: what it is made of are leaves and cheap recipes.

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

from wtacrs.estimators.core.errors import InputError

Kind = Literal["cheap", "product"]
"""`cheap`: element by element, or row by row. `product`: a matrix product (q, k, v from what they are projected from)."""


class _Layout(NamedTuple):
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: Tensor) -> _Layout:
        return _Layout(tensor.size(), tensor.stride(), int(tensor.storage_offset()))


layout_of = _Layout.of


class Leaf:
    """A tensor that something else keeps, or that the recipe owns."""

    def __init__(self, tensor: Tensor, *, owned: bool) -> None:
        tensor = tensor.detach() if owned and tensor.requires_grad else tensor
        self.owned = tensor if owned else None
        self._tensor = TensorWeakRef(tensor)
        self._version = tensor._version
        self._storage = StorageWeakRef(tensor.untyped_storage())
        self._layout, self._like = _Layout.of(tensor), (tensor.dtype, tensor.device)

    @property
    def key(self) -> Hashable:
        """What leaves have in common that are kept once."""
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


class Autocast(NamedTuple):
    """State of autocast, under which a recipe runs as its operation did."""

    kind: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def now(kind: str) -> Autocast:
        """Of a type of device."""
        return Autocast(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def __call__(self) -> torch.autocast:
        """The state again."""
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
    autocast: Autocast


class Owned(NamedTuple):
    """A small tensor that a recipe holds itself."""

    tensor: Tensor


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()


def register(output: Tensor, run: Callable[..., Tensor], *inputs: Any, kind: Kind = "cheap") -> None:
    """Remember, while `output` lives, that it is `run(*inputs)`, of the same dtype.

    Nothing is remembered of what needs no gradient (then nothing is kept) or does not lie in one piece.

    Args:
        output: plain tensor, as the operation returned it, or a view of all of one.
        run: must not draw random numbers, nor change its inputs.
        *inputs: tensors that something keeps anyway for the backward pass, or that have recipes; `Owned`; constants.
        kind: what it costs.
    """
    base = output._base if output._is_view() else output
    if base is None or base.numel() != output.numel() or not base.is_contiguous() or base.storage_offset():
        return
    if not output.requires_grad or not output.is_contiguous() or is_checkpointed():
        return
    found = tuple(_input(value) for value in inputs)
    autocast = Autocast.now(output.device.type)
    recipe = Recipe(run, found, kind, output._version, autocast)
    _known[base] = recipe
    node: Any = output.grad_fn
    if kind == "product" and node is not None:
        node.metadata[_PRODUCT] = Product(recipe, _version_of(output))


class Product(NamedTuple):
    """A recipe as the node of autograd's graph that returned a tensor knows it.

    Attributes:
        recipe: of the tensor.
        version: tells by its `_version` of changes in place of the tensor; has no memory.
    """

    recipe: Recipe
    version: Tensor

    @staticmethod
    def of(node: Any) -> Recipe | None:
        """The recipe of what a node returned; None if there is none, or what it returned was changed."""
        found = node.metadata.get(_PRODUCT)
        return None if found is None or found.version._version != found.recipe.version else found.recipe


_PRODUCT = f"{__name__}.product"


def _version_of(tensor: Tensor) -> Tensor:
    alias = tensor.detach()
    alias.data = tensor.new_empty(0)  # which leaves the counter of versions shared
    return alias


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
        return Leaf(value.tensor, owned=True)
    if not isinstance(value, Tensor):
        return value
    recipe = recipe_of(value)
    whole = recipe is not None and not value._is_view()
    return recipe if whole else Leaf(value, owned=False)


def recipe_of(tensor: Tensor, *, products: bool = False) -> Recipe | None:
    """The recipe of a tensor, or of the one that it is a view of; None if there is none, or the tensor was changed.

    Args:
        tensor: any tensor.
        products: whether a recipe of kind "product" counts.
    """
    base = tensor._base if tensor._is_view() else tensor
    recipe = None if base is None else _known.get(base)
    if recipe is None or recipe.version != tensor._version or (recipe.kind == "product" and not products):
        return None
    return recipe


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
    autocast: Autocast


class Place(NamedTuple):
    """Of a leaf among leaves."""

    number: int


class Plan(NamedTuple):
    """How a tensor is made again of leaves.

    Attributes:
        step: that makes it, or what it is a view of.
        layout: in the memory of what the step makes; None if that is the tensor.
    """

    step: _Step
    layout: _Layout | None

    def make(self, leaves: tuple[Tensor, ...], made: dict[int, Tensor] | None = None) -> Tensor:
        """The tensor again, without a graph.

        Args:
            leaves: as they were kept.
            made: what several plans share; it is added to.
        """
        with torch.no_grad():
            whole = _made(self.step, leaves, {} if made is None else made)
        if self.layout is None:
            return whole
        whole = whole.contiguous()
        size, stride, offset = self.layout
        return whole if _Layout.of(whole) == self.layout else whole.as_strided(size, stride, offset)


class Planning:
    """Recipes turned into steps, and their leaves into places, each once."""

    def __init__(self) -> None:
        self._places: dict[Hashable, tuple[int, Tensor]] = {}
        self._steps: dict[int, tuple[Recipe, _Step]] = {}  # a recipe that is gone would leave its id to another

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Every one once, in the order of places."""
        return tuple(leaf for _, leaf in self._places.values())

    def step(self, recipe: Recipe) -> _Step | None:
        """None, and nothing is planned, where a leaf is gone or was changed."""
        before = dict(self._places), dict(self._steps)
        step = self._step(recipe)
        if step is None:
            self._places, self._steps = before
        return step

    def _step(self, recipe: Recipe) -> _Step | None:
        if id(recipe) in self._steps:
            return self._steps[id(recipe)][1]
        inputs: list[Any] = []
        for value in recipe.inputs:
            found = value
            if isinstance(value, Recipe):
                found = self._step(value)
            elif isinstance(value, Leaf):
                tensor = value.get()
                found = None if tensor is None else self.place(value.key, tensor)
            if found is None and value is not None:
                return None
            inputs.append(found)
        step = _Step(recipe.run, tuple(inputs), recipe.autocast)
        self._steps[id(recipe)] = recipe, step
        return step

    def place(self, key: Hashable, tensor: Tensor) -> Place:
        """Of a leaf."""
        if key not in self._places:
            self._places[key] = len(self._places), tensor
        return Place(self._places[key][0])


def packed(tensor: Tensor, *, products: bool = False) -> Packed | None:
    """What a Function keeps in place of a tensor; None where the tensor itself must be kept.

    Args:
        tensor: a plain tensor, or a view of one, that a recipe may be known of.
        products: whether recipes of kind "product" are followed too.
    """
    asked = _watch_on(tensor)
    if asked is not None:
        asked.by_any = True
    recipe = None if is_checkpointed() else recipe_of(tensor, products=products)
    if recipe is None:
        return None
    planning = Planning()
    step = planning.step(recipe)
    return None if step is None else Packed(Plan(step, _Layout.of(tensor)), planning.leaves)


def _made(step: _Step | Place, leaves: tuple[Tensor, ...], made: dict[int, Tensor]) -> Tensor:
    if isinstance(step, Place):
        return _living(leaves[step.number])
    if id(step) not in made:
        values = [
            _made(value, leaves, made) if isinstance(value, (Place, _Step)) else value for value in step.inputs
        ]
        with step.autocast():
            made[id(step)] = step.run(*values)
    return made[id(step)]


def _living(leaf: Tensor) -> Tensor:
    if leaf.numel() and not leaf.untyped_storage().nbytes():
        raise InputError(
            f"a tensor {list(leaf.shape)} that something is made again from in the backward pass has no memory by then; "
            "let fully_shard take attention and its projections as one group, or keep q, k, v (attention='keep')"
        )
    return leaf
