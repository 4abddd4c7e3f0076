"""Running averages of gradient norms by token."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Int64
from torch import Size, Tensor, nn, where

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.context.forward_pass import ForwardPass
from wtacrs.integration.context.streams import Stream
from wtacrs.integration.score_memory.gradient_norms import FLOOR
from wtacrs.integration.score_memory.running_norms import DECAY, RunningNorms
from wtacrs.validation.arguments import checked_integer


class TokenNorms(RunningNorms):
    """Average by the token that a row reads, or in a decoder with labels by the token that it is to predict.

    Rows that are not told by a token, of a pooler say, are sampled by their row norms.

    Args:
        vocabulary: number of tokens; default that of the model's `config`. Tokens beyond have no average.
        decay: as in `RunningNorms`.
        floor: share of the probability that is spread evenly.
    """

    kind: ClassVar[str] = "by-token"

    def __init__(self, vocabulary: int | None = None, *, decay: float = DECAY, floor: float = FLOOR) -> None:
        super().__init__(decay=decay, floor=floor)
        if vocabulary is not None:
            vocabulary = checked_integer(vocabulary, "vocabulary", least=1, or_none=True)
        self._vocabulary = vocabulary

    @property
    def keys(self) -> int:
        """Size of the vocabulary; 0 before a model is converted."""
        return self._vocabulary or 0

    def attach(self, model: nn.Module) -> None:
        """Take the size of the vocabulary from the model, if none was given.

        Raises:
            InputError: if the model does not say.
        """
        if self._vocabulary is None:
            self._vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
        if self._vocabulary is None:
            raise InputError(
                f"scores='by-token': {type(model).__name__} has no config.vocab_size; use TokenNorms(vocabulary=…)"
            )

    def _places(
        self, current: ForwardPass, kind: str, stream: Stream | None, shape: Size
    ) -> Int64[Tensor, " n"] | None:
        tokens = None if stream is None else current.tokens.get(stream)
        if tokens is None or tokens.shape != shape:
            return None
        mask = current.mask(shape)
        known = (tokens >= 0) & (tokens < self.keys)
        if mask is not None:
            known &= mask
        return where(known, tokens, -1).reshape(-1)
