"""External products: in which of the accepted forms a function is called, and where."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.validation.properties.external_estimators import ExternalProduct, Form, Sizes, prepared
from wtacrs.validation.properties.piece import Piece, fits, needed


def product_from(piece: Piece) -> ExternalProduct:
    """The product that it is, with its least sizes, precision and layout.

    Raises:
        InputError: if it cannot be called as one, or raises on every call.
    """
    names = [parameter.name for parameter in needed(piece)]
    call = partial(piece.found, **piece.given) if piece.given else piece.found
    x, dy, generator = torch.empty(0, 1), torch.empty(0, 1), torch.Generator()
    takes_generator = "generator" in inspect.signature(call).parameters
    form: Form
    if takes_generator and fits(call, x, dy, generator=generator):
        form = "generator"
    elif fits(call, x, dy):
        form = "plain"
    elif fits(call, x, dy, 1):
        form = "k"
    else:
        raise InputError(
            f"{piece.label}({', '.join(names)}) cannot be called as a product: accepted are f(x, dy), "
            "f(x, dy, generator=…) and f(x, dy, k)"
        )
    if piece.device is not None:
        call = partial(elsewhere, call, piece.device)
    found = prepared(ExternalProduct(piece.label, call, form, sizes=Sizes(piece.rows)), piece.widths)
    assert isinstance(found, ExternalProduct)
    return found


def elsewhere(call: Callable[..., Any], device: torch.device, x: Tensor, dy: Tensor, *k: int, **more: Any) -> Any:
    """A call on another device, which draws from a generator of that device."""
    if "generator" in more:
        seed = int(torch.randint(2**62, (), generator=more["generator"]))
        more = {"generator": torch.Generator(device).manual_seed(seed)}
    result = call(x.to(device), dy.to(device), *k, **more)
    return result.to(x.device) if isinstance(result, Tensor) else result
