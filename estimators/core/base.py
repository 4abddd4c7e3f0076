"""The protocol of the zoo: two verbs, `compress` in the forward pass and `contract` in the backward pass.

The weight gradient of a linear layer is `G = dYᵀ X` (`[m, d]`, the layout of `nn.Linear.weight.grad`), a sum of
n column-row pairs `y_i x_iᵀ`. `X [n, d]` is in hand in the forward, `dY [n, m]` only in the backward; what
`compress` returns is all that may live in between.

Properties, checked by `wtacrs.validation.properties.checks` for every registered estimator:

1. `contract(compress(x), dy)` has shape `[m, d]` and the dtype of the exact product.
2. If `traits.linear_in_dy`, it is linear in `dy` for a fixed `saved`; in its mean only where the product itself is
   rounded (see `dithered_rows`, below fp64).
3. If `traits.unbiased`, its mean is `dy.T @ x` whenever every row with a non-zero pair has a positive score.
4. If `traits.deterministic`, no random number is drawn; otherwise the draw is a function of (spec, generator
   state, device) alone and the generator advances.
5. If `traits.exact_at_full_budget`, keeping all rows gives the exact product.
6. The shapes of `saved` depend on the shape of `x` only, never on its values.
7. `macs(n, d, m)`, where it is stated, is what the matrix products of both verbs run.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from importlib import import_module
from typing import Any, ClassVar, Generic, SupportsIndex, TypeVar, get_args

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.estimators.core.references import written
from wtacrs.estimators.core.scores import joint_norms, sampling_scores

SavedT = TypeVar("SavedT", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Traits:
    """What an estimator promises; the properties that are checked follow from it.

    Attributes:
        family: "exact", "rows", "sketch", "projection", "rounding" or "composite".
        unbiased: the mean is the exact product for every input and every positive score.
        deterministic: no random numbers are drawn.
        uses_scores: the sizes of the scores change the result.
        exact_at_full_budget: with k = n rows the product is exact.
        uses_support: rows of score 0 are left out although the sizes of the others do not matter.
        linear_in_dy: for one compressed activation the estimate is linear in dy; not so if rows are drawn by their dy.
    """

    family: str
    unbiased: bool
    deterministic: bool
    uses_scores: bool
    exact_at_full_budget: bool
    uses_support: bool = False
    linear_in_dy: bool = True

    @property
    def leaves_out_zeros(self) -> bool:
        """Whether rows of score 0 never touch the estimate."""
        return self.uses_scores or self.uses_support


@dataclass(frozen=True)
class Published:
    """Where a method comes from, and whether its mean is the exact product in the form in which it was published.

    That form need not be the one of the estimator, whose mean `traits.unbiased` and its docstring tell.

    Attributes:
        source: authors and year, with the number on arXiv where there is one; "this project" for what is its own.
        unbiased: of the published form; None where no form of it was published.
        note: what differs here, if the published form has another mean.
    """

    source: str
    unbiased: bool | None
    note: str = ""

    @property
    def verdict(self) -> str:
        """What the published form is, in a word or two.

        >>> Published("Eckart & Young 1936", unbiased=False).verdict
        'biased'
        """
        return {True: "unbiased", False: "biased", None: "not published"}[self.unbiased]


class _ClassName:
    """The name of a class that has not been registered."""

    def __get__(self, instance: object, owner: type) -> str:
        return owner.__name__


class Estimator(ABC, Generic[SavedT]):
    """An estimator of `dy.T @ x`; concrete ones are frozen dataclasses whose fields are hyper-parameters.

    Instances are stateless and hashable, and `repr` is the spec string: `make(spec(e)) == e`. So fields hold plain
    values: a scalar of numpy or torch becomes a Python number before `__post_init__` looks at it.
    """

    name: ClassVar[str] = _ClassName()  # type: ignore[assignment]
    traits: ClassVar[Traits]
    # of a class that was found by reference; a class derived from it has one of its own
    reference: ClassVar[str | None] = None
    # None only outside this package: an estimator of its registry says it
    published: ClassVar[Published | None] = None
    # for one that wraps another and draws nothing itself: the field that draws, so that enumeration can list it there
    random_part: ClassVar[str | None] = None
    # the NamedTuple of `compress`, where the class says it as the argument of its base
    saved_type: ClassVar[type[tuple[Any, ...]] | None] = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        said = (part for base in vars(cls).get("__orig_bases__", ()) for part in get_args(base))
        cls.saved_type = next((t for t in said if isinstance(t, type) and issubclass(t, tuple)), cls.saved_type)
        own = vars(cls).get("__post_init__")
        if own is not None:
            cls.__post_init__ = _after_plain_fields(own)  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Write plain values; a subclass that checks its fields in its own `__post_init__` need not call this."""
        _make_fields_plain(self)

    @abstractmethod
    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> SavedT:
        """Decide what to keep of `x` and return it as a NamedTuple of tensors.

        Args:
            x: fp64, fp32, bf16 or fp16; not modified.
            scores: finite values ≥ 0, the assumed size of each pair; default the row norms of `x`.
            generator: source of randomness on the device of `x`; torch's default generator if None.

        Raises:
            InputError: if `x` is not a floating-point matrix or the scores are unusable.
        """

    @abstractmethod
    def contract(self, saved: SavedT, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """Finish the product: an estimate of `dy.T @ x` from what `compress` kept.

        Raises:
            InputError: if `dy` does not have as many rows as the compressed `x`.
        """

    def matmul(
        self,
        a: Float[Tensor, "p n"],
        b: Float[Tensor, "n q"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "p q"]:
        """Estimate `a @ b` by sampling or sketching the shared axis n.

        Args:
            a: left factor.
            b: right factor.
            scores: default the oracle's, `‖a[:, i]‖‖b[i, :]‖`: both factors are in hand here.
            generator: as in `compress`.

        Raises:
            InputError: if the shapes do not fit.
        """
        check_matrix("a", a)
        check_matrix("b", b)
        if a.shape[1] != b.shape[0]:
            raise InputError(
                f"a and b must share their inner axis, got shapes {list(a.shape)} and {list(b.shape)}"
            )
        if scores is None:
            scores = joint_norms(b, a.T)
        return self.contract(self.compress(b, scores=scores, generator=generator), a.T)

    def macs(self, n: int, d: int, m: int) -> int:
        """Multiply–accumulates (MACs) inside the matrix products of one `compress` and one `contract`.

        The exact product has `n·d·m`. Counted are the products of two matrices and of a matrix with a vector, a complex
        multiplication once. Not counted are passes over the entries of a matrix (norms, weights, packing, random
        numbers), sorting, what consists of additions (the Hadamard transform, the buckets of a count-sketch), and
        orthonormalisation: a QR decomposition of r columns of length d is about `2 d·r²` more, which vanishes beside
        `n·d·r` for n well above r. Where these matter the docstring of the estimator says so.

        Args:
            n: rows of x and dy.
            d: columns of x.
            m: columns of dy.

        Raises:
            NoClosedForm: if the estimator does not state them.
        """
        raise NoClosedForm(f"{self!r} does not state its MACs")

    def expectation(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, "m d"]:
        """Exact mean of the estimate over the draws, in fp64.

        Raises:
            NoClosedForm: if none is known.
        """
        raise NoClosedForm(f"{self!r} has no closed form for its mean; use enumeration or Monte Carlo")

    def variance(
        self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], *, scores: Shaped[Tensor, " n"] | None = None
    ) -> Float64[Tensor, ""]:
        """Exact total variance `E‖Ĝ − EĜ‖²_F` over the draws, in fp64; 0 where nothing is drawn.

        Raises:
            NoClosedForm: if none is known.
        """
        if self.traits.deterministic:
            check_rows_agree(x, dy)
            return sampling_scores(x, scores).new_zeros(())
        raise NoClosedForm(f"{self!r} has no closed form for its variance; use enumeration or Monte Carlo")

    def __repr__(self) -> str:
        arguments = ", ".join(f"{f.name}={literal(getattr(self, f.name))}" for f in fields(self))  # type: ignore[arg-type]
        head = written(spec_name(type(self)))
        return f"{head}({arguments})" if arguments or head[:1] == '"' else head

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """A class by reference lies in a module that another process does not know: it is made again from its spec."""
        if vars(type(self)).get("reference") is None:
            return super().__reduce_ex__(protocol)
        return _made_again, (repr(self),)

    def __deepcopy__(self, memo: object) -> Estimator[SavedT]:
        """Itself: it is stateless."""
        return self


def spec_name(cls: type[Estimator]) -> str:
    """The head of the specs of a class: the reference by which it was found, its registered name, or its own."""
    own = vars(cls)  # a parent's name would say that it is the parent
    return own.get("reference") or own.get("name") or cls.__name__


def _made_again(text: str) -> Any:
    return import_module("wtacrs.estimators.core.registry").make(text)


def plain(value: Any) -> Any:
    """A Python number or string for a scalar of numpy or torch, or of a class derived from one; anything else as it is.

    >>> plain(torch.tensor(0.25)), plain("rows"), plain([1])
    (0.25, 'rows', [1])
    """
    if type(value) in _PLAIN:
        return value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    # the class of an enumeration is not written in a spec, and numpy's float64 and str_ derive from Python's
    for kind in (int, float, str):
        if isinstance(value, kind) and type(value) not in _PLAIN:
            return getattr(kind, f"__{kind.__name__}__")(value)
    return value


_PLAIN = (bool, int, float, str, type(None))


def _make_fields_plain(estimator: Any) -> None:
    for name in getattr(estimator, "__dataclass_fields__", ()):
        value = getattr(estimator, name, None)
        if type(value) not in _PLAIN and (found := plain(value)) is not value:
            object.__setattr__(estimator, name, found)  # frozen


def _after_plain_fields(checks: Callable[..., None]) -> Callable[..., None]:
    """A `__post_init__` that finds plain values in the fields."""

    @wraps(checks)
    def post_init(self: Any, *arguments: Any, **named: Any) -> None:
        _make_fields_plain(self)
        checks(self, *arguments, **named)

    return post_init


def literal(value: object) -> str:
    """A value of a field as it is written in a spec."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


_WRAPPING: dict[tuple[str, tuple[str, ...], type], Any] = {}


def wrapping_saved(name: str, fields: tuple[str, ...], inner: type) -> Any:
    """A NamedTuple for what a composite keeps: its own tensors and those of an inner estimator, whose type is `inner`.

    torch.compile cannot make a class and looks through a cache, so that a composite asks once before, when it is made.
    """
    key = (name, fields, inner)
    if key not in _WRAPPING:
        saved = namedtuple(name, fields)  # type: ignore[misc]
        saved.inner = inner  # type: ignore[attr-defined]
        _WRAPPING[key] = saved
    return _WRAPPING[key]


def saved_bytes(saved: tuple[Any, ...]) -> int:
    """Bytes that a compressed activation occupies: every tensor in it, indices, weights and scales included.

    Tensors that share one storage are counted once each: `compress` must not return the same bytes twice.
    """
    return sum(t.numel() * t.element_size() for t in saved if isinstance(t, Tensor))
