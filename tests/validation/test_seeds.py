"""One range of seeds, refused where a seed enters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wtacrs.estimators import InputError, make
from wtacrs.validation.properties.checks import check_estimator
from wtacrs.validation.runner import generator_for
from wtacrs.validation.seeds import LARGEST_SEED, checked_seed
from wtacrs.validation.theory.claims import theory


@pytest.mark.parametrize("seed", [0, 1, LARGEST_SEED, np.int64(7), np.uint32(LARGEST_SEED)])
def test_integers_in_the_range_become_integers_of_python(seed: Any) -> None:
    found = checked_seed(seed)
    assert type(found) is int
    assert found == seed


@pytest.mark.parametrize(
    "seed", [-1, LARGEST_SEED + 1, 10**20, True, 0.0, "0", None, np.float64(1), np.bool_(True)]
)
def test_all_else_is_refused_by_name_value_and_range(seed: Any) -> None:
    with pytest.raises(InputError) as caught:
        checked_seed(seed, "--seed")
    assert str(caught.value) == f"--seed={seed!r} must be an integer from 0 to 4294967295"


@pytest.mark.parametrize(
    "use",
    [
        lambda seed: generator_for(seed, "key"),
        lambda seed: theory(["topk"], seed=seed),
        lambda seed: check_estimator(make("crs(budget=2)"), seed=seed, only=["spec round trip"]),
    ],
)
def test_the_library_refuses_before_it_works(use: Any, unchecked: None) -> None:
    for seed in (-1, 10**20):
        with pytest.raises(InputError, match=f"seed={seed} must be an integer from 0 to 4294967295"):
            use(seed)
