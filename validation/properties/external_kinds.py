"""What an external object is for `wtacrs check`: an estimator, a product or a linear layer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from wtacrs.estimators import Estimator, InputError
from wtacrs.estimators.core.base import literal
from wtacrs.estimators.core.references import attribute, load_reference, open_module, split_reference
from wtacrs.estimators.core.registry import build, check_known, keywords_of, name_classes
from wtacrs.estimators.core.specs import Spec, parse
from wtacrs.validation.properties.external_estimators import (
    LEAST,
    WIDTHS,
    ExternalEstimator,
    ExternalLinear,
    ExternalProduct,
)
from wtacrs.validation.properties.external_layers import linear_from
from wtacrs.validation.properties.external_products import product_from
from wtacrs.validation.properties.piece import OUT_NAMES, WEIGHTS, Piece, fits, needed

Kind = Literal["auto", "estimator", "product", "linear"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# names of the second argument that tell what a function is
_GRADIENTS = {"dy", "dY", "y", "Y", "g", "grad", "grad_y", "grad_out", "grad_output", "grad_outputs", "delta"}


def external_from(
    reference: str,
    kind: str = "auto",
    *,
    given: Mapping[str, Any] | None = None,
    rows: int | None = None,
    in_features: int | None = None,
    out_features: int | None = None,
    device: str = "cpu",
) -> Estimator:
    """The object that a reference names, as something that the list of properties can examine.

    Args:
        reference: `PATH.py:NAME` or `package.module:NAME`; values may follow, as in `mine.py:Mine(budget=0.3)`. What
            takes no other arguments than those given is called, and what it returns is examined.
        kind: what it is; "auto" decides by its class, or by the names of its arguments.
        given: more values.
        rows: of the properties.
        in_features: columns of x; None finds the least that it works at, as for `out_features`, those of dy.
        out_features: as above.
        device: where a product or layer runs.

    Returns:
        An `Estimator` as it is, or an `ExternalProduct` or `ExternalLinear` around the object.

    Raises:
        InputError: if it cannot be found or imported, does not take these values, cannot be used as what it is said to
            be, or raises on every call.
    """
    if kind not in KINDS:
        raise InputError(f"--kind {kind!r} must be one of {', '.join(KINDS)}")
    parsed = parse(reference)
    for name in given or {}:
        if name in parsed.fields:
            raise InputError(f"{name!r} is given twice: in {reference!r} and by --set")
    parsed = Spec(parsed.name, {**parsed.fields, **(given or {})})
    source, name = split_reference(parsed.name)
    module = open_module(source)
    found = attribute(module, source, name)
    label = f"{Path(source).name}:{name}"
    place = None if torch.device(device).type == "cpu" else torch.device(device)
    options = {"rows": rows, "in_features": in_features, "out_features": out_features, "device": place}
    if kind == "estimator" or _is_estimator(found):
        return _runs(build(parsed, reference), options)
    values = {
        key: build(value, reference) if isinstance(value, Spec) else value for key, value in parsed.fields.items()
    }
    if values:
        check_known(values, _known(label, found, values), label)
    piece = Piece(label, found, values, _widths(in_features, out_features), rows or LEAST.n, place)
    if _is_factory(piece, kind):
        made = _called(piece)
        if isinstance(made, Estimator):
            name_classes(made, f"{label}(…)", source, module)
            return _runs(made, options)
        piece = piece._replace(found=made, given={})
    chosen = _kind(piece) if kind == "auto" else kind
    if not callable(piece.found):
        raise InputError(f"{label} is not callable: it is of type {type(piece.found).__name__}")
    told = ", ".join(f"{key}={literal(value)}" for key, value in values.items())
    piece = piece._replace(label=f"{label}({told})" if told else label)
    made_piece = product_from(piece) if chosen == "product" else linear_from(piece)
    origin = {
        "reference": reference, "kind": kind, "given": dict(given or {}), "rows": rows, "in_features": in_features,
        "out_features": out_features, "device": device,
    }  # fmt: skip
    return replace(made_piece, origin=origin)


def external_piece(reference: str, **given: Any) -> ExternalProduct | ExternalLinear | None:
    """The product or layer that a reference names; None if it is there to make estimators.

    Args:
        reference: as for `external_from`.
        given: values of hyperparameters.

    Raises:
        InputError: as `external_from`.
    """
    parsed = parse(reference)
    found = load_reference(parsed.name)
    if _is_estimator(found) or (callable(found) and not _tells_its_kind(found, {*parsed.fields, *given})):
        return None
    piece = external_from(reference, given=given)
    return piece if isinstance(piece, (ExternalProduct, ExternalLinear)) else None


def takes(reference: str, name: str) -> bool:
    """Whether what a reference names needs a value of this name and is not given one."""
    parsed = parse(reference)
    found = load_reference(parsed.name)
    if not callable(found) or name in parsed.fields:
        return False
    return name in {p.name for p in needed(Piece(parsed.name, found, parsed.fields, (), 0, None))}


def _tells_its_kind(found: object, given: Collection[str]) -> bool:
    piece = Piece("", found, dict.fromkeys(given), (), 0, None)
    if _is_factory(piece, "auto"):
        return True  # what it returns tells
    try:
        _kind(piece)
    except InputError:
        return False
    return True


def file_stem(estimator: Estimator) -> str:
    """What the file of a result is called after: the registered name, or the last part of an external one's label."""
    if isinstance(estimator, ExternalEstimator):
        return estimator.label.partition("(")[0].rpartition(":")[2]
    return getattr(estimator, "name", type(estimator).__name__)


def reference_stem(text: str) -> str:
    """What files about a spec or reference are called after, before it has been made.

    >>> reference_stem("code/mine.py:Mine(budget=0.3)"), reference_stem("crs(budget=0.3)")
    ('Mine', 'crs')
    """
    return parse(text).name.rpartition(":")[2]


def _widths(in_features: int | None, out_features: int | None) -> list[tuple[int, int]]:
    """Columns of x and dy to try: those that are given, beside the usual ones."""
    found = [(in_features or d, out_features or m) for d, m in WIDTHS]
    return list(dict.fromkeys(found))


def _is_estimator(found: object) -> bool:
    return isinstance(found, Estimator) or (isinstance(found, type) and issubclass(found, Estimator))


def _is_layer_class(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, (nn.Module, torch.autograd.Function))


def _known(label: str, found: object, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What it takes by keyword: anything, where it has **keywords."""
    if not callable(found):
        raise InputError(f"{label} is not callable: it takes no {', '.join(values)}")
    call = found.forward if isinstance(found, type) and issubclass(found, torch.autograd.Function) else found
    known, takes_any = keywords_of(label, call)
    return dict.fromkeys([*known, *values]) if takes_any else known


def _is_factory(piece: Piece, kind: str) -> bool:
    """Whether it is called with the values it is given, and what it returns examined."""
    found = piece.found
    if not callable(found) or _is_layer_class(found) or isinstance(found, nn.Module) or needed(piece):
        return False
    if kind in ("product", "linear"):
        return not fits(found, *((None, None) if kind == "product" else (4, 3)), **piece.given)
    return True


def _called(piece: Piece) -> object:
    told = f"{piece.label}({'…' if piece.given else ''})"
    try:
        made = piece.found(**piece.given)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{told} raised {type(error).__name__}: {error}") from error
    if not callable(made) and not isinstance(made, Estimator):
        raise InputError(
            f"{told} returned {type(made).__name__}: an Estimator, a product or what builds a linear layer is needed"
        )
    return made


def _runs(estimator: Estimator, options: Mapping[str, object]) -> Estimator:
    """The estimator, if it can be run at all; an estimator has the sizes of its properties and no device."""
    for name, value in options.items():
        if value is not None:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} {value} is for products and layers: {estimator!r} is an estimator")
    first: Exception | None = None
    for d, m in WIDTHS:
        generator = torch.Generator().manual_seed(0)
        x, dy = torch.randn(LEAST.n, d, generator=generator), torch.randn(LEAST.n, m, generator=generator)
        try:
            estimator.contract(estimator.compress(x, generator=generator), dy)
        except Exception as error:
            first = first or error
        else:
            return estimator
    raise InputError(f"{estimator!r} raises {type(first).__name__}: {first} on every call") from first


def _kind(piece: Piece) -> Kind:
    label, found = piece.label, piece.found
    if _is_layer_class(found):
        return "linear"
    if not callable(found):
        raise InputError(f"{label} is not callable: it is of type {type(found).__name__}")
    if isinstance(found, nn.Module):
        raise InputError(f"{label} is a layer already built: name its class, or a function that builds it")
    names = [parameter.name for parameter in needed(piece)]
    second = names[1] if len(names) > 1 else ""
    if second in _GRADIENTS and len(names) <= 3:
        return "product"
    if (second in WEIGHTS and len(names) <= 3) or (second in OUT_NAMES and len(names) == 2):
        return "linear"
    raise InputError(
        f"{label}({', '.join(names)}) does not tell by its arguments what it is: accepted are f(x, dy), "
        "linear(x, weight, bias), build(in_features, out_features) and a function without other arguments than are "
        "given; say --kind product or --kind linear, or write values behind it, as in NAME(k=100)"
    )
