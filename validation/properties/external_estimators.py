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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from wtacrs.estimators import Estimator, Traits
from wtacrs.estimators.core.checks import check_matrix, check_rows_agree
from wtacrs.estimators.core.counter_rng import new_seed
from wtacrs.estimators.core.products import product_dtype
from wtacrs.validation.problems import Problem

Form = Literal["plain", "generator", "k"]

# of the rows: what a product that asks for k is given
FRACTION = 0.3

_BUILD_SEED = 0x1D
_PROBE_ROWS, _PROBE_D, _PROBE_M = 24, 4, 3


class Held(NamedTuple):
    """The whole input and the seed of the draw."""

    x: Float[Tensor, "n d"]
    seed: Int64[Tensor, " 1"]


class ExternalEstimator(Estimator[Held]):
    """Base of both kinds; `precision` is the widest dtype it works in."""

    traits: ClassVar[Traits] = Traits("external", True, False, False, False)
    label: str
    precision: torch.dtype

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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The default generators of torch (CPU), numpy and Python start at this seed, and are put back afterwards."""
    # external code may draw from any of these, numpy's legacy generator among them
    ours, others = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
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
    """

    label: str
    call: Callable[..., Any]
    form: Form = "plain"
    transposed: bool = False
    precision: torch.dtype = torch.float64

    def rows(self, n: int) -> int | None:
        """The k that it is given for n rows; None if it decides itself."""
        return max(1, int(FRACTION * n)) if self.form == "k" else None

    def product(self, x: Float[Tensor, "n d"], dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """One call.

        Raises:
            TypeError: if the result is no tensor.
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
            TypeError: if that is no tensor.
        """
        if self.form == "generator":
            # a seed from the seeded default generator: the function must draw from what it is given
            result = self.call(x, dy, generator=torch.Generator().manual_seed(int(new_seed(x.device, None))))
        elif self.form == "k":
            result = self.call(x, dy, self.rows(x.shape[0]))
        else:
            result = self.call(x, dy)
        if not isinstance(result, Tensor):
            raise TypeError(f"returns {type(result).__name__}, not a tensor")
        return result


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
    """

    label: str
    build: Callable[[int, int], nn.Module]
    leading: tuple[int, ...] = ()
    precision: torch.dtype = torch.float64

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
        return step(self.module(x.shape[1], dy.shape[1], x.dtype).to(x.device), x, dy, self.leading)

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
        ValueError: if the output has another shape than `[…, out]`.
        RuntimeError: if the weight receives no gradient.
    """
    module.zero_grad(set_to_none=True)
    with torch.enable_grad():
        rows = x.detach().reshape(*leading, -1, x.shape[1]).requires_grad_()
        y = module(rows)
        expected = [*rows.shape[:-1], dy.shape[1]]
        if not isinstance(y, Tensor) or list(y.shape) != expected:
            shown = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"an input of shape {list(rows.shape)} gives {shown}, expected {expected}")
        y.backward(dy.reshape(y.shape))
    weight, bias = module.weight, getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.grad is None:
        raise RuntimeError("the weight has no gradient after backward")
    dx = None if rows.grad is None else rows.grad.reshape(x.shape)
    return Step(y.detach().reshape(dy.shape), dx, weight.grad, bias.grad if isinstance(bias, Tensor) else None)


class FunctionLinear(nn.Module):
    """A module around `linear(x, weight, bias)`, initialised as `nn.Linear` is."""

    def __init__(self, call: Callable[..., Any], in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        like = nn.Linear(in_features, out_features, bias=bias)
        self.call = call
        self.weight = like.weight
        self.bias = like.bias

    def forward(self, x: Tensor) -> Any:
        """One call."""
        return self.call(x, self.weight) if self.bias is None else self.call(x, self.weight, self.bias)


def prepared(estimator: ExternalProduct | ExternalLinear) -> ExternalProduct | ExternalLinear:
    """The same with its widest precision and the layout of its result, both found by running it.

    What raises in every precision comes back as it is: the properties will tell.
    """
    for precision in (torch.float64, torch.float32):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(_PROBE_ROWS, _PROBE_D, generator=generator).to(precision)
        dy = torch.randn(_PROBE_ROWS, _PROBE_M, generator=generator).to(precision)
        try:
            with seeded(0):
                result = (
                    estimator.raw(x, dy) if isinstance(estimator, ExternalProduct) else estimator.product(x, dy)
                )
        except Exception:
            continue
        if result.dtype != precision:
            continue
        if isinstance(estimator, ExternalProduct):
            turned = list(result.shape) == [_PROBE_D, _PROBE_M]
            return dataclasses.replace(estimator, precision=precision, transposed=turned)
        return dataclasses.replace(estimator, precision=precision)
    return estimator
