"""Sets of kernels by their names."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.kernels import compiled, plain
from wtacrs.estimators.kernels.grid import GROUP, Grid

SETS = ("plain", "compiled", "triton")
ROW_SETS = ("plain", "triton")
"""Of the designs that sample rows."""


def kernels_for(name: str, like: Tensor, grid: Grid) -> plain.Kernels:
    """A set of kernels for numbers of the dtype and on the device of `like`.

    Where "triton" has none they are the plain ones: for fp64, for layers of less than 49 columns, for tensors without
    values, and in a graph that is compiled.

    Raises:
        InputError: if "triton" is asked for and is not installed, or `like` is neither on CUDA nor interpreted.
    """
    if name != "triton":
        return {"plain": plain.KERNELS, "compiled": compiled.KERNELS}[name]
    _require_triton()
    if _is_traced(like) or like.dtype == torch.float64 or grid.size != GROUP:
        return plain.KERNELS
    kernels = _triton("triton_kernels", like, 'kernels="compiled"')
    found: plain.Kernels = kernels.KERNELS
    return found


def row_kernels(name: str, like: Tensor) -> ModuleType | None:
    """`triton_rows` where it is asked for and can run on the device of `like`; None for PyTorch alone.

    PyTorch also for tensors without values and in a graph that is compiled, whatever the name.

    Raises:
        InputError: as `kernels_for`.
    """
    if name == "plain":
        return None
    _require_triton()
    return None if _is_traced(like) else _triton("triton_rows", like, 'kernels="plain"')


def _is_traced(like: Tensor) -> bool:
    return torch.compiler.is_compiling() or is_fake(like)


def _require_triton() -> None:
    if find_spec("triton") is None:
        raise InputError('kernels="triton" needs the package triton: pip install "wtacrs[triton]"')


def _triton(module: str, like: Tensor, otherwise: str) -> ModuleType:
    kernels = import_module(f"wtacrs.estimators.kernels.{module}")
    if like.device.type != "cuda" and not kernels.INTERPRETED:
        raise InputError(
            f'kernels="triton" needs tensors on CUDA, got {like.device.type}; on the CPU they run with the environment '
            f"variable TRITON_INTERPRET=1, or use {otherwise}"
        )
    return kernels
