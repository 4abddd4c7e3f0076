"""Names of layers in a model that peft has wrapped."""

from __future__ import annotations


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
    """Whether a layer is the B of an adapter, which reads no more numbers a row than its rank."""
    return "lora_B" in name.split(".")
