"""What a user's own training loop saves and loads, so that a resumed run draws what it would have drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.draws import check_draws
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.mask_watch import check_misled
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.parallel.wrappers import unwrapped
from wtacrs.validation.arguments import shown
from wtacrs.validation.patterns import first_few


def sampling_state(model: nn.Module) -> dict[str, Any]:
    """What the draws of a converted model depend on in this process, besides the rank: JSON can hold it.

    A run goes on bit by bit if its own state (weights, optimizer, torch's generators, data) is restored and this is given
    to `load_sampling_state`. Each process has its own, since masks may mislead in one and not in another.

    Returns:
        By the name of the module that `approximate_` was called with ("" for the model itself) `seed` and `passes` of
        the draws, and in `misled` the layers that use no mask any more, with the share of ‖dY‖² that gave it away. Empty
        for a model that is not converted.

    Raises:
        InputError: if the model is no `nn.Module`.
    """
    return {name: context.state_dict() for name, context in _contexts(model).items()}


def load_sampling_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Go on from what `sampling_state` returned of a model that was converted in the same way.

    Raises:
        InputError: if the state is of other modules or layers, or is none; nothing is changed then.
    """
    contexts = _contexts(model)
    if not isinstance(state, Mapping) or state.keys() != contexts.keys():
        named = list(state) if isinstance(state, Mapping) else state
        raise InputError(
            f"state: is of converted modules {shown(named)}, and the model has {list(contexts)!r}; "
            "convert it first, as it was"
        )
    for name, context in contexts.items():
        _check_state(state[name], _layers_of(model, context), f"state[{name!r}]")
    for name, context in contexts.items():
        context.load_state_dict(state[name])


def misled_layers(model: nn.Module) -> dict[str, float]:
    """Layers that masks misled so far, with the share of ‖dY‖² in the rows called padding (see `MaskWatch`)."""
    found: dict[str, float] = {}
    for name, context in _contexts(model).items():
        prefix = f"{name}." if name else ""
        found |= {f"{prefix}{layer}": share for layer, share in context.watch.read().items()}
    return found


def agreed_sampling_state(state: dict[str, Any]) -> dict[str, Any]:
    """The state of this process with the misled layers of all processes; all of them must ask.

    For a checkpoint that they share: each goes on from it as it does from the same state when it is resumed.
    """
    everywhere = Processes.here().gathered(state)
    agreed = {name: dict(context) for name, context in state.items()}
    for name, context in agreed.items():
        shares: dict[str, float] = {}
        for theirs in everywhere:
            for layer, share in theirs.get(name, {}).get("misled", {}).items():
                shares[layer] = max(share, shares.get(layer, 0.0))
        context["misled"] = dict(sorted(shares.items()))
    return agreed


def _check_state(state: object, layers: Sequence[str], argument: str) -> None:
    """Refuse what cannot be the state of one context."""
    if not isinstance(state, Mapping):
        raise InputError(f"{argument}={shown(state)} must be a dict of seed, passes and misled")
    check_draws(state, argument)
    misled = state.get("misled")
    check_misled(misled, f"{argument}['misled']")
    for layer in misled or ():
        if layer not in layers:
            raise InputError(
                f"{argument}['misled'] names {layer!r}, none of the {len(layers)} converted layers: {first_few(layers)}"
            )


def _layers_of(model: nn.Module, context: ForwardContext) -> list[str]:
    """Names that a context knows the converted layers of a model by."""
    return [
        str(module.path) for module in unwrapped(model).modules() if getattr(module, "context", None) is context
    ]


def _contexts(model: nn.Module) -> dict[str, ForwardContext]:
    named = unwrapped(model).named_modules()
    return {name: context for name, module in named if (context := ForwardContext.of(module)) is not None}
