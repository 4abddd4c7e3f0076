"""Which pass a recomputed layer belongs to; and threads that run one converted model at once, forward and backward."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.models import VOCABULARY, tiny_bert
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.recomputation import tensors_with_gradient
from wtacrs.integration.layers.convert import approximate_

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SPEC = "wta_crs(budget=0.3)"
THREADS, TIMES = 2, 40


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(work: Callable[[int], None]) -> None:
    """The work of all threads, who start together; what fails in one fails the test."""
    failures: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            start.wait(60)
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


class Meeting(nn.Module):
    """A BERT whose threads wait for each other in the middle of every forward and backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = tiny_bert()
        self.barrier = threading.Barrier(THREADS)
        self.bert.bert.encoder.layer[0].attention.self.value.register_forward_pre_hook(self.meet)

    def meet(self, *_: Any) -> None:
        self.barrier.wait(60)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.bert(input_ids=input_ids, attention_mask=attention_mask).logits
        if logits.requires_grad:
            logits.register_hook(self.meet)
        return logits


def batch(number: int) -> dict[str, Tensor]:
    """Of one shape, with the tokens and the mask of this thread."""
    generator = torch.Generator().manual_seed(number)
    lengths = torch.tensor([[3, 9, 5], [10, 2, 7]])[number]
    return {
        "input_ids": torch.randint(2, VOCABULARY, (3, 10), generator=generator),
        "attention_mask": (torch.arange(10) < lengths[:, None]).long(),
    }


@pytest.mark.parametrize("reentrant", [None, True, False])
def test_threads_that_run_one_model_see_their_own_masks_forward_and_backward(reentrant: bool | None) -> None:
    """In layers that run again in the backward pass too; nothing is left of any, and no mask is found wrong."""
    model = Meeting()
    approximate_(model, SPEC, min_elements=0)
    if reentrant is not None:
        model.bert.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    context = ForwardContext.of(model)
    assert context is not None
    seen: dict[int, list[bool]] = {}
    own = threading.local()

    def look(layer: Any, args: tuple[Tensor, ...]) -> None:
        current = context.current
        assert current is not None
        found = current.mask(args[0].shape[:-1])
        right = current.known and found is not None and torch.equal(found, own.mask)
        seen.setdefault(own.number, []).append(right)

    layers = [model.bert.bert.encoder.layer[0].get_submodule(n) for n in ("intermediate.dense", "output.dense")]
    for layer in layers:
        layer.register_forward_pre_hook(look)

    def work(number: int) -> None:
        rows = batch(number)
        own.number, own.mask = number, rows["attention_mask"].bool()
        for _ in range(TIMES):
            model(**rows).square().sum().backward()
            assert context._thread.calls == []

    at_once(work)
    expected = TIMES * 2 * (1 if reentrant is None else 2)
    counted = {number: (all(found), len(found)) for number, found in seen.items()}
    assert counted == dict.fromkeys(range(THREADS), (True, expected))
    assert context.watch.read() == {}
    assert context._recomputation._backwards == {}
    assert context.draws.passes == THREADS * TIMES


def test_masks_by_hand_belong_to_their_thread() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    approximate_(model, SPEC, min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    masks = [torch.tensor([[1, 1, 0]]).bool(), torch.tensor([[1, 0, 0]]).bool()]
    barrier = threading.Barrier(THREADS)

    def look(_: Any, args: tuple[Tensor]) -> None:
        barrier.wait(60)
        current = context.current
        assert current is not None
        found.append(torch.equal(current.mask(args[0].shape[:-1]), masks[number_of[threading.get_ident()]]))

    found: list[bool] = []
    number_of: dict[int, int] = {}
    model[0].register_forward_pre_hook(look)

    def work(number: int) -> None:
        number_of[threading.get_ident()] = number
        for _ in range(TIMES):
            with context.given(source=masks[number]):
                model(torch.randn(1, 3, 4))

    at_once(work)
    assert found == [True] * (THREADS * TIMES)


def test_a_thread_that_fails_leaves_the_other_alone() -> None:
    """In the middle of a forward pass, again and again."""
    model = Meeting()
    approximate_(model, SPEC, min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    fails = threading.local()
    layer = model.bert.bert.encoder.layer[0].output.dense

    def maybe(*_: Any) -> None:
        if getattr(fails, "forward", False):
            raise ZeroDivisionError

    layer.register_forward_pre_hook(maybe)
    counts = [0] * THREADS

    def work(number: int) -> None:
        rows = batch(number)
        for attempt in range(TIMES):
            try:
                fails.forward = number == 1 and attempt % 2 == 0
                model(**rows).square().sum().backward()
            except ZeroDivisionError:
                counts[number] += 1
                model.meet()  # the other is in its backward pass
            assert context._thread.calls == []

    at_once(work)
    assert counts == [0, TIMES // 2]
    assert context.watch.read() == {}
    for parameter in model.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_backward_pass_that_fails_is_forgotten_by_the_next_forward_pass(reentrant: bool) -> None:
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    context = ForwardContext.of(model)
    assert context is not None
    rows = batch(0) | {"labels": torch.tensor([0, 1, 0])}

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    loss = model(**rows).loss
    handle = model.bert.encoder.layer[0].output.dense.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    handle.remove()
    assert context._thread.calls == []
    model(**rows).loss.backward()
    assert context._recomputation._backwards == {}
    assert context.watch.read() == {}


def test_nothing_is_known_of_layers_where_two_passes_are_run_again_at_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            return checkpoint(self.layer, x, use_reentrant=True)

    model = Twice()
    approximate_(model, SPEC, min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    x, mask = torch.randn(2, 3, 4, requires_grad=True), torch.tensor([[1, 1, 0], [1, 0, 0]])
    first, second = model(x, mask), model(x, 1 - mask)
    known: list[tuple[bool, bool]] = []

    def look(*_: Any) -> None:
        current = context.current
        assert current is not None
        known.append((current.known, current.mask(torch.Size([2, 3])) is None))

    model.layer.register_forward_pre_hook(look)
    (first.sum() + second.sum()).backward()
    assert known[-1] == (False, True)
    known.clear()
    model(x, mask).sum().backward()
    assert known == [(True, False)] * 2


def test_tensors_of_an_output_are_found_in_what_models_return() -> None:
    leaf = torch.zeros(2, requires_grad=True)
    a, b, c = (leaf + 1 for _ in range(3))
    found = list(tensors_with_gradient({"x": [a, (b, 3)], "y": None, "z": torch.zeros(2), "c": c, "leaf": leaf}))
    assert [id(t) for t in found] == [id(a), id(b), id(c)]
    assert list(tensors_with_gradient("text")) == []
