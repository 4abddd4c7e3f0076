"""All claims in order: the theorems first, then the counter-examples to what only looks true."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.theory import Claim, TheoryResult
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.theory import counter_examples, stored_factors, theorems

CLAIMS: dict[str, Callable[[torch.Generator], Claim]] = {
    "ipps-optimum": theorems.ipps_optimum,
    "take-all": theorems.take_all,
    "optimal-rule": theorems.optimal_rule,
    "without-replacement": theorems.without_replacement,
    "wta-condition": theorems.wta_condition,
    "coherent-rows": theorems.coherent_rows,
    "any-scores": theorems.any_scores,
    "mask-hint": theorems.mask_hint,
    "mask-cost": theorems.mask_cost,
    "oracle-ratio": theorems.oracle_ratio,
    "stored-factors": stored_factors.stored_factors,
    "poisson": counter_examples.poisson,
    "priority": counter_examples.priority,
    "systematic-order": counter_examples.systematic_order,
    "crs-full": counter_examples.crs_full,
    "topk": counter_examples.topk,
    "plain-floor": counter_examples.plain_floor,
    "independent-codes": stored_factors.independent_codes,
    "rounded-scores": stored_factors.rounded_scores,
    "rounded-norm": stored_factors.rounded_norm,
}


def theory(
    names: Sequence[str] | None = None, *, seed: int = 0, progress: Callable[[str, int, int], None] | None = None
) -> TheoryResult:
    """Compute the numbers of the named claims; each is a function of the seed alone, whatever else is computed.

    Args:
        names: keys of `CLAIMS`; all if None.
        seed: of the random problems, 0 ≤ seed < 2³².
        progress: called with a claim's name, how many are done, and how many there are.

    Raises:
        InputError: on an unknown name or an unusable seed.
    """
    seed = checked_seed(seed)
    found = []
    names = list(CLAIMS) if names is None else names
    for done, name in enumerate(names, start=1):
        if name not in CLAIMS:
            raise InputError(f"unknown claim {name!r}; there are: {', '.join(CLAIMS)}")
        found.append(CLAIMS[name](torch.Generator().manual_seed(seed)))
        if progress is not None:
            progress(name, done, len(names))
    return TheoryResult(stamp=stamp(seed=seed), claims=found)
