"""`approximate_` and `restore_`: swap the linear layers of a model in place, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from wtacrs.estimators import Estimator, InputError, make
from wtacrs.integration.gradient_norms import GradientNorms
from wtacrs.integration.linear import MIN_ELEMENTS, ApproxLinear
from wtacrs.integration.padding import RowMasks, stream_of
from wtacrs.integration.training_scores import make_gradient_norms
from wtacrs.integration.wrapped import become, own_class, unwrapped

FilterFn = Callable[[str, nn.Linear], bool]

_ATTRIBUTES = ("estimator", "min_elements", "row_masks", "stream", "path", "gradient_norms", "share_inputs")


def approximate_(
    model: nn.Module,
    estimator: str | Estimator,
    *,
    filter_fn: FilterFn | None = None,
    min_elements: int = MIN_ELEMENTS,
    scores: str | GradientNorms = "row norms",
    share_inputs: bool = True,
) -> list[str]:
    """Turn every `nn.Linear` of a model into an `ApproxLinear`, in place.

    Modules keep their identity, parameters, hooks and state-dict keys: optimizers built before stay valid and
    checkpoints load into the stock model. Subclasses of `nn.Linear` are left alone. Layers that are converted
    already get the new estimator. A hook on `model` tells the layers which rows are padding
    (see `wtacrs.integration.padding`).

    A model may be converted before or after `DistributedDataParallel` or `torch.distributed.fsdp.fully_shard`; names are
    those within the wrapper. Every process draws rows of its own, even if all have been seeded alike.

    `torch.compile` takes the step into one graph, and a second one once lengths vary. Compiled layers draw from torch's
    default generator: seed it differently in every process. With `dynamic=True` floats such as a budget must not become
    symbols (`torch._dynamo.config.specialize_float = True`).

    Args:
        model: any module; may itself be an `nn.Linear`.
        estimator: a spec such as `"wta_crs(budget=0.3)"` or an `Estimator`.
        filter_fn: called with each layer's name and the layer; False leaves it exact. Default: all.
        min_elements: inputs with fewer numbers than this take the exact path (see `ApproxLinear`).
        scores: what rows are sampled by: "row norms", or these times what is remembered of gradient norms, "last seen"
            (`LastSeenNorms`), "by token" (`TokenNorms`) or "by position" (`PositionNorms`), or such an object.
        share_inputs: whether layers that read the very same tensor in one forward pass keep one copy (see
            `SharedInputs`). The estimates stay unbiased and the sum of their variances the same; errors of layers that
            share are dependent. Compiled layers do not share.

    Returns:
        Names of the converted layers, in the order of `model.named_modules()`.

    Raises:
        InputError: if the spec or the scores are unusable, if nothing can be converted, or if a layer's `forward` was
            replaced on the instance (by an offloading hook, say), which would bypass the conversion. The model is
            unchanged.

    >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> approximate_(model, "wta_crs(budget=0.3)", filter_fn=lambda name, layer: layer.out_features > 2)
    ['0']
    >>> restore_(model)
    ['0']
    """
    chosen_estimator, model = make(estimator), unwrapped(model)
    norms = make_gradient_norms(scores)
    layers = {
        name: module
        for name, module in model.named_modules()
        if own_class(module) in (nn.Linear, ApproxLinear) and (filter_fn is None or filter_fn(name, module))
    }
    if not layers:
        raise InputError(
            f"model={type(model).__name__} has no nn.Linear "
            + ("that filter_fn accepts" if filter_fn is not None else "to convert")
        )
    replaced = [name for name, layer in layers.items() if "forward" in layer.__dict__]
    if replaced:
        raise InputError(
            f"layer {replaced[0]!r} has a forward of its own (an offloading hook?) which would bypass "
            "the conversion; convert before hooks are installed, or leave it out with filter_fn"
        )
    if norms is not None:
        norms.attach(model)
    inside = [masks for module in model.modules() if (masks := RowMasks.on(module)) is not None]
    masks = RowMasks.on(model) or RowMasks(model)
    masks.sampled = True
    for name, layer in layers.items():
        if own_class(layer) is nn.Linear:
            become(layer, ApproxLinear)
        layer.estimator = chosen_estimator
        layer.min_elements, layer.share_inputs = min_elements, share_inputs
        layer.gradient_norms = norms
        if layer.row_masks is None or layer.row_masks in inside:  # else an enclosing model was converted first
            layer.row_masks, layer.stream, layer.path = masks, stream_of(model, name), name
        layer.row_masks.gradient_norms = norms
    return list(layers)


def fitting_layers(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the linear layers that fit one of the patterns (`*`, `?`, `[]`).

    Raises:
        InputError: if a pattern fits none.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in linears):
            some = f": {linears[0]} …" if linears else ""
            raise InputError(f"layers={pattern!r} fits none of the {len(linears)} linear layers{some}")
    return [name for name in linears if any(fnmatchcase(name, pattern) for pattern in patterns)]


def restore_(model: nn.Module) -> list[str]:
    """Turn every `ApproxLinear` of a model back into the `nn.Linear` it was, exactly.

    Returns:
        Names of the restored layers; empty if none was converted.
    """
    restored = []
    for name, module in unwrapped(model).named_modules():
        masks = RowMasks.on(module)
        if masks is not None:
            masks.remove()
        if own_class(module) is ApproxLinear:
            for attribute in _ATTRIBUTES:
                module.__dict__.pop(attribute, None)
            become(module, nn.Linear)
            restored.append(name)
    return restored
