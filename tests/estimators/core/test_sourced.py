"""Everything random goes through a source, and both verbs are `keep` and `finish` on drawn choices."""

from __future__ import annotations

import pytest
import torch

from wtacrs.estimators import available, lookup, make
from wtacrs.estimators.core.counter_rng import CounterStream
from wtacrs.estimators.core.scores import sampling_scores
from wtacrs.estimators.core.sourced import DrawnChoices, RegeneratingEstimator, SourcedEstimator

SPECS = (
    "crs(budget=0.3)",
    "srht(budget=0.3)",
    "prac(rank=3)",
    "pamm(budget=0.3)",
    "fp8",
    "quantized_rows(rows=systematic(budget=0.3))",
    'quantized_rows(rounding="stochastic", rows=crs(budget=0.3))',
    "mixed_precision_rows(slots=0.7)",
)


def test_all_that_is_random_asks_a_source() -> None:
    for name in available():
        cls = lookup(name)
        assert cls.traits.deterministic or cls.random_part is not None or issubclass(cls, SourcedEstimator), name


@pytest.mark.parametrize("spec", SPECS)
def test_the_verbs_are_keep_and_finish(spec: str, generator: torch.Generator) -> None:
    estimator = make(spec)
    assert isinstance(estimator, SourcedEstimator)
    x, dy = torch.randn(20, 8, generator=generator), torch.randn(20, 3, generator=generator)
    state = generator.get_state()
    saved = estimator.compress(x, generator=generator)
    after = generator.get_state()
    kept = estimator.keep(x, sampling_scores(x), DrawnChoices(generator.set_state(state), x.device))
    assert all(torch.equal(a, b) for a, b in zip(saved, kept, strict=True))
    assert torch.equal(generator.get_state(), after)
    seed = getattr(saved, "seed", torch.zeros(1, dtype=torch.int64))
    assert torch.equal(estimator.finish(saved, dy, CounterStream(seed)), estimator.contract(saved, dy))
    if isinstance(estimator, RegeneratingEstimator) and seed.numel() and spec != "pamm(budget=0.3)":
        assert not torch.equal(
            estimator.finish(saved, dy, CounterStream(seed + 1)), estimator.contract(saved, dy)
        ), "the numbers of the source are not used"
