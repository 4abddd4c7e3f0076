"""Variance of WTA-CRS for every number of winners |C|, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import model_validator

from wtacrs.validation.records.base import Record, Result, ScoreKind, counted, counted_layers, register_result


class WinnerSweep(Record):
    """Variance of WTA-CRS on one layer at one budget, for numbers of winners |C| from 0 to k − 1.

    `captures` says where the layer is from: the model, and the training step if it is known. `variance[i]` belongs to
    `winners[i]` rows kept with certainty; where k is large not every number is listed, but 0, k − 1 and the choices
    are. `paper`, `optimal` and `best` are numbers of winners: the paper's rule, the optimal rule, which minimises the
    variance without its cross term, and the true minimiser over all of 0 … k − 1; `crs` is the variance of plain CRS
    with the same scores and k.

    With `products` the variances are exact and relative to ‖G‖². Without, the term ‖G_T‖² was left out: they are upper
    bounds, `S_T Σ_T w²/s / (k − |C|)`, relative to the same sums over all rows, and `best` is None.
    """

    table_series: ClassVar[Mapping[str, Sequence[str]]] = {"curve": ("winners", "variance")}

    captures: str
    layer: str
    scores: ScoreKind
    budget: int | float
    n: int
    k: int
    products: bool
    winners: Sequence[int]
    variance: Sequence[float]
    paper: int
    optimal: int
    best: int | None
    crs: float

    @model_validator(mode="after")
    def _as_long(self) -> WinnerSweep:
        if len(self.winners) != len(self.variance):
            raise ValueError(
                f"sweep of layer {self.layer!r} has {len(self.winners)} winners and {len(self.variance)} variances"
            )
        return self


@register_result
class SweepResult(Result):
    """|C| sweeps over captured layers."""

    main_table: ClassVar[str | None] = "curve"

    kind: Literal["sweep"] = "sweep"
    sweeps: Sequence[WinnerSweep]

    @property
    def headline(self) -> str:
        """Numbers of layers and budgets."""
        entries = [f"{sweep.captures}, {sweep.layer}" for sweep in self.sweeps]
        budgets = {repr(sweep.budget) for sweep in self.sweeps}
        return f"{counted_layers(entries)} × {counted(len(budgets), 'budget')}"
