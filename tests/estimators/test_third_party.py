"""What CONTRIBUTING.md promises to authors of estimators, on one from outside the package."""

from __future__ import annotations

import subprocess
import sys

from support.paths import TESTS

SCRIPT = """
import torch
from support import third_party
from wtacrs.estimators import available, make
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.validation.properties.checks import check_estimator

assert "stratified" in available()
verdicts = check_estimator(make("stratified(budget=0.3)"), bias=0.5)
broken = [v for v in verdicts if v.status == "broken"]
assert not broken, broken
assert any(v.name == "unbiased, by enumeration" and v.status == "holds" for v in verdicts)
assert any(v.name == "macs" and v.status == "holds" for v in verdicts)
layer = ApproxLinear(16, 4, estimator="stratified(budget=0.3)", min_elements=0)
layer(torch.randn(40, 16)).sum().backward()
assert layer.weight.grad.isfinite().all()
make("quantized_rows(rows=stratified(budget=0.3))").compress(torch.randn(40, 16))
"""


def test_an_estimator_of_somebody_else_is_registered_checked_and_trained_with() -> None:
    """In a process of its own: the registry of the other tests stays as it is."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=TESTS)
    assert done.returncode == 0, done.stderr
