"""Which estimator each linear layer of a model is given: one for all, or by patterns of their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from wtacrs.estimators import Estimator, InputError, make
from wtacrs.validation.arguments import without_prefixes
from wtacrs.validation.patterns import check_patterns, first_fitting

EstimatorChoice = str | Estimator | Mapping[str, str | Estimator]
"""A spec such as `"wta_crs(budget=0.3)"`, an `Estimator`, or either by pattern."""

_ARGUMENT = "estimator"


def estimator_by_layer(
    choice: EstimatorChoice, layers: Sequence[str], others: Collection[str] = ()
) -> dict[str, Estimator | None]:
    """The estimator of every layer, None for a layer that is to be stock.

    Args:
        choice: one estimator for all; or by pattern (`*`, `?`, `[]`), of which the first that a layer's name fits counts.
            `"exact"` by pattern, or no pattern that fits, leaves a layer stock.
        layers: names of those that can be converted.
        others: names of linear layers that cannot be, which an `"exact"` may name too.

    Raises:
        InputError: on an unusable spec, no pattern, or a pattern that fits none.
    """
    if not isinstance(choice, Mapping):
        return dict.fromkeys(layers, made_of_argument(choice))
    if not choice:
        raise InputError(
            f"{_ARGUMENT}={{}} names no layer: give a spec, or one by pattern, as in {{'encoder.*': 'crs'}}"
        )
    for pattern in choice:
        if not isinstance(pattern, str):
            raise InputError(
                f"{_ARGUMENT}: pattern={pattern!r} must be a text that fits names of layers, as in 'encoder.*'"
            )
    made = {pattern: _made(spec, f"{_ARGUMENT}[{pattern!r}]={spec!r}") for pattern, spec in choice.items()}
    for pattern, estimator in made.items():
        known = others if _is_exact(estimator) else ()
        check_patterns([pattern], layers, argument=f"{_ARGUMENT}: pattern", what="layers", synonyms=list(known))
    found = {name: first_fitting(name, made) for name in layers}
    return {
        name: None if pattern is None or _is_exact(made[pattern]) else made[pattern]
        for name, pattern in found.items()
    }


def made_of_argument(estimator: str | Estimator) -> Estimator:
    """What `make` makes of the argument `estimator`, which its errors name.

    Raises:
        InputError: on an unusable spec.
    """
    return _made(estimator, f"{_ARGUMENT}={estimator!r}")


def left_out(choice: EstimatorChoice, name: str) -> bool:
    """Whether a choice by pattern leaves a name stock: `"exact"` is the first that it fits, or it fits none."""
    if not isinstance(choice, Mapping):
        return False
    pattern = first_fitting(name, choice)
    return pattern is None or _is_exact(make(choice[pattern]))


def _made(spec: str | Estimator, given: str) -> Estimator:
    try:
        return make(spec)
    except InputError as error:
        raise InputError(f"{given}: {without_prefixes(str(error), given, spec)}") from None


def _is_exact(estimator: Estimator) -> bool:
    return estimator.traits.family == "exact"
