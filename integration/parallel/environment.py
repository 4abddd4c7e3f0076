"""What torchrun and `accelerate launch` say about this process; imports no torch."""

from __future__ import annotations

import os


def env_world_size() -> int:
    """How many processes torchrun or `accelerate launch` started, this one among them; 1 without either."""
    return _number("WORLD_SIZE", 1)


def is_main_process() -> bool:
    """Whether this process is the one that talks to the terminal."""
    return _number("RANK", 0) == 0


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else otherwise
