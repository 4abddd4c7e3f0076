"""What a plan asks of a model: which estimator, which lean options and which checkpoints for every block."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.checkpointed import restore_checkpointed, set_checkpointed
from wtacrs.integration.layers.lean.convert import (
    LeanConversion,
    common_dropout,
    lean_by_block_,
    restore_lean,
    restore_lean_attention,
)
from wtacrs.integration.layers.lean.head import restore_head
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.validation.patterns import first_few
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.plan import BlockChoices, Plan
from wtacrs.validation.records.results import load_result


def load_plan(path: str | Path) -> Plan:
    """Read a plan that `wtacrs plan` has written.

    Raises:
        InputError: if the file is no plan.
    """
    return expect(load_result(Path(path)), Plan, f"plan={path}")


def check_choices(choices: BlockChoices, model: nn.Module) -> None:
    """Refuse what is for other blocks than those of a model; the model is looked at only.

    Raises:
        InputError: naming a block that the model has not, or unusable words.
    """
    there = list(blocks_of(model))
    missing = [name for name in choices.blocks if name not in there]
    if missing:
        raise InputError(
            f"plan: {type(model).__name__} has no block {missing[0]!r}; "
            + (f"its blocks are {first_few(there)}" if there else "it has no blocks")
        )
    common_dropout(
        LeanOptions.parse(choice.lean, f"plan: {name}: lean")
        for name, choice in choices.blocks.items()
        if choice.lean is not None
    )


def estimators_of(choices: BlockChoices) -> dict[str, str]:
    """Estimators by pattern, as `approximate_` takes them."""
    found = {f"{name}.*": c.estimator for name, c in choices.blocks.items() if c.estimator is not None}
    return found or {"*": "exact"}


def lean_planned_(model: nn.Module, choices: BlockChoices) -> LeanConversion | None:
    """Make the blocks lean that are to be, each in its way, and all else stock; None if none is."""
    make_neighbours_stock(model)
    options = {name: LeanOptions.parse(c.lean) for name, c in choices.blocks.items() if c.lean is not None}
    if not options and choices.head is None:
        return None
    return lean_by_block_(model, options, head=choices.head)


def make_neighbours_stock(model: nn.Module) -> None:
    """Undo `lean_` and checkpoints; estimated layers stay."""
    for module in model.modules():
        restore_lean(module)
        restore_checkpointed(module)
    restore_head(model)
    restore_lean_attention(model)


def checkpoint_planned_(model: nn.Module, choices: BlockChoices) -> list[str]:
    """Checkpoint the blocks that are to be; their names."""
    blocks = blocks_of(model)
    names = [name for name, choice in choices.blocks.items() if choice.checkpointed]
    set_checkpointed(blocks[name] for name in names)
    return names
