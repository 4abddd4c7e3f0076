"""Names of layers in a model that peft has wrapped."""

from __future__ import annotations


def reads_rank(name: str) -> bool:
    """Whether a layer is the B of an adapter, which reads no more numbers a row than its rank."""
    return "lora_B" in name.split(".")
