"""The repeated units of a model: what activation checkpointing wraps, and what a plan chooses for."""

from __future__ import annotations

from torch import nn

from wtacrs.integration.layers.checkpointed import unchecked_class
from wtacrs.integration.layers.linear_layers import is_linear_layer


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Blocks by name, in the order of `model.named_modules()`.

    A block is a member of a list (`nn.ModuleList`) or a chain (`nn.Sequential`) of two or more modules that are all of
    one class, and holds a linear layer without being one. A list of one module counts where its class repeats elsewhere.
    Blocks within blocks, such as experts, belong to the outer one.

    >>> layer = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    >>> list(blocks_of(nn.TransformerEncoder(layer, 2)))
    ['layers.0', 'layers.1']
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
    }
    kinds = {kind for module in lists.values() if (kind := _kind(module)) is not None and len(module) > 1}
    found: dict[str, nn.Module] = {}
    for name, module in lists.items():
        if _kind(module) in kinds and not _within(name, found):
            found |= {f"{name}.{key}".lstrip("."): m for key, m in module._modules.items() if m is not None}
    return found


def _kind(members: nn.ModuleList | nn.Sequential) -> type[nn.Module] | None:
    """The class that all members are of; None if they differ, are used twice, or are no blocks."""
    units = list(members)
    kinds = {unchecked_class(unit) for unit in units}
    same = len(kinds) == 1 and len(set(units)) == len(units)
    return kinds.pop() if same and all(map(_is_unit, units)) else None


def _is_unit(module: nn.Module) -> bool:
    return not is_linear_layer(module) and any(is_linear_layer(part) for part in module.modules())


def _within(name: str, found: dict[str, nn.Module]) -> bool:
    return any(name == block or name.startswith(f"{block}.") for block in found)
