"""Triton kernels give what plain ones give, by its interpreter; what is missing is named."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from support.paths import SUPPORT

from wtacrs.estimators import InputError, make
from wtacrs.estimators.kernels import choice

WITHOUT = find_spec("triton") is None


@pytest.mark.skipif(WITHOUT, reason="needs triton: pip install 'wtacrs[triton]'")
def test_triton_kernels_give_the_bits_of_plain_ones() -> None:
    """Of numbers that are rotated exactly; of others few codes differ."""
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "triton_kernels.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


SPECS = ('dithered_rows(slots=1.0, kernels="triton")', 'systematic(budget=0.5, kernels="triton")')


@pytest.mark.parametrize("spec", SPECS)
def test_a_missing_package_is_named(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package triton: pip install .wtacrs\[triton\]"):
        make(spec).compress(torch.randn(8, 64))


@pytest.mark.skipif(WITHOUT, reason="needs triton: pip install 'wtacrs[triton]'")
@pytest.mark.parametrize("spec", SPECS)
def test_tensors_of_the_cpu_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match="needs tensors on CUDA, got cpu"):
        make(spec).compress(torch.randn(8, 64))


def test_row_designs_have_no_compiled_kernels() -> None:
    with pytest.raises(InputError, match="kernels='compiled' must be one of plain, triton"):
        make('systematic(budget=0.5, kernels="compiled")')
