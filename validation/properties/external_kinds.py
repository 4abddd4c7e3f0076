"""What an external object is for `wtacrs check`: an estimator, a product or a linear layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from wtacrs.estimators import Estimator, InputError
from wtacrs.estimators.core.base import literal
from wtacrs.estimators.core.references import attribute, load_reference, open_module, split_reference
from wtacrs.estimators.core.registry import build, check_known, keywords_of, name_classes
from wtacrs.estimators.core.specs import Spec, parse
from wtacrs.validation.properties.external_estimators import (
    LEAST,
    WIDTHS,
    AdaptedLinear,
    ExternalEstimator,
    ExternalLinear,
    ExternalProduct,
    Form,
    FunctionLinear,
    Sizes,
    prepared,
    seeded,
)

Kind = Literal["auto", "estimator", "product", "linear"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# names of the second argument that tell what a function is
_GRADIENTS = {"dy", "dY", "y", "Y", "g", "grad", "grad_y", "grad_out", "grad_output", "grad_outputs", "delta"}
_WEIGHTS = {"w", "W", "weight", "weights"}
_SIZES = {"out", "out_features", "d_out", "n_out", "out_dim", "output_size"}


class Piece(NamedTuple):
    """An external object and the values of its hyperparameters.

    Attributes:
        label: what to call it.
        found: the object.
        given: keywords of every call of it.
        widths: columns of x and dy to try.
        rows: of the properties.
        device: where it runs; None for the CPU.
    """

    label: str
    found: Any
    given: Mapping[str, Any]
    widths: Sequence[tuple[int, int]]
    rows: int
    device: torch.device | None


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
    made_piece = _product(piece) if chosen == "product" else _linear(piece)
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
    return name in {p.name for p in _needed(Piece(parsed.name, found, parsed.fields, (), 0, None))}


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
    if not callable(found) or _is_layer_class(found) or isinstance(found, nn.Module) or _needed(piece):
        return False
    fits = {"product": _fits(found, None, None, **piece.given), "linear": _fits(found, 4, 3, **piece.given)}
    return not fits.get(kind, False)


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
    names = [parameter.name for parameter in _needed(piece)]
    second = names[1] if len(names) > 1 else ""
    if second in _GRADIENTS and len(names) <= 3:
        return "product"
    if (second in _WEIGHTS and len(names) <= 3) or (second in _SIZES and len(names) == 2):
        return "linear"
    raise InputError(
        f"{label}({', '.join(names)}) does not tell by its arguments what it is: accepted are f(x, dy), "
        "linear(x, weight, bias), build(in_features, out_features) and a function without other arguments than are "
        "given; say --kind product or --kind linear, or give values by --set"
    )


def _needed(piece: Piece) -> list[inspect.Parameter]:
    """Arguments without a default and without a value, of a call; of an autograd Function those of its forward pass."""
    call = piece.found
    if isinstance(call, type) and issubclass(call, torch.autograd.Function):
        call = call.forward
    try:
        parameters = inspect.signature(call).parameters.values()
    except (ValueError, TypeError):
        raise InputError(
            f"{piece.label} has no signature that can be read: wrap it in a Python function"
        ) from None
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    empty = inspect.Parameter.empty
    return [p for p in parameters if p.default is empty and p.kind not in kinds and p.name not in piece.given]


def _fits(call: Callable[..., Any], *arguments: object, **keywords: object) -> bool:
    try:
        inspect.signature(call).bind(*arguments, **keywords)
    except TypeError:
        return False
    return True


def _product(piece: Piece) -> ExternalProduct:
    names = [parameter.name for parameter in _needed(piece)]
    call = partial(piece.found, **piece.given) if piece.given else piece.found
    x, dy, generator = torch.empty(0, 1), torch.empty(0, 1), torch.Generator()
    takes_generator = "generator" in inspect.signature(call).parameters
    form: Form
    if takes_generator and _fits(call, x, dy, generator=generator):
        form = "generator"
    elif _fits(call, x, dy):
        form = "plain"
    elif _fits(call, x, dy, 1):
        form = "k"
    else:
        raise InputError(
            f"{piece.label}({', '.join(names)}) cannot be called as a product: accepted are f(x, dy), "
            "f(x, dy, generator=…) and f(x, dy, k)"
        )
    if piece.device is not None:
        call = partial(_elsewhere, call, piece.device)
    found = prepared(ExternalProduct(piece.label, call, form, sizes=Sizes(piece.rows)), piece.widths)
    assert isinstance(found, ExternalProduct)
    return found


def _elsewhere(call: Callable[..., Any], device: torch.device, x: Tensor, dy: Tensor, *k: int, **more: Any) -> Any:
    """A call on another device, which draws from a generator of that device."""
    if "generator" in more:
        seed = int(torch.randint(2**62, (), generator=more["generator"]))
        more = {"generator": torch.Generator(device).manual_seed(seed)}
    result = call(x.to(device), dy.to(device), *k, **more)
    return result.to(x.device) if isinstance(result, Tensor) else result


def _linear(piece: Piece) -> ExternalLinear:
    """The first of the possible layouts of its weight in which it runs; equal widths, which fit any layout, come last."""
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


_Build = Callable[[int, int], nn.Module]


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
    names = [parameter.name for parameter in _needed(piece)]
    if len(names) > 1 and names[1] not in _SIZES:
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
    needed = [parameter.name for parameter in _needed(piece)]
    if isinstance(found, type) and issubclass(found, torch.autograd.Function):
        count = len(needed) - (0 if _has_setup(found) else 1)
        if count not in (2, 3):
            raise InputError(f"{label}.forward must take (x, weight) or (x, weight, bias), it takes {count}")
        return _wrapped(partial(_applied, found, given) if given else found.apply, bias=count == 3)
    is_function = not isinstance(found, type) and (len(needed) == 3 or (len(needed) > 1 and needed[1] in _WEIGHTS))
    if is_function and len(needed) <= 3:
        return _wrapped(partial(found, **given) if given else found, bias=_fits(found, None, None, None, **given))
    if not _fits(found, 4, 3, **given):
        raise InputError(
            f"{label}({', '.join(needed)}) cannot be used as a linear layer: accepted are "
            "build(in_features, out_features), linear(x, weight, bias) and an autograd Function of these; "
            "other arguments are given by --set"
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
