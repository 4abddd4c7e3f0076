"""What a module computes, found by running it: RMS norms and element-wise functions of any library, without their names.

A module is asked, never believed by its class's name. Its forward runs on a stand-in: a copy with random parameters of
its own on the CPU, without hooks, so that neither the module nor torch's random numbers are touched, and a model on the
meta device or in shards can be asked too. It is recognised if it agrees with a known function to rounding at all scales
and in all dtypes that are tried, and if its gradient does too: a module may have a backward pass of its own. What it
computes must not depend on attributes that change later.
"""

from __future__ import annotations

import copy
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtacrs.integration.layers.lean.activation import ACTIVATIONS, OUTPUT_KEPT
from wtacrs.integration.layers.lean.classes import stock_class
from wtacrs.integration.layers.lean.norm import Cast, RMSTerms, rms_again

_SEED = 0
_ROWS = 6
_SCALES = (1e-4, 1e-2, 1.0, 30.0)
"""Of a norm's inputs; at the small ones eps shows."""

_DTYPES = (
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.float32),
    (torch.float32, torch.bfloat16),
)
"""Of the input and of the weight."""

_CASTS: tuple[Cast, ...] = ("weight", "input", "late")
_FLIPPED = 0.02
"""Share of elements in half precision that may round the other way, since a sum was taken in another order. With the
wrong `Cast` it is above 0.1."""

_FARTHEST = 50.0
"""Of the inputs at which gradients of element-wise functions are compared; formulas overflow in exp beyond."""

Forward = Callable[[Tensor], Any]


@torch.inference_mode(mode=False)
def rms_terms(module: nn.Module) -> tuple[RMSTerms | None, str]:
    """What an RMS norm computes, None for a module that is none or stays stock; and the reason.

    Asked are modules with one parameter, a vector, and neither children nor buffers. eps is one of the attributes.
    """
    if module._modules or module._buffers or len(module._parameters) != 1:
        return None, "not an RMS norm by its parts"
    ((name, weight),) = module._parameters.items()
    if weight is None or weight.ndim != 1 or weight.numel() < 2 or not weight.is_floating_point():
        return None, "not an RMS norm by its parameter"
    d = weight.shape[0]
    scale = torch.randn(d, generator=_generator(), dtype=torch.float64)
    candidates = [
        RMSTerms(name, eps, offset, cast, False)
        for eps in _eps(module)
        for offset in (0.0, 1.0)
        for cast in _CASTS
    ]
    for x_dtype, w_dtype in _DTYPES:
        forward = _stand_in(module, {name: nn.Parameter(scale.to(w_dtype))})
        for x in _norm_inputs(d, x_dtype):
            found = _answer(forward, x)
            candidates = [t for t in candidates if _agrees(found, rms_again(x, scale.to(w_dtype), t))]
            if not candidates:
                return None, "not an RMS norm by its outputs"
    terms = candidates[0]
    if not _has_rms_gradient(module, terms, scale, torch.float32, 1e-4):
        return None, "its output is that of an RMS norm, its gradient is not"
    return terms._replace(double=_computes_double(module, terms, scale)), terms.describe()


@torch.inference_mode(mode=False)
def activation_name(module: nn.Module) -> tuple[str | None, str]:
    """The element-wise function that a module is, None if it is none or stays stock; and the reason.

    Asked are modules without parameters, buffers and children.
    """
    if module._modules or module._buffers or module._parameters:
        return None, "no element-wise function: it has parts of its own"
    forward = _stand_in(module, {})
    wide = _element_inputs(torch.float64)
    found = _answer(forward, wide)
    if found is _IN_PLACE:
        return None, "it works in place: its input is gone"
    functions = {name: known.value for name, known in ACTIVATIONS.items()} | OUTPUT_KEPT
    name = next((name for name, function in functions.items() if _is_close(found, function(wide), 1e-11)), None)
    if name is None:
        return None, "no known element-wise function: its outputs differ from all on a grid of numbers"
    if not _has_gradient(forward, functions[name]):
        return None, f"its output is that of {name}, its gradient is not"
    if name in OUTPUT_KEPT:
        return None, f"{name}: it keeps its output alone, which the next layer keeps too"
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 0.05), (torch.float16, 0.01)):
        x = _element_inputs(dtype)
        if not _is_close(_answer(forward, x), functions[name](x), tolerance):
            return None, f"{name}, but not in {str(dtype).removeprefix('torch.')}"
    return name, name


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


_IN_PLACE = object()


def _stand_in(module: nn.Module, parameters: dict[str, nn.Parameter]) -> Forward:
    """The forward of the module's own class, in training mode, on a copy that shares nothing which changes."""
    kind = stock_class(module)
    copied = kind.__new__(kind)
    copied.__dict__.update(_attributes(module, copied))
    copied.__dict__["_parameters"] = dict(parameters)
    copied.__dict__["training"] = True
    return lambda x: kind.forward(copied, x)


def _attributes(module: nn.Module, copied: nn.Module) -> dict[str, Any]:
    """Those of a module for its copy, which may change its own; as they are where they cannot be copied.

    Tensors, other modules and the owners of bound methods are not copied: they may be the whole model.
    """
    torchs = vars(nn.Module())
    found = {name: copy.copy(value) for name, value in vars(module).items() if name in torchs}
    own = {name: value for name, value in vars(module).items() if name not in torchs}
    memo: dict[int, Any] = {id(value): value for value in _not_copied(own, set())} | {id(module): copied}
    try:
        own = copy.deepcopy(own, memo)
    except Exception:  # somebody else's objects: a lock, a file, a tensor within a graph
        own = dict(own)
    return found | own


def _not_copied(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (Tensor, nn.Module)):
        yield value
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, dict):
        for part in value.values():
            yield from _not_copied(part, seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from _not_copied(part, seen)


def _answer(forward: Forward, x: Tensor) -> Any:
    """What it returns for an input; None if it fails, whatever the reason: it is somebody else's code."""
    given = x.clone()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = forward(given)
    except Exception:
        return None
    return found if torch.equal(given, x) else _IN_PLACE


def _gradients(forward: Forward, x: Tensor, dy: Tensor, parameters: tuple[Tensor, ...] = ()) -> tuple[Any, ...]:
    """The output and the gradients by the input and parameters; empty if there are none, or it fails.

    No `.grad` is written, whatever the caller's mode.
    """
    leaf = x.clone().requires_grad_()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = forward(leaf)
            return y.detach(), *torch.autograd.grad(y, (leaf, *parameters), dy)
    except Exception:
        return ()


def _has_gradient(forward: Forward, function: Callable[[Tensor], Tensor]) -> bool:
    """Whether a module has the gradient of an element-wise function in fp64.

    The gradient by the output has all signs and sizes: a backward pass of its own may cut some off.
    """
    grid = _element_inputs(torch.float64)
    x = torch.where(grid.abs() <= _FARTHEST, grid, 0.0)
    dy = torch.randn(x.shape, generator=_generator(), dtype=torch.float64)
    dy *= 10.0 ** torch.linspace(-3.0, 3.0, 7, dtype=torch.float64).repeat(x.numel())[: x.numel()].view_as(x)
    found, known = _gradients(forward, x, dy), _gradients(function, x, dy)
    return (
        len(found) == 2 and _is_close(found[0], known[0], 1e-11) and _is_close(found[1] / dy, known[1] / dy, 1e-9)
    )


def _has_rms_gradient(
    module: nn.Module, terms: RMSTerms, scale: Tensor, dtype: torch.dtype, tolerance: float
) -> bool:
    """Whether a module has the gradients of an RMS norm by input and weight, relative to the largest of a row."""
    weight = nn.Parameter(scale.to(dtype))
    forward = _stand_in(module, {terms.weight: weight})
    exact = weight.detach().double().requires_grad_()
    eps = torch.finfo(dtype).eps if terms.eps is None else terms.eps

    def norm(x: Tensor) -> Tensor:
        return F.rms_norm(x, exact.shape, exact + terms.offset, eps)

    sizes = torch.logspace(-3.0, 3.0, _ROWS, dtype=torch.float64).view(2, _ROWS // 2, 1)
    for x in _norm_inputs(len(scale), dtype):
        dy = (torch.randn(x.shape, generator=_generator(), dtype=torch.float64) + 0.5) * sizes
        dy = dy.to(dtype)
        found = _gradients(forward, x, dy, (weight,))
        known = _gradients(norm, x.double(), dy.double(), (exact,))
        if len(found) != 3 or not all(_near(f, k, tolerance) for f, k in zip(found, known, strict=True)):
            return False
    return True


def _near(found: Tensor, known: Tensor, tolerance: float) -> bool:
    largest = known.abs().amax(-1, keepdim=True)
    return found.shape == known.shape and bool(((found.double() - known).abs() <= tolerance * largest).all())


def _eps(module: nn.Module) -> Iterator[float | None]:
    found = {value for value in vars(module).values() if type(value) is float and 0.0 <= value <= 0.1}
    yield from sorted(found)
    if "eps" in vars(module) and vars(module)["eps"] is None:
        yield None


def _norm_inputs(d: int, dtype: torch.dtype) -> Iterator[Tensor]:
    generator = _generator()
    for scale in _SCALES:
        yield (torch.randn(2, _ROWS // 2, d, generator=generator, dtype=torch.float64) * scale).to(dtype)


def _element_inputs(dtype: torch.dtype) -> Tensor:
    """A grid where the functions bend, and large numbers; two axes, since a softmax looks along one."""
    grid = torch.linspace(-12.0, 12.0, 961, dtype=torch.float64)
    far = torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=torch.float64)
    return torch.cat([grid, far, torch.zeros(7)]).view(4, -1).to(dtype)


def _agrees(found: Any, known: Tensor) -> bool:
    if not isinstance(found, Tensor) or found.shape != known.shape or found.dtype != known.dtype:
        return False
    if known.dtype == torch.float32:
        return _is_close(found, known, 2e-6)
    flipped = (found != known).double().mean().item()
    return flipped <= _FLIPPED and _is_close(found, known, 0.02)


def _is_close(found: Any, known: Tensor, tolerance: float) -> bool:
    if not isinstance(found, Tensor) or found.shape != known.shape or found.dtype != known.dtype:
        return False
    return torch.allclose(found.double(), known.double(), rtol=tolerance, atol=tolerance)


def _computes_double(module: nn.Module, terms: RMSTerms, scale: Tensor) -> bool:
    forward = _stand_in(module, {terms.weight: nn.Parameter(scale)})
    is_double = all(
        _is_close(_answer(forward, x), rms_again(x, scale, terms), 1e-13)
        for x in _norm_inputs(len(scale), torch.float64)
    )
    return is_double and _has_rms_gradient(module, terms, scale, torch.float64, 1e-10)
