"""Whether larger models can be sampled more sparsely, as data: measures of models of many sizes, and their trends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from wtacrs.validation.records.base import Record, Result, counted, register_result

Family = Literal["t5", "decoder"]
"""Encoder–decoders that read a text and write how it goes on, or decoders that predict every next token of it."""
Axis = Literal["width", "depth", "rows", "progress"]
"""What grows: per doubling of width, depth or rows; per nat that the loss has fallen."""
Condition = Literal["equal steps", "equal loss", "equal steps, a quarter of the rows", "all models"]


class SampledNoise(Record):
    """One estimator on all layers: its variance over ‖G‖², and over that of a minibatch."""

    estimator: str
    relative: float
    ratio: float


class GrowthPoint(Record):
    """One model at one time of its training.

    `rows` are those of an encoder's or decoder's layer with the most, `part` says which share of the batch was measured.
    `effective`, `tail`, `coherence` and `rows_needed` are medians over layers, each the mean over batches (see
    `validation.layers.compressibility`). `minibatch` is the variance between minibatches over ‖G‖², all layers together.
    """

    family: Family
    width: int
    depth: int
    seed: int
    step: int
    loss: float
    parameters: int
    rows: int
    part: float
    effective: float
    tail: float
    coherence: float
    rows_needed: float
    minibatch: float
    noise: Sequence[SampledNoise]

    def quantities(self) -> dict[str, float]:
        """Every quantity by its name."""
        found = {name: getattr(self, name) for name in MEASURES}
        for one in self.noise:
            found[f"{one.estimator}, of ‖G‖²"] = one.relative
            found[f"{one.estimator}, of the minibatch"] = one.ratio
        return found


MEASURES = ("effective", "tail", "coherence", "rows_needed", "minibatch")


class GrowthTrend(Record):
    """By which factor a quantity changes, with its interval; `p_value` is adjusted over the quantities (Holm).

    `verdict` is "falls" or "rises" where it is at most the level, else "not seen".
    """

    family: Family
    axis: Axis
    condition: Condition
    quantity: str
    factor: float
    low: float
    high: float
    p_value: float
    verdict: Literal["falls", "rises", "not seen"]


@register_result
class GrowthResult(Result):
    """Models of many sizes on one text; `level` is that of the tests, intervals have 1 − level.

    `widths` were trained at depth `base_depth`, `depths` at width `base_width`, with the same examples per seed.
    """

    main_table: ClassVar[str | None] = "trends"

    kind: Literal["growth"] = "growth"
    base_width: int
    base_depth: int
    batch_size: int
    length: int
    batches: int
    level: float
    trends: Sequence[GrowthTrend]
    points: Sequence[GrowthPoint]

    @property
    def headline(self) -> str:
        """How many models, and of which sizes."""
        models = {(p.family, p.width, p.depth, p.seed) for p in self.points}
        sizes = [p.parameters for p in self.points]
        return f"{counted(len(models), 'model')} of {min(sizes):,} to {max(sizes):,} parameters"
