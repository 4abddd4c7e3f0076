"""A compiled training step: no break, no graph per step or length, and the gradients that eager training has."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.levels import LEVEL
from support.paths import SUPPORT

SCRIPT = SUPPORT / "compiled_step.py"


def check(*arguments: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_compiled_step_is_the_eager_one() -> None:
    """With the same random numbers; lengths become symbols when the second one is seen."""
    check("automatic", "aot_eager")


@pytest.mark.slow
def test_predictors_of_gradient_norms_are_fitted_by_compiled_steps() -> None:
    """And no layer is said not to have been called: warnings are errors there."""
    check("learned", "aot_eager")


@pytest.mark.slow
def test_layers_of_a_compiled_block_are_called() -> None:
    check("regional", "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("shapes", ["static", "automatic", "dynamic"])
def test_a_step_compiled_by_inductor_is_the_eager_one(shapes: str) -> None:
    check(shapes, "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("shapes", ["static", "dynamic"])
def test_one_graph_where_all_lengths_are_numbers_or_symbols(shapes: str) -> None:
    check(shapes, "aot_eager")


@pytest.mark.slow
def test_the_mean_of_compiled_steps_is_the_exact_gradient() -> None:
    """With the random numbers that inductor makes; top-k in their place is found out."""
    check("mean", "inductor", repr(LEVEL))


@pytest.mark.slow
def test_compiled_within_and_around_ddp() -> None:
    check("processes")
