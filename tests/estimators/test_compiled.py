"""Estimators compile: the numbers of a seed by inductor, blocks of rows by dynamo, and (slow) everything by inductor."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.paths import SUPPORT

from wtacrs.estimators import available

SPECS = {
    **{name: f"{name}(budget=0.3)" for name in available()},
    "actnn": "actnn",
    "control_variate": "control_variate(rank=2, rows=wta_crs(budget=0.4))",
    "dithered_rows": "dithered_rows(slots=1.3)",
    "exact": "exact",
    "fp8": "fp8",
    "hadamard_rotation": "hadamard_rotation(rows=crs(budget=0.4))",
    "low_rank": "low_rank(rank=2)",
    "mixed_precision_rows": "mixed_precision_rows(slots=1.0)",
    "prac": "prac(rank=2)",
    "quantized_rows": "quantized_rows(bits=2, rows=crs(budget=0.4))",
    "random_projection": "random_projection(rank=2)",
    "stochastic_rounding": "stochastic_rounding(bits=4)",
    "subsampled": "subsampled(of=wta_crs(budget=0.4))",
    "vcas": "vcas",
    "velora": "velora(groups=2)",
}


def check(*arguments: str) -> None:
    script = str(SUPPORT / "compiled_estimators.py")
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_inductor_gives_the_numbers_of_a_seed() -> None:
    """Integers of 64 bits wrap, also where the compiler knows all of them."""
    check("numbers")


@pytest.mark.slow
def test_blocks_of_rows_are_traced() -> None:
    """Columns that fill no group, rows that are drawn, and a product in int8."""
    check("aot_eager", "dithered_rows(slots=2.3)", 'dithered_rows(slots=0.5, product="int8")')


@pytest.mark.slow
def test_composites_are_traced_in_one_graph() -> None:
    """What they keep is of a class that is made of the inner estimator's, before anything is traced."""
    inside = ("wta_crs(budget=0.4)", "dithered_rows(slots=1.3)")
    check("aot_eager", SPECS["control_variate"], *(f"subsampled(of={of}, rows=0.5)" for of in inside))


def test_compiled_kernels_give_the_bits_of_plain_ones() -> None:
    check("kernels")


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_inductor_compiles_every_estimator(name: str) -> None:
    check("inductor", SPECS[name])
