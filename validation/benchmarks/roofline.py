"""What the machine reaches on a plain product and on a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from wtacrs.validation.benchmarks.timing import seconds_of
from wtacrs.validation.records.bench import Roofs

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SIDE = {"cpu": 1024, "cuda": 8192}
_COPIED = {"cpu": 2**27, "cuda": 2**30}


def measure_roofs(
    precisions: Iterable[str],
    device: str,
    *,
    rounds: int = 5,
    side: int | None = None,
    copied: int | None = None,
) -> Roofs:
    """The fastest of several rounds, after one that warms up.

    Args:
        precisions: of products, of `DTYPES`; fp32 and int8 are measured in any case, int8 where torch has it.
        device: where.
        rounds: of each.
        side: N of the N × N matrices, default 1,024 on a CPU and 8,192 on CUDA.
        copied: bytes of the tensor that is copied, default 2²⁷ on a CPU and 2³⁰ on CUDA.
    """
    kind = torch.device(device).type
    side, copied = side or _SIDE[kind], copied or _COPIED[kind]
    products = {
        name: 2 * side**3 / _fastest(_product(DTYPES[name], side, device), rounds, device)
        for name in dict.fromkeys(("fp32", *precisions))
    }
    int8 = _int8_product(side, device)
    if int8 is not None:
        products["int8"] = 2 * side**3 / _fastest(int8, rounds, device)
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _fastest(lambda: target.copy_(source), rounds, device)
    return Roofs(products=products, copy_rate=2 * copied / seconds)


def better(one: Roofs, other: Roofs) -> Roofs:
    """The higher of both rates: a machine that others use too is fastest between their turns."""
    products = {name: max(rate, other.products[name]) for name, rate in one.products.items()}
    return Roofs(products=products, copy_rate=max(one.copy_rate, other.copy_rate))


def _product(dtype: torch.dtype, side: int, device: str) -> Callable[[], object]:
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b


def _int8_product(side: int, device: str) -> Callable[[], object] | None:
    """A product of int8 matrices; None where torch has none for the device."""
    a = torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device)
    try:
        torch._int_mm(a, a)
    except (RuntimeError, AttributeError):
        return None
    return lambda: torch._int_mm(a, a)


def _fastest(run: Callable[[], object], rounds: int, device: str) -> float:
    return min([seconds_of(run, device) for _ in range(1 + rounds)][1:])
