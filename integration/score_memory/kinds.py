"""The kinds of scores that layers can be sampled by while they train, by name."""

from __future__ import annotations

from collections.abc import Callable

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.score_memory.gradient_norms import GradientNorms
from wtacrs.integration.score_memory.last_seen_norms import LastSeenNorms
from wtacrs.integration.score_memory.learned_norms import LearnedNorms
from wtacrs.integration.score_memory.position_norms import PositionNorms
from wtacrs.integration.score_memory.token_norms import TokenNorms

_KINDS: dict[str, Callable[[], GradientNorms]] = {
    LastSeenNorms.kind: LastSeenNorms,
    TokenNorms.kind: TokenNorms,
    PositionNorms.kind: PositionNorms,
    LearnedNorms.kind: LearnedNorms,
}
TRAINING_SCORES = ("row-norms", *_KINDS)
"""Names that `approximate_` and `wtacrs finetune --scores` take."""


def make_gradient_norms(scores: str | GradientNorms) -> GradientNorms | None:
    """A new memory of the named kind, or the given one; None for "row-norms", which remember nothing.

    Raises:
        InputError: on another name.
    """
    if isinstance(scores, GradientNorms):
        return scores
    check_training_scores(scores)
    return _KINDS[scores]() if scores in _KINDS else None


def check_training_scores(scores: object) -> None:
    """Refuse what is not one of `TRAINING_SCORES`.

    Raises:
        InputError: naming them.
    """
    if scores not in TRAINING_SCORES:
        raise InputError(f"scores={scores!r} must be {known_training_scores()}")


def known_training_scores() -> str:
    """The accepted names, for messages."""
    return f"one of {', '.join(map(repr, TRAINING_SCORES))}"
