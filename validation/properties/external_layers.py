"""External linear layers: what builds one, where it keeps its weight, and in which layout."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wtacrs.estimators import InputError
from wtacrs.validation.properties.external_estimators import (
    LEAST,
    AdaptedLinear,
    ExternalLinear,
    FunctionLinear,
    Sizes,
    prepared,
    seeded,
)
from wtacrs.validation.properties.piece import OUT_NAMES, WEIGHTS, Piece, fits, needed

_Build = Callable[[int, int], nn.Module]


def linear_from(piece: Piece) -> ExternalLinear:
    """The layer that it is, in the first of the possible layouts of its weight in which it runs.

    Equal widths, which fit any layout, come last.

    Raises:
        InputError: if it cannot be used as one, or raises on every call.
    """
    first: InputError | None = None
    builders = _builders(piece)
    for equal in (False, True):
        widths = [(d, m) for d, m in piece.widths if (d == m) == equal]
        for raw in builders if widths else ():
            try:
                return _layer(piece._replace(widths=widths), raw)
            except InputError as error:
                first = first or error
    assert first is not None
    raise first


def _layer(piece: Piece, raw: _Build) -> ExternalLinear:
    module, d, m = _first_built(piece, raw)
    owner = _owner(piece.label, module, d, m)
    turned = _is_turned(module, owner, d, m)
    adapted = turned or owner != "" or piece.device is not None
    build = partial(_adapted, raw, owner, turned, piece.device) if adapted else raw
    found = prepared(ExternalLinear(piece.label, build, sizes=Sizes(piece.rows)), piece.widths)
    assert isinstance(found, ExternalLinear)
    return found


def _adapted(raw: _Build, owner: str, turned: bool, device: torch.device | None, d: int, m: int) -> nn.Module:
    return AdaptedLinear(raw(d, m), owner, turned=turned, device=device)


def _in_order(piece: Piece, raw: _Build) -> _Build:
    """What builds the layer by (in, out), if its own order is the other one and its names do not say so.

    Raises:
        InputError: if its names say (in, out), and it builds (out, in).
    """
    if not _is_reversed(piece, raw):
        return raw
    names = [parameter.name for parameter in needed(piece)]
    if len(names) > 1 and names[1] not in OUT_NAMES:
        return partial(_in_other_order, raw)
    told = f"in_features={piece.widths[0][0]}, out_features={piece.widths[0][1]}"
    raise InputError(f"{piece.label}: {told} build a layer that takes out_features columns and gives in_features")


def _in_other_order(raw: _Build, d: int, m: int) -> nn.Module:
    return raw(m, d)


def _is_reversed(piece: Piece, raw: _Build) -> bool:
    """Whether it is built by (out, in), as `Conv1D` of transformers is, seen at the first sizes at which it runs."""
    for d, m in piece.widths:
        if d == m:
            continue
        try:
            with seeded(0):
                module = raw(d, m)
        except Exception:  # `_first_built` tells
            continue
        if _gives(module, d, m):
            return False
        if _gives(module, m, d):
            return True
    return False


@torch.no_grad()
def _gives(module: object, d: int, m: int) -> bool:
    """Whether a layer makes m columns of d."""
    try:
        weight = next(module.parameters())  # type: ignore[attr-defined]
        with seeded(0):
            y = module(torch.zeros(LEAST.n, d, device=weight.device, dtype=weight.dtype))  # type: ignore[operator]
    except Exception:
        return False
    return isinstance(y, Tensor) and list(y.shape) == [LEAST.n, m]


def _first_built(piece: Piece, raw: _Build) -> tuple[nn.Module, int, int]:
    """The layer at the first sizes at which it can be built."""
    told = ""
    for d, m in piece.widths:
        try:
            with seeded(0):
                module = raw(d, m)
        except Exception as error:
            told = (
                told or f"{piece.label}: in_features={d}, out_features={m} raised {type(error).__name__}: {error}"
            )
            continue
        if not isinstance(module, nn.Module):
            raise InputError(
                f"{piece.label} with {d}, {m} returned {type(module).__name__}, an nn.Module is needed"
            )
        return module, d, m
    tried = "" if len(piece.widths) == 1 else f"; nor can it be built with {piece.widths[-1]} or the sizes between"
    raise InputError(told + tried)


def _owner(label: str, module: nn.Module, d: int, m: int) -> str:
    """Name of the module inside a layer that has its weight; "" for itself."""
    weights = {name: getattr(inner, "weight", None) for name, inner in module.named_modules()}
    right = [n for n, w in weights.items() if isinstance(w, Tensor) and list(w.shape) in ([m, d], [d, m])]
    if "" in right or len(right) == 1:
        return "" if "" in right else right[0]
    own = weights.get("")
    shown = f"shape {list(own.shape)}" if isinstance(own, Tensor) else "no tensor"
    if len(right) > 1:
        shown += f", and those of {' and '.join(right)} have its shape"
    raise InputError(
        f"{label}({d}, {m}).weight is {shown}, [out, in] = {[m, d]} or [in, out] = {[d, m]} is needed"
    )


@torch.no_grad()
def _is_turned(module: nn.Module, owner: str, d: int, m: int) -> bool:
    """Whether the weight is `[in, out]`: by its shape, and of a square one by what the layer computes."""
    weight = module.get_submodule(owner).weight
    assert isinstance(weight, Tensor)
    if d != m:
        return list(weight.shape) == [d, m]
    x = torch.randn(LEAST.n, d, generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)
    try:
        with seeded(0):
            y = module(x)
        y = y - y.mean(0)  # without its bias
        x = x - x.mean(0)
        return bool((y - x @ weight).norm() < (y - x @ weight.T).norm())
    except Exception:  # `prepared` will tell
        return False


def _builders(piece: Piece) -> list[_Build]:
    """What builds the layer; for a function, with its weight `[out, in]` and `[in, out]`."""
    label, found, given = piece.label, piece.found, piece.given
    names = [parameter.name for parameter in needed(piece)]
    if isinstance(found, type) and issubclass(found, torch.autograd.Function):
        count = len(names) - (0 if _has_setup(found) else 1)
        if count not in (2, 3):
            raise InputError(f"{label}.forward must take (x, weight) or (x, weight, bias), it takes {count}")
        return _wrapped(partial(_applied, found, given) if given else found.apply, bias=count == 3)
    is_function = not isinstance(found, type) and (len(names) == 3 or (len(names) > 1 and names[1] in WEIGHTS))
    if is_function and len(names) <= 3:
        return _wrapped(partial(found, **given) if given else found, bias=fits(found, None, None, None, **given))
    if not fits(found, 4, 3, **given):
        raise InputError(
            f"{label}({', '.join(names)}) cannot be used as a linear layer: accepted are "
            "build(in_features, out_features), linear(x, weight, bias) and an autograd Function of these; "
            "values of other arguments are written behind it, as in NAME(k=100)"
        )
    return [_in_order(piece, lambda d, m: found(d, m, **given))]


def _has_setup(function: type[torch.autograd.Function]) -> bool:
    return function.setup_context is not torch.autograd.Function.setup_context


def _applied(function: type[torch.autograd.Function], given: Mapping[str, Any], *tensors: Tensor) -> Any:
    """`apply` takes no keywords: the values stand in the order of the forward pass, behind the tensors."""
    parameters = list(inspect.signature(function.forward).parameters.values())
    rest = parameters[len(tensors) + (0 if _has_setup(function) else 1) :]
    last = max((place for place, p in enumerate(rest) if p.name in given), default=-1)
    return function.apply(*tensors, *(given.get(p.name, p.default) for p in rest[: last + 1]))


def _wrapped(call: Callable[..., Any], *, bias: bool) -> list[_Build]:
    return [
        lambda d, m: FunctionLinear(call, d, m, bias=bias),
        lambda d, m: FunctionLinear(call, d, m, bias=bias, turned=True),
    ]
