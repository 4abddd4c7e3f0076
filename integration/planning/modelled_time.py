"""Seconds of a step from its operations: matrix products by their floating-point operations, all else by bytes.

An operator that multiplies matrices takes its operations (`torch.utils.flop_counter` counts them) at one rate; any other
one takes the bytes that it reads and writes at another. Views, and tensors that are made and not filled, take no time. So
a sampled dW costs its share, and what is computed twice costs twice, with no formula of their own. Left out are Python,
caches, and whatever makes small products slower than large ones: such times order choices, and tell clear ones apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from wtacrs.integration.measure.memory import LiveBytes
from wtacrs.validation.benchmarks.timing import interleaved_medians
from wtacrs.validation.records.plan import Rates

_aten = torch.ops.aten
_SIZE = 768
"""Rows and columns of the product that is timed."""
_NUMBERS = 2**23
"""Numbers of the sum that is timed, too many for a cache."""
_UNFILLED = (_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided)


class ModelledWork(LiveBytes):
    """`LiveBytes` that adds up the seconds that operators take at given rates; numbers need not be computed.

    Attributes:
        seconds: so far.

    >>> with ModelledWork(Rates(flops=2.0, bytes=8.0)) as work:
    ...     y = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> work.seconds  # 2 · 2 · 3 · 4 operations, and 6 + 12 numbers that are filled
    33.0
    """

    def __init__(self, rates: Rates) -> None:
        super().__init__()
        self.seconds = 0.0
        self._rates = rates

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and add what it takes."""
        if func.namespace == "prim":  # a question about a tensor, of which there are as many as operators
            return func(*args, **(kwargs or {}))
        result = super().__torch_dispatch__(func, types, args, kwargs)
        products = operations(func, args, kwargs or {}, result)
        if products is not None:
            self.seconds += products / self._rates.flops
        else:
            self.seconds += bytes_moved(func, args, kwargs or {}, result) / self._rates.bytes
        return result


class ModelledClock:
    """A meter of modelled seconds."""

    def __init__(self, work: ModelledWork) -> None:
        self._work = work

    def read(self) -> tuple[float, float]:
        """Seconds so far; twice."""
        return self._work.seconds, self._work.seconds


def operations(func: Any, args: Any, kwargs: Any, result: Any) -> float | None:
    """Floating-point operations of an operator that multiplies matrices; None for any other one."""
    packet = func.overloadpacket
    if packet is _aten._scaled_dot_product_flash_attention_for_cpu:
        return 2 * _products(args[0], args[1], args[2])
    if packet is _aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return 5 * _products(args[1], args[2], args[3])
    count = flop_registry.get(packet)
    return None if count is None else float(count(*args, **kwargs, out_val=result))


def _products(q: Tensor, k: Tensor, v: Tensor) -> float:
    """Operations of one of the products of attention, the mean of those over the sizes of keys and of values."""
    return float(q[..., 0].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1]))


def bytes_moved(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Bytes of the tensors that an operator reads and writes; 0 where it only looks at them otherwise."""
    if func.overloadpacket in _UNFILLED:
        return 0
    read = _tensors((args, kwargs))
    written = _tensors(result)
    storages = {tensor.untyped_storage()._cdata for tensor in read}
    looks = all(tensor.untyped_storage()._cdata in storages for tensor in written)
    if looks and not func._schema.is_mutable:
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in [*read, *written])


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]


def measured_rates(device: str = "cpu", *, precision: str = "fp32", rounds: int = 5) -> Rates:
    """Rates of a device by a product of squares and a sum of long vectors; medians count.

    Args:
        device: where.
        precision: of the product, "fp32" or "bf16".
        rounds: of each, after one that warms up.
    """
    generator = torch.Generator(device).manual_seed(0)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    x = torch.randn(_SIZE, _SIZE, generator=generator, device=device).to(kind)
    y, z = (torch.zeros(_NUMBERS, device=device) for _ in range(2))
    with torch.no_grad():
        runs = [lambda: x @ x, lambda: torch.add(y, y, out=z)]
        product, added = interleaved_medians(runs, rounds=rounds, device=device)
    return Rates(flops=2 * _SIZE**3 / product, bytes=3 * 4 * _NUMBERS / added)
