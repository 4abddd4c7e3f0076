"""Sets of kernels by their names."""

from __future__ import annotations

from wtacrs.estimators.kernels import compiled, plain

SETS = {"plain": plain.KERNELS, "compiled": compiled.KERNELS}
