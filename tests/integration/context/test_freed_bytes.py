"""The balance of a conversion by weak references: what is told, of whom, and what is not claimed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wtacrs.integration.context.freed_bytes import FreedBytes, readable_bytes, stock_input
from wtacrs.integration.layers.compression import autocast_dtype

WIDTH = 16
BYTES = 40 * WIDTH * 4


class Rows(torch.autograd.Function):
    """The identity; keeps some rows of its input, as an estimator does."""

    @staticmethod
    def forward(ctx: object, x: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(ctx: object, dy: Tensor) -> tuple[Tensor, None]:
        return dy, None


class Layer(nn.Module):
    """Keeps a share of the rows of its input, and notes it."""

    def __init__(self, name: str, freed: FreedBytes, share: float = 0.25) -> None:
        super().__init__()
        self.name, self.freed, self.share = name, freed, share
        self.last: Tensor | None = None

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        rows = x.detach().reshape(-1, x.shape[-1])
        if kept is None:
            kept = rows[: int(len(rows) * self.share)].to(autocast_dtype(x), copy=True)
        self.freed.note(self.name, x, (kept, (None,)), autocast_dtype(x))
        return Rows.apply(x.to(autocast_dtype(x)), kept)


def made(names: str = "abc", share: float = 0.25) -> tuple[FreedBytes, list[Layer]]:
    freed = FreedBytes()
    return freed, [Layer(name, freed, share) for name in names]


def start() -> Tensor:
    return torch.ones(40, WIDTH, requires_grad=True)


def test_inputs_that_die_pay_for_the_copies() -> None:
    freed, (a, b, c) = made()
    y = c(b(a(start() * 2) * 2) * 2)
    assert freed.told() is None
    assert y.requires_grad


def test_inputs_that_an_operation_keeps_are_told() -> None:
    freed, (a, b, c) = made()
    y = c(b(a((start() * 2).relu()).relu()).relu())
    told = str(freed.told())
    assert told.startswith("3 of 3 converted layers read what something else keeps anyway")
    assert "(a, b, c): 1.9 kB more are kept than in exact training (copies 1.9 kB, freed 0 B)" in told
    assert "\n" not in told
    del y
    assert freed.told() is None  # nothing is kept any more


def test_copies_as_large_as_the_inputs_are_told() -> None:
    freed, layers = made("abcd", share=1.0)
    y = start() * 2
    for layer in layers:
        y = layer(y) * 2
    assert str(freed.told()).startswith(
        "4 converted layers keep copies as large as their inputs (a, b, c, …): 0 B more"
    )


def test_one_that_frees_pays_for_one_that_does_not() -> None:
    freed, (a, b) = made("ab")
    y = b(a((start() * 2).relu()) * 2)
    assert freed.told() is None
    assert y.requires_grad


def test_an_input_that_layers_share_is_freed_once_and_kept_once() -> None:
    freed, (a, b, c) = made(share=0.5)
    x = start() * 2
    y = a(x) + b(x) + c(x)
    del x
    assert "3 converted layers keep copies as large as their inputs (a, b, c): 1.3 kB more" in str(freed.told())
    freed, (a, b, c) = made(share=0.5)
    x = start() * 2
    kept = x.detach()[:20].clone()
    z = a(x, kept) + b(x, kept) + c(x[:], kept)
    del x, kept
    assert freed.told() is None
    assert y.requires_grad
    assert z.requires_grad


def test_what_the_caller_holds_is_not_freed() -> None:
    freed, (a,) = made("a")
    held = start() * 2
    y = a(held)
    assert "(a): 640 B more" in str(freed.told())
    del held
    assert freed.told() is None
    assert y.requires_grad


def test_a_view_keeps_all_of_its_storage() -> None:
    freed, (a,) = made("a", share=1.0)
    y = a((start() * 2)[:10])
    assert freed.told() is None  # 40 rows are gone, 10 are kept
    assert y.requires_grad
    freed, (a,) = made("a")
    whole = start() * 2
    y = a(whole[:10])
    kept = whole[10:]
    del whole
    assert "128 B more" in str(freed.told())
    assert kept.requires_grad


def test_autocast_makes_a_copy_that_nobody_else_keeps() -> None:
    freed, (a,) = made("a")
    with torch.autocast("cpu", torch.bfloat16):
        y = a((start() * 2).relu())
        assert freed.told() is None
        y = a((start() * 2).bfloat16().relu())
    freed, (a,) = made("a")
    with torch.autocast("cpu", torch.bfloat16):
        y = a((start() * 2).bfloat16().relu())
    assert "(a): 320 B more" in str(freed.told())
    assert y.requires_grad


@pytest.mark.parametrize("reentrant", [True, False])
def test_nothing_is_claimed_of_a_block_that_is_recomputed(reentrant: bool) -> None:
    freed, (a,) = made("a")
    y = checkpoint(lambda x: a(x.relu()), start() * 2, use_reentrant=reentrant)
    assert freed.told() is None
    assert y.requires_grad


def test_nothing_is_claimed_of_copies_that_a_hook_takes_away() -> None:
    freed, (a,) = made("a")
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.numpy().tobytes(), lambda _: start()):
        y = a((start() * 2).relu())
    assert freed.told() is None
    assert y.requires_grad


@pytest.mark.parametrize(
    ("x", "same"),
    [
        (torch.ones(4, 10, WIDTH), True),
        (torch.ones(4, 10, WIDTH)[:, :5], False),
        (torch.ones(4, 10, WIDTH).transpose(0, 1), False),
        (torch.ones(WIDTH, 40).t(), True),
        (torch.ones(4, 1, WIDTH).expand(4, 10, WIDTH), False),
        (torch.ones(1, 10, WIDTH).transpose(0, 1), True),
        (torch.ones(WIDTH), True),
    ],
    ids=["3", "cut", "transposed", "transposed matrix", "expanded", "one example", "a vector"],
)
def test_what_a_stock_layer_keeps_of_an_input(x: Tensor, same: bool) -> None:
    """Beside what autograd shows."""
    x = x.clone(memory_format=torch.preserve_format) if x.is_contiguous() else x
    seen: list[torch.UntypedStorage] = []

    def pack(saved: Tensor) -> Tensor:
        seen.append(saved.untyped_storage())
        return saved

    layer = nn.Linear(WIDTH, 3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        y = layer(x)
    (storage,) = seen
    assert (storage.data_ptr() == x.untyped_storage().data_ptr()) == same
    assert stock_input(x, x.dtype).bytes == storage.nbytes()
    assert stock_input(x, x.dtype).alive == same
    assert y.requires_grad


@given(
    shares=st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=5),
    between=st.lists(
        st.sampled_from([torch.relu, torch.sin, torch.tanh, lambda x: x * 2]), min_size=5, max_size=5
    ),
)
def test_the_balance_is_that_of_all_that_is_alive(
    shares: list[float], between: list[Callable[..., Tensor]]
) -> None:
    """Counted beside it: a layer's copy, and its input where the operation before has not kept its output."""
    freed = FreedBytes()
    y, kept, gone = start() * 2, 0.0, 0
    for number, (share, operation) in enumerate(zip(shares, between, strict=False)):
        y = Layer(str(number), freed, share)(operation(y))
        kept += share * BYTES
        gone += 0 if operation in (torch.relu, torch.tanh) else BYTES
    assert (freed.told() is None) == (kept < gone)
    assert y.requires_grad


def test_sizes_are_readable() -> None:
    assert [readable_bytes(size) for size in (999, 1000, 2_500_000, 10**9)] == [
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "1.0 GB",
    ]
