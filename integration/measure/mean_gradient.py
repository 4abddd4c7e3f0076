"""`MeanOf`: the mean of an estimator in its place, so that a model's gradient is its expectation and not a draw of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wtacrs.estimators import Estimator, Traits
from wtacrs.estimators.core.products import product_dtype
from wtacrs.estimators.core.scores import sampling_scores


class WholeInput(NamedTuple):
    """The input and the scores that its rows would be drawn by."""

    x: Float[Tensor, "n d"]
    scores: Float64[Tensor, " n"]


@dataclass(frozen=True, repr=False)
class MeanOf(Estimator[WholeInput]):
    """An estimator that returns `E Ĝ` of another one, over the draws, by the scores that a layer gives.

    A model converted with it has the expected gradient of one converted with `estimator`: the layers treat both alike
    (traits, rows kept), and dW is linear in what they draw. So a bias shows in one backward pass, without the noise of
    draws. It keeps the whole input, for studies and not for training.

    Args:
        estimator: whose mean it is; it needs a closed form of it.
    """

    estimator: Estimator
    name = "mean_of"

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of the estimator."""
        return self.estimator.traits

    def compress(
        self,
        x: Float[Tensor, "n d"],
        *,
        scores: Shaped[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> WholeInput:
        """Keep everything; nothing is drawn."""
        return WholeInput(x.detach(), sampling_scores(x, scores))

    def contract(self, saved: WholeInput, dy: Float[Tensor, "n m"]) -> Float[Tensor, "m d"]:
        """`E Ĝ`.

        Raises:
            NoClosedForm: if the estimator has none.
        """
        mean = self.estimator.expectation(saved.x, dy, scores=saved.scores)
        return mean.to(product_dtype(saved.x, dy))
