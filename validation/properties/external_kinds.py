"""What an external object is for `wtacrs check`: an estimator, a product or a linear layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from wtacrs.estimators import Estimator, InputError
from wtacrs.estimators.core.references import load_reference
from wtacrs.validation.properties.external_estimators import (
    ExternalEstimator,
    ExternalLinear,
    ExternalProduct,
    Form,
    FunctionLinear,
    prepared,
    seeded,
)

Kind = Literal["auto", "estimator", "product", "linear"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# names of the second argument that tell what a function is
_GRADIENTS = {"dy", "dY", "y", "Y", "g", "grad", "grad_y", "grad_out", "grad_output", "grad_outputs", "delta"}
_WEIGHTS = {"w", "W", "weight", "weights"}
_SIZES = {"out", "out_features", "d_out", "n_out", "out_dim", "output_size"}

_D, _M = 6, 5


def external_from(reference: str, kind: str = "auto") -> Estimator:
    """The object that a reference names, as something that the list of properties can examine.

    Args:
        reference: `PATH.py:NAME` or `package.module:NAME`.
        kind: what it is; "auto" decides by its class, or by the names of its arguments.

    Returns:
        An `Estimator` as it is, or an `ExternalProduct` or `ExternalLinear` around the object.

    Raises:
        InputError: if it cannot be found or imported, or cannot be used as what it is said to be.
    """
    if kind not in KINDS:
        raise InputError(f"--kind {kind!r} must be one of {', '.join(KINDS)}")
    found = load_reference(reference)
    source, _, name = reference.strip().rpartition(":")
    label = f"{Path(source).name}:{name}"
    chosen = _kind(label, found) if kind == "auto" else kind
    if chosen == "estimator":
        return _estimator(label, found)
    if not callable(found):
        raise InputError(f"{label} is not callable: it is of type {type(found).__name__}")
    return prepared(_product(label, found) if chosen == "product" else _linear(label, found))


def file_stem(estimator: Estimator) -> str:
    """What the file of a result is called after: the registered name, or the last part of an external one's label."""
    if isinstance(estimator, ExternalEstimator):
        return estimator.label.rpartition(":")[2]
    return getattr(estimator, "name", type(estimator).__name__)


def _kind(label: str, found: object) -> Kind:
    if isinstance(found, Estimator) or (isinstance(found, type) and issubclass(found, Estimator)):
        return "estimator"
    if isinstance(found, type) and issubclass(found, (nn.Module, torch.autograd.Function)):
        return "linear"
    if not callable(found):
        raise InputError(f"{label} is not callable: it is of type {type(found).__name__}")
    if isinstance(found, nn.Module):
        raise InputError(f"{label} is a layer already built: name its class, or a function that builds it")
    names = [parameter.name for parameter in _needed(label, found)]
    if not names:
        return "estimator"
    second = names[1] if len(names) > 1 else ""
    if second in _GRADIENTS and len(names) <= 3:
        return "product"
    if (second in _WEIGHTS and len(names) <= 3) or (second in _SIZES and len(names) == 2):
        return "linear"
    raise InputError(
        f"{label}({', '.join(names)}) does not tell by its arguments what it is: accepted are f(x, dy), "
        "linear(x, weight, bias), build(in_features, out_features) and a function without arguments; "
        "say --kind product or --kind linear"
    )


def _signature(label: str, call: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(call)
    except (ValueError, TypeError):
        raise InputError(f"{label} has no signature that can be read: wrap it in a Python function") from None


def _needed(label: str, call: Callable[..., Any]) -> list[inspect.Parameter]:
    """Arguments without a default."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = _signature(label, call).parameters.values()
    return [p for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]


def _fits(label: str, call: Callable[..., Any], *arguments: object, **keywords: object) -> bool:
    try:
        _signature(label, call).bind(*arguments, **keywords)
    except TypeError:
        return False
    return True


def _estimator(label: str, found: object) -> Estimator:
    if isinstance(found, Estimator):
        return found
    if not callable(found):
        raise InputError(f"{label} is no Estimator and not callable: it is of type {type(found).__name__}")
    needed = [parameter.name for parameter in _needed(label, found)]
    if needed:
        raise InputError(
            f"{label} needs {', '.join(needed)}: name an Estimator instance, or a function without arguments "
            "that returns one"
        )
    try:
        made = found()
    except Exception as error:
        raise InputError(f"{label}() raised {type(error).__name__}: {error}") from error
    if not isinstance(made, Estimator):
        raise InputError(f"{label}() returned {type(made).__name__}, a wtacrs.estimators.Estimator is needed")
    return made


def _product(label: str, call: Callable[..., Any]) -> ExternalProduct:
    names = [parameter.name for parameter in _needed(label, call)]
    x, dy, generator = torch.empty(0, 1), torch.empty(0, 1), torch.Generator()
    takes_generator = "generator" in _signature(label, call).parameters
    form: Form
    if takes_generator and _fits(label, call, x, dy, generator=generator):
        form = "generator"
    elif _fits(label, call, x, dy):
        form = "plain"
    elif _fits(label, call, x, dy, 1):
        form = "k"
    else:
        raise InputError(
            f"{label}({', '.join(names)}) cannot be called as a product: accepted are f(x, dy), "
            "f(x, dy, generator=…) and f(x, dy, k)"
        )
    return ExternalProduct(label, call, form)


def _linear(label: str, found: Any) -> ExternalLinear:
    build = _builder(label, found)
    try:
        with seeded(0):
            module = build(_D, _M)
    except Exception as error:
        raise InputError(f"{label}({_D}, {_M}) raised {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{label}({_D}, {_M}) returned {type(module).__name__}, an nn.Module is needed")
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or list(weight.shape) != [_M, _D]:
        shown = f"shape {list(weight.shape)}" if isinstance(weight, Tensor) else "no tensor"
        raise InputError(f"{label}({_D}, {_M}).weight is {shown}, [out, in] = {[_M, _D]} is needed")
    return ExternalLinear(label, build)


def _builder(label: str, found: Any) -> Callable[[int, int], nn.Module]:
    if isinstance(found, type) and issubclass(found, torch.autograd.Function):
        count = len(_needed(label, found.forward)) - (0 if _has_setup(found) else 1)
        if count not in (2, 3):
            raise InputError(f"{label}.forward must take (x, weight) or (x, weight, bias), it takes {count}")
        return _wrapped(found.apply, bias=count == 3)
    needed = [parameter.name for parameter in _needed(label, found)]
    is_function = not isinstance(found, type) and (len(needed) == 3 or (len(needed) > 1 and needed[1] in _WEIGHTS))
    if is_function and len(needed) <= 3:
        return _wrapped(found, bias=_fits(label, found, None, None, None))
    if not _fits(label, found, _D, _M):
        raise InputError(
            f"{label}({', '.join(needed)}) cannot be used as a linear layer: accepted are "
            "build(in_features, out_features), linear(x, weight, bias) and an autograd Function of these"
        )
    return lambda d, m: found(d, m)


def _has_setup(function: type[torch.autograd.Function]) -> bool:
    return function.setup_context is not torch.autograd.Function.setup_context


def _wrapped(call: Callable[..., Any], *, bias: bool) -> Callable[[int, int], nn.Module]:
    return lambda d, m: FunctionLinear(call, d, m, bias=bias)
