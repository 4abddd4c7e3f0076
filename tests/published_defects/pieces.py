"""What is known of a piece of external code: what it does, and where it is broken, which law must find that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from wtacrs.estimators import Estimator
from wtacrs.validation.properties.external_kinds import external_from
from wtacrs.validation.properties.means import POOLED

HEAVY, DOMINATING, EQUAL = "mean: heavy-tailed rows", "mean: one dominating row", "mean: equal rows"
ZEROS, CANCELLING, TINY = "mean: zero rows", "mean: rows that cancel", "mean: tiny gradients"
COLUMNS = "mean: unequal columns"
OTHER_BATCH, DEEP, STALE = "mean: after another batch", "mean: 3-D input", "mean: after rows without gradient"
MEAN_LAWS = (HEAVY, EQUAL, ZEROS, CANCELLING, COLUMNS, TINY, OTHER_BATCH, DOMINATING, DEEP, STALE)
ADVANCES, BIAS_GRADIENT, VARIANCE = "the draw advances", "bias gradient", "closed forms, by sampling"

Code = TypeVar("Code", bound=Callable[..., object])
PIECES: dict[str, Piece] = {}


@dataclass(frozen=True)
class Piece:
    """One piece of external code.

    Args:
        name: of the object in its module.
        module: that holds it.
        description: what it does, in one line.
        law: that must find it; empty for a sound piece.
        bias: largest deviation along a direction of this law, as a share, where it follows by arithmetic.
        ruled_out: the bias that the law must be asked to rule out in order to find it.
    """

    name: str
    module: str
    description: str
    law: str = ""
    bias: float | None = None
    ruled_out: float = 0.1

    @property
    def group(self) -> str:
        """Name of the module without the package."""
        return self.module.rpartition(".")[2]

    def load(self) -> Estimator:
        """What `wtacrs check` examines."""
        return external_from(f"{self.module}:{self.name}")


def defect(
    law: str, description: str, *, bias: float | None = None, ruled_out: float = 0.1
) -> Callable[[Code], Code]:
    """Enter a broken piece: the law that finds it, what it does, and its bias where that is known."""
    return _entered(law, description, bias, ruled_out)


def sound(description: str) -> Callable[[Code], Code]:
    """Enter a piece that no law may find."""
    return _entered("", description, None, 0.1)


def _entered(law: str, description: str, bias: float | None, ruled_out: float) -> Callable[[Code], Code]:
    def enter(code: Code) -> Code:
        name = code.__name__
        if name in PIECES:
            raise ValueError(f"two pieces are called {name}")
        PIECES[name] = Piece(name, code.__module__, description, law, bias, ruled_out)
        return code

    return enter


def all_pieces() -> dict[str, Piece]:
    """Every piece by name, defects and sound ones, in the order of the modules."""
    from published_defects import caches, layers, rounding, rows, sketches  # noqa: F401

    return PIECES


__all__ = [
    "ADVANCES", "BIAS_GRADIENT", "CANCELLING", "COLUMNS", "DEEP", "DOMINATING", "EQUAL", "HEAVY", "MEAN_LAWS",
    "OTHER_BATCH", "PIECES", "POOLED", "STALE", "TINY", "VARIANCE", "ZEROS", "Piece", "all_pieces", "defect", "sound",
]  # fmt: skip
