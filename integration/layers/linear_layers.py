"""Which modules are linear layers, `nn.Linear` and the `Conv1D` of transformers, and what they are called without peft.

transformers is not imported here: a model that holds a `Conv1D` has imported it.
"""

from __future__ import annotations

import sys

from torch import nn


def conv1d_class() -> type[nn.Module] | None:
    """The `Conv1D` of transformers, whose weight is `[d, m]`, or None as long as nothing has imported it."""
    return getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)


def is_linear_layer(module: nn.Module) -> bool:
    """Whether a module is an `nn.Linear` or a `Conv1D`, of whichever subclass."""
    conv1d = conv1d_class()
    return isinstance(module, nn.Linear) or (conv1d is not None and isinstance(module, conv1d))


def projection_name(name: str) -> str:
    """The name that a layer, or the layer that it adapts, has in the model without peft's wrappers inside.

    >>> projection_name("base_model.model.decoder.block.0.q.lora_A.default")
    'base_model.model.decoder.block.0.q'
    >>> projection_name("base_model.model.bert.pooler.modules_to_save.default.dense")
    'base_model.model.bert.pooler.dense'
    """
    parts: list[str] = []
    rest = iter(name.split("."))
    for part in rest:
        if part.startswith("lora_"):
            break
        if part == "modules_to_save":
            next(rest, None)  # the adapter's name
        elif part not in ("base_layer", "original_module"):
            parts.append(part)
    return ".".join(parts)


def reads_rank(name: str) -> bool:
    """Whether a layer is the B of an adapter of peft, which reads no more than its rank."""
    return "lora_B" in name.split(".")
