"""Sets of kernels by their names."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

from wtacrs.estimators.core.errors import InputError
from wtacrs.estimators.kernels import compiled, plain
from wtacrs.estimators.kernels.grid import GROUP, Grid

SETS = ("plain", "compiled", "triton")


def kernels_for(name: str, like: Tensor, grid: Grid) -> plain.Kernels:
    """A set of kernels for numbers of the dtype and on the device of `like`.

    Where "triton" has none they are the plain ones: for fp64, for layers of less than 49 columns, for tensors without
    values, and in a graph that is compiled.

    Raises:
        InputError: if "triton" is asked for and is not installed, or `like` is neither on CUDA nor interpreted.
    """
    if name != "triton":
        return {"plain": plain.KERNELS, "compiled": compiled.KERNELS}[name]
    if find_spec("triton") is None:
        raise InputError('kernels="triton" needs the package triton: pip install "wtacrs[triton]"')
    if torch.compiler.is_compiling() or is_fake(like) or like.dtype == torch.float64 or grid.size != GROUP:
        return plain.KERNELS
    kernels = import_module("wtacrs.estimators.kernels.triton_kernels")
    if like.device.type != "cuda" and not kernels.INTERPRETED:
        raise InputError(
            f'kernels="triton" needs tensors on CUDA, got {like.device.type}; on the CPU they run with the environment '
            'variable TRITON_INTERPRET=1, or use kernels="compiled"'
        )
    found: plain.Kernels = kernels.KERNELS
    return found
