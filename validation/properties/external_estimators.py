"""External products and linear layers as estimators, so that their properties can be checked.

External code draws inside its one call, in the forward or in the backward pass. So `compress` keeps the input whole and
draws a seed, and `contract` makes the call under that seed: one seed, one draw, and the caller's random state stays as it
is. External code claims to be unbiased and random, and takes no scores. What a layer keeps in its class or its Python
module rather than in itself cannot be made new: it is carried from draw to draw.
"""

from __future__ import annotations

import dataclasses
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar, Literal, NamedTuple, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from wtacrs.estimators import Estimator, InputError, Traits
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.counter_rng import new_seed
from wtacrs.estimators.core.products import product_dtype
from wtacrs.estimators.core.sizing import rows_for
from wtacrs.validation.problems import Problem

Form = Literal["plain", "generator", "k"]

# of the rows: what a product that asks for k is given
FRACTION = 0.3

# (in, out): those that need no least width take the first; unequal ones tell the two axes of a result apart
WIDTHS = ((4, 3), (6, 5), (8, 16), (8, 8), (16, 32), (16, 16), (32, 64), (32, 32), (64, 128), (64, 64), (128, 128))

_BUILD_SEED = 0x1D


class Sizes(NamedTuple):
    """The least sizes that external code works at: rows, columns of x and columns of dy."""

    n: int = 64
    d: int = 4
    m: int = 3


LEAST = Sizes()


class Held(NamedTuple):
    """The whole input and the seed of the draw."""

    x: Float[Tensor, "n d"]
    seed: Int64[Tensor, " 1"]


class ExternalEstimator(Estimator[Held]):
    """Base of both kinds; `precision` is the widest dtype it works in, `sizes` the least sizes.

    `origin` holds the arguments of `external_from` that gave it: another process finds it by these.
    """

    traits: ClassVar[Traits] = Traits("external", True, False, False, False)
    label: str
    precision: torch.dtype
    sizes: Sizes
    origin: Mapping[str, Any] | None

    @abstractmethod
    def product(self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """One estimate, drawn from torch's default generator."""

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Held:
        """Keep the input and draw a seed; the scores are not used."""
        check_matrix("x", x)
        return Held(x, new_seed(x.device, generator))

    def contract(self, saved: Held, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """One call of the external code under the saved seed, in the dtype of the exact product."""
        check_rows_agree(saved.x, dy)
        dtype = product_dtype(saved.x, dy)
        with seeded(int(saved.seed)):
            return self.product(saved.x.to(dtype), dy.to(dtype)).detach()

    def __repr__(self) -> str:
        return self.label

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Its code lies in a module that another process does not know: it is found again."""
        if self.origin is None:
            return super().__reduce_ex__(protocol)
        return _found_again, (dict(self.origin), getattr(self, "budget", None))


def _found_again(origin: Mapping[str, Any], budget: int | float | None) -> Any:
    external_from = import_module("wtacrs.validation.properties.external_kinds").external_from
    found = external_from(**origin)
    return found if budget is None else dataclasses.replace(found, budget=budget)


class NoTensor(TypeError):
    """A product returned something else."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The default generators of torch, numpy and Python start at this seed, and are put back afterwards.

    Of torch's, the CPU's, and CUDA's once it is in use.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    # external code may draw from any of these, numpy's legacy generator among them
    ours, others = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(others)  # noqa: NPY002


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ExternalProduct(ExternalEstimator):
    """A function that estimates `dy.T @ x`.

    Args:
        label: what to call it.
        call: `f(x, dy)`, `f(x, dy, generator=…)` or `f(x, dy, k)`.
        form: which of the three.
        transposed: it returns `[d, m]`.
        precision: the widest dtype it works in.
        sizes: the least sizes it works at.
        origin: the arguments of `external_from`.
        budget: of the rows, what one that asks for k is given; `FRACTION` if None.
    """

    label: str
    call: Callable[..., Any]
    form: Form = "plain"
    transposed: bool = False
    precision: torch.dtype = torch.float64
    sizes: Sizes = LEAST
    origin: Mapping[str, Any] | None = None
    budget: int | float | None = None

    def rows(self, n: int) -> int | None:
        """The k that it is given for n rows; None if it decides itself."""
        if self.form != "k":
            return None
        return max(1, int(FRACTION * n)) if self.budget is None else rows_for(self.budget, n)

    def __repr__(self) -> str:
        if self.budget is None:
            return self.label
        inside = self.label.partition("(")[2].removesuffix(")")
        return f"{self.label.partition('(')[0]}({inside}{', ' if inside else ''}budget={self.budget!r})"

    def product(self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """One call.

        Raises:
            NoTensor: if the result is no tensor.
            ValueError: if it has another shape than before.
        """
        result = self.raw(x, dy)
        expected = [x.shape[1], dy.shape[1]] if self.transposed else [dy.shape[1], x.shape[1]]
        if list(result.shape) != expected:
            raise ValueError(f"returns shape {list(result.shape)}, expected {expected}")
        return result.T if self.transposed else result

    def raw(self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Tensor:
        """What the function returns.

        Raises:
            NoTensor: if that is no tensor.
        """
        if self.form == "generator":
            # a seed from the seeded default generator: the function must draw from what it is given
            seed = int(new_seed(x.device, None))
            result = self.call(x, dy, generator=torch.Generator(x.device).manual_seed(seed))
        elif self.form == "k":
            result = self.call(x, dy, self.rows(x.shape[0]))
        else:
            result = self.call(x, dy)
        if not isinstance(result, Tensor):
            raise NoTensor(f"returns {type(result).__name__}, not a tensor")
        return result


class NotLinear(ValueError):
    """A module ran, but not as a linear layer does."""


class Step(NamedTuple):
    """What one forward and backward pass of a linear layer gives; `db` is None without a bias."""

    y: Tensor
    dx: Tensor | None
    dw: Tensor
    db: Tensor | None


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ExternalLinear(ExternalEstimator):
    """A linear layer whose `weight.grad` is the estimate, built afresh for every draw.

    Args:
        label: what to call it.
        build: `build(in_features, out_features)` gives a module with `weight [out, in]`.
        leading: leading axes of the input, as `(2,)` for `[2, n/2, d]`; none gives `[n, d]`.
        precision: the widest dtype it works in.
        sizes: the least sizes it works at.
        origin: the arguments of `external_from`.
    """

    label: str
    build: Callable[[int, int], nn.Module]
    leading: tuple[int, ...] = ()
    precision: torch.dtype = torch.float64
    sizes: Sizes = LEAST
    origin: Mapping[str, Any] | None = None

    def module(self, d: int, m: int, dtype: torch.dtype) -> nn.Module:
        """A new module in training mode; always the same initial weights."""
        with seeded(_BUILD_SEED):
            return self.build(d, m).to(dtype).train()

    def weight(self, d: int, m: int, dtype: torch.dtype) -> Float[Tensor, "m d"]:
        """The weight of a new module."""
        weight = self.module(d, m, dtype).weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    def run(self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Step:
        """One step of a layer that has never run."""
        module = self.module(x.shape[1], dy.shape[1], x.dtype)
        if not isinstance(module, AdaptedLinear) or module.device is None:
            module = module.to(x.device)
        return step(module, x, dy, self.leading)

    def product(self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """The weight gradient of one step."""
        return self.run(x, dy).dw


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TrainedLinear(ExternalLinear):
    """The same layer in the middle of training: between two draws it sees another batch.

    The layer is built once and keeps what it carries from step to step.

    Args:
        before: the other batch.
        steps: how many times it is seen before the first draw.
        kept: the layer, once it has been built.
    """

    before: Problem = dataclasses.field(kw_only=True)
    steps: int = 3
    kept: list[nn.Module] = dataclasses.field(default_factory=list)

    def run(self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Step:
        """The next step."""
        first = not self.kept
        if first:
            self.kept.append(self.module(x.shape[1], dy.shape[1], x.dtype))
        for _ in range(self.steps if first else 1):
            step(self.kept[0], *self.before, self.leading)
        return step(self.kept[0], x, dy, self.leading)


def step(
    module: nn.Module, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"], leading: tuple[int, ...] = ()
) -> Step:
    """One forward and backward pass of `Σ ⟨y, dy⟩`; y and dx come back as `[n, …]`.

    Raises:
        NotLinear: if the output has another shape than `[…, out]`, or the weight receives no gradient.
    """
    module.zero_grad(set_to_none=True)
    with torch.enable_grad():
        rows = x.detach().reshape(*leading, -1, x.shape[1]).requires_grad_()
        y = module(rows)
        expected = [*rows.shape[:-1], dy.shape[1]]
        if not isinstance(y, Tensor) or list(y.shape) != expected:
            shown = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise NotLinear(f"an input of shape {list(rows.shape)} gives {shown}, expected {expected}")
        y.backward(dy.reshape(y.shape))
    weight, bias = module.weight, getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.grad is None:
        raise NotLinear("the weight has no gradient after backward")
    dx = None if rows.grad is None else rows.grad.reshape(x.shape)
    return Step(y.detach().reshape(dy.shape), dx, weight.grad, bias.grad if isinstance(bias, Tensor) else None)


class FunctionLinear(nn.Module):
    """A module around `linear(x, weight, bias)`, initialised as `nn.Linear` is; `turned`: its weight is `[in, out]`."""

    def __init__(
        self, call: Callable[..., Any], in_features: int, out_features: int, *, bias: bool, turned: bool = False
    ) -> None:
        super().__init__()
        like = nn.Linear(in_features, out_features, bias=bias)
        self.call = call
        self.weight = nn.Parameter(like.weight.detach().T.contiguous()) if turned else like.weight
        self.bias = like.bias

    def forward(self, x: Tensor) -> Any:
        """One call."""
        return self.call(x, self.weight) if self.bias is None else self.call(x, self.weight, self.bias)


class AdaptedLinear(nn.Module):
    """A linear layer whose weight is `[in, out]`, lies in a module inside it, or on another device, shown as `[out, in]`.

    Args:
        inner: the layer.
        owner: name of the module inside it that has the weight and the bias; "" for itself.
        turned: the weight is `[in, out]`.
        device: where the layer runs; input, output, weight and bias are shown on the CPU. None: where its input is.
    """

    def __init__(self, inner: nn.Module, owner: str, *, turned: bool, device: torch.device | None) -> None:
        super().__init__()
        self.inner = inner if device is None else inner.to(device)
        self.owner = owner
        self.turned = turned
        self.device = device

    def forward(self, x: Tensor) -> Any:
        """One call, where the layer runs."""
        if self.device is None:
            return self.inner(x)
        y = self.inner(x.to(self.device))
        return y.to(x.device) if isinstance(y, Tensor) else y

    @property
    def weight(self) -> Tensor:
        """The weight `[out, in]` with its gradient, detached."""
        return self._shown(self.inner.get_submodule(self.owner).weight, self.turned)  # type: ignore[arg-type]

    @property
    def bias(self) -> Tensor | None:
        """The bias with its gradient, detached."""
        bias = getattr(self.inner.get_submodule(self.owner), "bias", None)
        return self._shown(bias, False) if isinstance(bias, Tensor) else None

    def _shown(self, parameter: Tensor, turned: bool) -> Tensor:
        def shown(tensor: Tensor) -> Tensor:
            tensor = tensor.detach().T if turned else tensor.detach()
            return tensor if self.device is None else tensor.cpu()

        found = shown(parameter)
        if parameter.grad is not None:
            found.grad = shown(parameter.grad)
        return found


def prepared(
    estimator: ExternalProduct | ExternalLinear, widths: Sequence[tuple[int, int]] = WIDTHS
) -> ExternalProduct | ExternalLinear:
    """The same with its least sizes, its widest precision and the layout of its result, all found by running it.

    What runs, but not as a product or layer should, comes back as well: the properties will tell.

    Args:
        estimator: its `sizes.n` rows are kept.
        widths: columns of x and of dy that are tried, in this order.

    Raises:
        InputError: if it raises at all of them in both precisions.
    """
    first: Exception | None = None
    odd: ExternalProduct | ExternalLinear | None = None
    for d, m in widths:
        for precision in (torch.float64, torch.float32):
            changed = dataclasses.replace(estimator, precision=precision, sizes=Sizes(estimator.sizes.n, d, m))
            try:
                return _probed(changed)
            except NotLinear:
                odd = odd or changed
            except Exception as error:
                first = first or error
    if odd is not None:
        return odd
    assert first is not None
    told = str(first) if isinstance(first, NoTensor) else f"raises {type(first).__name__}: {first}"
    raise InputError(f"{estimator.label} {told} on every call") from first


def _probed(estimator: ExternalProduct | ExternalLinear) -> ExternalProduct | ExternalLinear:
    """Run it once at its sizes.

    Raises:
        NotLinear: if the result has another dtype or shape.
        Exception: what it raises itself.
    """
    (n, d, m), precision = estimator.sizes, estimator.precision
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator).to(precision)
    dy = torch.randn(n, m, generator=generator).to(precision)
    with seeded(0):
        if isinstance(estimator, ExternalLinear):
            result = estimator.product(x, dy)
        else:
            result = estimator.raw(x, dy)
            if d != m and list(result.shape) == [d, m]:
                estimator = dataclasses.replace(estimator, transposed=True)
    shape = [d, m] if isinstance(estimator, ExternalProduct) and estimator.transposed else [m, d]
    if result.dtype != precision or list(result.shape) != shape:
        raise NotLinear(f"returns {result.dtype} {list(result.shape)}")
    return estimator
