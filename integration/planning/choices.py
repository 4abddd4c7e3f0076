"""The choices that a plan picks from: every estimator and checkpointing, with every way to be lean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from wtacrs.estimators import make
from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.lean.head import restore_head, set_lean_head
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.validation.records.plan import STOCK, Choice

Head = Literal["forward", "again"] | None
"""How the output layer is lean; None for the stock one."""
BUDGETS: tuple[float, ...] = (0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
ESTIMATORS: tuple[str, ...] = tuple(f"wta_crs(budget={budget})" for budget in BUDGETS)
"""From many rows to few."""
FEW_ESTIMATORS: tuple[str, ...] = tuple(f"wta_crs(budget={budget})" for budget in (0.5, 0.3, 0.1))
"""For simulated costs: lean attention runs hundreds of operators a layer, in as many simulated steps as there are."""
LEAN: tuple[str, ...] = ("neighbours", "attention", "attention-again")
"""Words of `LeanOptions`."""


def choices_of(
    estimators: Sequence[str] = ESTIMATORS, lean: Sequence[str] = LEAN, *, checkpointed: bool = True
) -> list[Choice]:
    """All choices for one block, the stock one first.

    Checkpointed blocks have exact gradients: of what they compute twice nothing is kept that an estimator could spare.

    Args:
        estimators: specs.
        lean: words of `LeanOptions` for one block; stock neighbours are always among the choices.
        checkpointed: whether blocks may be run again in the backward pass.

    Raises:
        InputError: on an unusable spec or word, and on a way to be lean that is of the output layer.

    >>> [str(choice) for choice in choices_of(["crs(budget=0.5)"], [])]
    ['exact', 'crs(budget=0.5)', 'exact, checkpointed']
    """
    specs = [None, *(repr(make(spec)) for spec in estimators)]
    words: list[str | None] = [None]
    for text in lean:
        options = LeanOptions.parse(text)
        if options.head is not None:
            raise InputError(f"lean={text!r}: the output layer is no block; heads are chosen by themselves")
        words.append(str(options))
    found = [
        choice
        for word in words
        for choice in [
            *(Choice(estimator=spec, lean=word) for spec in specs),
            *([Choice(lean=word, checkpointed=True)] if checkpointed else []),
        ]
    ]
    assert found[0] == STOCK
    return list(dict.fromkeys(found))


def group_of(choice: Choice) -> str | None:
    """What a choice must have in common with those of other blocks: their dropout, of all that are lean.

    Attention and bits are chosen block by block. Stock neighbours, None, go with any.
    """
    return None if choice.lean is None else str(LeanOptions(dropout=LeanOptions.parse(choice.lean).dropout))


def heads_of(model: nn.Module) -> tuple[Head, ...]:
    """The choices of the output layer: lean ones where it can be. The model is left as it was, if its head is stock."""
    reasons = set_lean_head(model)
    restore_head(model)
    return (None,) if reasons else (None, "forward", "again")
