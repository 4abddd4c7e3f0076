"""What the backward pass shows of rows called padding: found, told once, raised, ignored, resumed; in many threads."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import Any

import pytest
import torch
from support.models import bert_batch, tiny_bert
from torch import Tensor, nn

from wtacrs.estimators import InputError, row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.mask_watch import (
    TOLERANCE,
    MaskWatch,
    check_masked_gradient,
    padding_share,
)
from wtacrs.integration.layers.convert import approximate_
from wtacrs.validation.masked_gradient import masked_gradient_sentence

MASK = torch.tensor([True, True, False, True, False])
TOLD = "rows that a mask calls padding carry gradient"


def dy(padding: float = 2.0, live: float = 1.0) -> Tensor:
    """`[5, 3]`: rows of these norms."""
    return torch.where(MASK, live, padding)[:, None] * torch.eye(3)[[0, 1, 2, 0, 1]]


SHARE = 2 * 4 / (2 * 4 + 3)


def entered(watch: MaskWatch) -> list[str]:
    """What is told as a forward pass begins."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        watch.enter()
    return [str(entry.message) for entry in told]


def test_a_layer_is_misled_from_the_next_pass_on() -> None:
    watch = MaskWatch()
    watch.observe("a", MASK, dy())
    watch.observe("b", MASK, dy(padding=0.0))
    assert watch.misled("a") is None
    (told,) = entered(watch)
    assert told.startswith(f"{TOLD} in 1 layer (share of ‖dY‖²: a 0.73), so the mask does not fit the loss;")
    assert "ForwardContext.given" in told
    assert bool(watch.misled("a"))
    assert watch.misled("b") is None
    assert watch.read() == {"a": pytest.approx(SHARE)}


def test_calls_of_one_pass_count_together() -> None:
    """A layer that is called twice, layers that share a sample, batches that are accumulated."""
    watch = MaskWatch()
    watch.observe("a", MASK, dy(padding=0.0, live=10.0))
    watch.observe("a", MASK, dy())
    assert watch.read() == {"a": pytest.approx(8 / (8 + 3 + 300))}


@pytest.mark.parametrize(("padding", "misled"), [(2e-5, False), (5e-5, True)])
def test_rounding_is_tolerated(padding: float, misled: bool) -> None:
    """Shares of 2.7e-10 and 1.7e-9 beside a tolerance of 1e-9."""
    watch = MaskWatch()
    watch.observe("a", MASK, dy(padding=padding))
    assert (padding_share(dy(padding=padding), MASK) > TOLERANCE) == misled
    assert len(entered(watch)) == misled
    assert (watch.misled("a") is not None) == misled


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("live", [0.0, 1.0])
@pytest.mark.parametrize("on_gradient", ["warn", "raise"])
def test_gradients_that_say_nothing(value: float, live: float, on_gradient: Any) -> None:
    """All zero, or NaN and infinite after an overflow, of which training recovers: no mask is dropped for that."""
    watch = MaskWatch(on_gradient=on_gradient)
    found = dy(live=live)
    found[2:] = value
    watch.observe("a", MASK, found)
    assert entered(watch) == []
    assert watch.misled("a") is None
    assert watch.read() == {}
    watch.on_gradient = "warn"
    watch.observe("a", MASK, dy())
    assert len(entered(watch)) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_of_every_dtype(dtype: torch.dtype, scale: float) -> None:
    watch = MaskWatch()
    watch.observe("a", MASK, (dy() * scale).to(dtype))
    assert watch.read()["a"] == pytest.approx(SHARE, rel=1e-2)


def test_each_layer_is_told_once() -> None:
    watch = MaskWatch()
    watch.observe("a", MASK, dy())
    assert len(entered(watch)) == 1
    watch.observe("a", MASK, dy())
    assert entered(watch) == []
    for layer in ("a", "b", "c", "d", "e"):
        watch.observe(layer, MASK, dy(padding=3.0 if layer == "e" else 2.0))
    (told,) = entered(watch)
    assert "in 4 layers (share of ‖dY‖²: e 0.86, b 0.73, c 0.73 and 1 more)" in told
    assert entered(watch) == []


def test_a_mask_stays_out_of_use() -> None:
    watch = MaskWatch()
    watch.observe("a", MASK, dy())
    entered(watch)
    for _ in range(3):
        watch.observe("a", MASK, dy(padding=0.0))
        entered(watch)
        assert bool(watch.misled("a"))
    assert watch.read() == {"a": pytest.approx(SHARE)}


def test_raising_names_layer_and_share() -> None:
    watch = MaskWatch(on_gradient="raise")
    watch.observe("a", MASK, dy(padding=0.0))
    with pytest.raises(InputError, match=rf"masked_gradient='raise': {TOLD} in 1 layer .*a 0.73"):
        watch.observe("a", MASK, dy())


def test_the_state_goes_on_and_is_not_told_again() -> None:
    watch = MaskWatch()
    watch.observe("a", MASK, dy())
    state = watch.state_dict()  # between a backward pass and the next forward pass
    other = MaskWatch()
    other.observe("b", MASK, dy())
    other.load_state_dict(state)
    assert other.state_dict() == state == {"a": pytest.approx(SHARE)}
    assert entered(other) == []
    assert bool(other.misled("a"))
    assert other.misled("b") is None
    other.load_state_dict({})
    assert other.misled("a") is None


def test_the_sentence_names_the_worst() -> None:
    assert masked_gradient_sentence({}) is None
    told = masked_gradient_sentence({"": 1.0, "a": 0.001})
    assert told is not None
    assert "in 2 layers (share of ‖dY‖²: the model 1, a 0.001)" in told
    assert "\n" not in told


def test_what_may_be_done_is_named() -> None:
    for value in ("stop", None, True):
        with pytest.raises(InputError, match=r"masked_gradient=.* must be one of 'warn', 'raise', 'ignore'"):
            check_masked_gradient(value)
    with pytest.raises(InputError, match="masked_gradient='stop' must be one of"):
        approximate_(tiny_bert(), "crs(budget=0.3)", masked_gradient="stop")  # type: ignore[arg-type]


class Two(nn.Module):
    """Two layers that read one tensor; the loss reads padded rows of one of them."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)
        self.first = first

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        live = attention_mask[..., None]
        a, b = self.a(x), self.b(x)
        return (a + b * live if self.first else a * live + b).square().sum()


BATCH = {"x": torch.randn(2, 5, 6), "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_sample_is_watched_over_by_all_that_read_it(first: bool, shared: bool) -> None:
    """It is drawn in the name of the first, whoever has the gradient."""
    model = Two(first)
    approximate_(model, "crs(budget=0.5)", min_elements=0, share_inputs=shared)
    context = ForwardContext.of(model)
    assert context is not None
    model(**BATCH).backward()
    assert set(context.watch.read()) == {"a" if first or shared else "b"}
    seen: dict[str, bool] = {}
    for name in ("a", "b"):
        layer = model.get_submodule(name)
        layer.register_forward_pre_hook(
            lambda layer, args, name=name: seen.update(
                {name: torch.equal(layer.scores_of(args[0]), row_norms(args[0].reshape(-1, 6)))}
            )
        )
    with pytest.warns(UserWarning, match=TOLD):
        model(**BATCH)
    assert seen["a" if first or shared else "b"]


def test_a_model_that_raises_does_so_in_its_backward_pass() -> None:
    model, batch = tiny_bert(), bert_batch()
    approximate_(model, "crs(budget=0.5)", min_elements=0, masked_gradient="raise")
    model(**batch).loss.backward()
    batch["attention_mask"] = batch["attention_mask"].flip(1)
    loss = model(**batch).loss
    with pytest.raises(
        InputError, match=r"masked_gradient='raise': .* \(share of ‖dY‖²: bert.encoder.layer.0.output"
    ):
        loss.backward()
    batch["attention_mask"] = batch["attention_mask"].flip(1)
    model(**batch).loss.backward()


def test_ignored_gradients_are_not_looked_at() -> None:
    model = Two(first=True)
    approximate_(model, "crs(budget=0.5)", min_elements=0, masked_gradient="ignore")
    context = ForwardContext.of(model)
    assert context is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=TOLD)
        for _ in range(2):
            model(**BATCH).backward()
    assert context.watch._seen == {}
    approximate_(model, "crs(budget=0.5)", min_elements=0)  # goes on as it was told
    assert context.watch.on_gradient == "ignore"
    approximate_(model, "crs(budget=0.5)", min_elements=0, masked_gradient="warn")
    model(**BATCH).backward()
    assert context.watch.read().keys() == {"a"}


def test_estimators_that_do_not_go_by_scores_are_not_watched() -> None:
    model = Two(first=True)
    approximate_(model, "uniform(budget=0.5)", min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    model(**BATCH).backward()
    assert context.watch.read() == {}


def test_threads_observe_at_once() -> None:
    """Each layer is told exactly once, and nothing that was seen is lost."""
    watch, names = MaskWatch(), [[f"{t}.{i}" for i in range(150)] for t in range(4)]
    told: list[str] = []
    failures: list[BaseException] = []

    def work(layers: list[str]) -> None:
        try:
            for layer in layers:
                watch.observe(layer, MASK, found)
                watch.enter()
        except BaseException as error:
            failures.append(error)

    found, before = dy(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "warn", lambda text, *_, **__: told.append(text))
        threads = [threading.Thread(target=work, args=(layers,)) for layers in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
        watch.enter()
    assert failures == []
    assert watch.read().keys() == {layer for layers in names for layer in layers}
    assert sum(int(text.split(" in ")[1].split()[0]) for text in told) == 600
