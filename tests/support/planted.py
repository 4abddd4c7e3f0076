"""Estimators with one defect each, for the properties and for enumeration to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from wtacrs.estimators import (
    CRS,
    WTACRS,
    Estimator,
    RowEstimator,
    RowPlan,
    TopK,
    Traits,
    row_norms,
    sampling_scores,
)


class WeightWithoutK(CRS):
    """The 1/k of the weights is missing."""

    name = "weight_without_k"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(weights=plan.weights * uniforms.shape[0])


class WeightOffByK(CRS):
    """Divides by k twice."""

    name = "weight_off_by_k"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(weights=plan.weights / max(uniforms.shape[0], 1))


class TailNotRenormalised(WTACRS):
    """Tail rows weighed as if drawn from all rows: 1/((k − |C|) p) instead of P_T/((k − |C|) p)."""

    name = "tail_not_renormalised"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        tail, _ = self._tail(scores)
        mass = (scores * tail).sum() / scores.sum()
        in_tail = tail[plan.indices] > 0
        return plan._replace(weights=torch.where(in_tail, plan.weights / mass, plan.weights))


class TailDropped(WTACRS):
    """Draws the tail and gives it no weight."""

    name = "tail_dropped"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        tail, _ = self._tail(scores)
        return plan._replace(weights=torch.where(tail[plan.indices] > 0, 0.0, plan.weights))


class TailDroppedBehindHeavyWinners(WTACRS):
    """Drops the tail only where the winners hold more than 0.999 of the mass."""

    name = "tail_dropped_behind_heavy_winners"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        tail, _ = self._tail(scores)
        light = (scores * tail).sum() < 1e-3 * scores.sum()
        return plan._replace(weights=torch.where((tail[plan.indices] > 0) & light, 0.0, plan.weights))


@dataclass(frozen=True, repr=False)
class UnweightedWithoutReplacement(RowEstimator):
    """k distinct rows, unweighted; no cuts, so only sampling can tell."""

    name: ClassVar[str] = "unweighted_without_replacement"
    traits: ClassVar[Traits] = Traits("rows", True, False, True, True)

    def uniforms(self, n):
        return n

    def plan(self, scores, uniforms):
        k = max(
            min(int(self.budget * len(scores)) if isinstance(self.budget, float) else self.budget, len(scores)), 0
        )
        keys = torch.where(scores > 0, uniforms, 2.0)
        return RowPlan(keys.argsort()[:k], (scores[keys.argsort()[:k]] > 0).double())


class Stuck(CRS):
    """Its random stream starts anew at every call."""

    name = "stuck"

    def draw(self, scores, generator=None):
        own = torch.Generator(scores.device).manual_seed(1)
        return super().draw(scores, own)


class EpsilonAdded(CRS):
    """ε on every probability, in the draw and not in the normalisation of the weights."""

    name = "epsilon_added"

    def plan(self, scores, uniforms):
        positive = scores > 0
        lifted = torch.where(positive, scores / scores.sum() + 1e-6, 0.0)
        plan = super().plan(lifted, uniforms)
        return plan._replace(weights=1.0 / (lifted[plan.indices] * max(uniforms.shape[0], 1)))

    def cuts(self, scores, chosen):
        return super().cuts(torch.where(scores > 0, scores / scores.sum() + 1e-6, 0.0), chosen)


class BiasedWithoutScores(CRS):
    """Forgets the weights when all scores are equal, as they are when none is known."""

    name = "biased_without_scores"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        unknown = (scores == scores[:1]).all() if scores.numel() else torch.tensor(False)
        return plan._replace(weights=torch.where(unknown, 1.0, plan.weights))


class HiddenBiasedWithoutScores(BiasedWithoutScores):
    """The same, behind an overridden draw: enumeration cannot see it."""

    name = "hidden_biased_without_scores"

    def draw(self, scores, generator=None):
        return super().draw(scores, generator)


class Integers(CRS):
    """Returns the wrong dtype."""

    name = "integers"

    def contract(self, saved, dy):
        return super().contract(saved, dy).float()


class Transposed(CRS):
    """Returns `[d, m]`."""

    name = "transposed"

    def contract(self, saved, dy):
        return super().contract(saved, dy).T


class Quadratic(TopK):
    """Not linear in dy."""

    name = "quadratic"

    def contract(self, saved, dy):
        product = super().contract(saved, dy)
        return product * product.norm()


class Careless(CRS):
    """Scales x in place."""

    name = "careless"

    def compress(self, x, *, scores=None, generator=None):
        saved = super().compress(x, scores=scores, generator=generator)
        x.mul_(0.5)
        return saved


class Secretive(TopK):
    """Declared deterministic, yet draws."""

    name = "secretive"

    def compress(self, x, *, scores=None, generator=None):
        torch.rand(1)
        return super().compress(x, scores=scores, generator=generator)


class Ragged(TopK):
    """Saves as many rows as have a positive score."""

    name = "ragged"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        used = plan.weights > 0
        return RowPlan(plan.indices[used], plan.weights[used])


class Trusting(Estimator):
    """Checks nothing, and keeps x alive behind a small view."""

    name = "trusting"
    traits = Traits("rows", False, True, True, False)

    def compress(self, x, *, scores=None, generator=None):
        return x[: x.shape[0] // 2], x.new_empty((x.shape[0], 0))

    def contract(self, saved, dy):
        return dy[: saved[0].shape[0]].T @ saved[0]

    def __repr__(self):
        return "trusting"


class Blocking(TopK):
    """Waits for the device."""

    name = "blocking"

    def plan(self, scores, uniforms):
        scores.sum().item()
        return super().plan(scores, uniforms)


class Curious(TopK):
    """Keeps a row of score 0 where there is room."""

    name = "curious"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        return plan._replace(
            indices=scores.argsort()[: plan.indices.numel()], weights=torch.ones_like(plan.weights)
        )


class Absolute(TopK):
    """Reads the scores' absolute size."""

    name = "absolute"

    def compress(self, x, *, scores=None, generator=None):
        raw = row_norms(x) if scores is None else scores.double()
        sampling_scores(x, scores)
        return super().compress(x, scores=torch.where(raw > 1.0, raw, 0.0), generator=generator)


class Misremembered(CRS):
    """States the variance of one draw."""

    name = "misremembered"

    def variance(self, x, dy, *, scores=None):
        return super().variance(x, dy, scores=scores) * 2.0


class MisrememberedHidden(Misremembered):
    """The same where nothing can be enumerated."""

    name = "misremembered_hidden"

    def draw(self, scores, generator=None):
        return super().draw(scores, generator)


class OwnScores(TopK):
    """`matmul` forgets the joint norms."""

    name = "own_scores"

    def matmul(self, a, b, *, scores=None, generator=None):
        return self.contract(self.compress(b, scores=scores, generator=generator), a.T)


class AlmostFull(TopK):
    """Never keeps all rows, yet declares to be exact then."""

    name = "almost_full"

    def plan(self, scores, uniforms):
        plan = super().plan(scores, uniforms)
        last = torch.arange(plan.weights.numel()) == plan.weights.numel() - 1
        return plan._replace(weights=torch.where(last, 0.0, plan.weights))


class Singular(CRS):
    """Squares fp16 norms: overflows."""

    name = "singular"

    def contract(self, saved, dy):
        product = super().contract(saved, dy)
        return product * (saved.rows.square().sum() / saved.rows.square().sum())


class Forgetful(CRS):
    """Its cuts miss one."""

    name = "forgetful"

    def cuts(self, scores, chosen):
        return super().cuts(scores, chosen)[1:]
