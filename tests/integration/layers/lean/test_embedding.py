"""Tied embeddings: gradients of stock, dense wherever they are seen, and no second matrix of their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import T5Config, T5ForConditionalGeneration

from tests.support.language_models import MODELS, gradients, language_batch, language_model
from wtacrs.integration import lean_, restore_
from wtacrs.integration.layers.lean import embedding
from wtacrs.integration.layers.lean.cross_entropy import linear_cross_entropy
from wtacrs.integration.layers.lean.embedding import LeanEmbedding, LookUp
from wtacrs.integration.layers.lean.options import HeadMode
from wtacrs.integration.measure.memory import LiveBytes

V, D = 11, 4
IDS = torch.tensor([[1, 3, 3, 0], [7, 1, 2, 0]])


@pytest.fixture
def layouts(monkeypatch: pytest.MonkeyPatch) -> list[torch.layout]:
    """Of the gradients that embeddings gave."""
    seen: list[torch.layout] = []
    backward = LookUp.backward

    def noted(ctx: Any, dy: Tensor) -> Any:
        found = backward(ctx, dy)
        seen.append(found[0].layout)
        return found

    monkeypatch.setattr(LookUp, "backward", staticmethod(noted))
    return seen


def weight_of() -> nn.Parameter:
    return nn.Parameter(torch.randn(V, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64))


def loss_of(look_up: Callable[..., Tensor], weight: Tensor, mode: HeadMode, padding: int | None = None) -> Tensor:
    """Looked up twice, as by encoder and decoder."""
    x = torch.tanh(look_up(weight, IDS, padding)) * look_up(weight, IDS.flip(1), padding)
    return linear_cross_entropy(x.view(-1, D), weight, None, IDS.flatten(), mode=mode)


def stock(weight: Tensor, ids: Tensor, padding: int | None) -> Tensor:
    return F.embedding(ids, weight, padding)


@pytest.mark.parametrize("padding", [None, 0, 3])
@pytest.mark.parametrize("mode", ["forward", "again"])
def test_the_gradient_is_that_of_stock_and_dense_where_it_is_seen(
    mode: HeadMode, padding: int | None, layouts: list[torch.layout]
) -> None:
    weight = weight_of()
    (expected,) = torch.autograd.grad(loss_of(stock, weight, mode, padding), weight)
    hooked: list[Tensor] = []
    weight.register_hook(hooked.append)
    weight.register_post_accumulate_grad_hook(lambda p: hooked.append(p.grad.clone()))
    for times in (1, 2):  # accumulated
        loss_of(LookUp.apply, weight, mode, padding).backward()
        assert weight.grad is not None
        assert weight.grad.layout is torch.strided
        torch.testing.assert_close(weight.grad, times * expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(hooked[2 * times - 2], expected, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(hooked[2 * times - 1], times * expected, rtol=1e-12, atol=1e-14)
    (asked,) = torch.autograd.grad(loss_of(LookUp.apply, weight, mode, padding), weight)
    torch.testing.assert_close(asked, expected, rtol=1e-12, atol=1e-14)
    assert layouts == [torch.sparse_coo] * 6


@pytest.mark.parametrize("mode", ["forward", "again"])
def test_without_the_output_layer_in_this_backward_pass_it_is_dense(
    mode: HeadMode, layouts: list[torch.layout]
) -> None:
    """A pass before was through the output layer; this one, of the same graph, is not."""
    weight = weight_of()
    looked = LookUp.apply(weight, IDS, None)
    loss = linear_cross_entropy(looked.view(-1, D), weight, None, IDS.flatten(), mode=mode)
    loss.backward(retain_graph=True)
    weight.grad = None
    looked.square().sum().backward()
    assert layouts == [torch.sparse_coo, torch.strided]
    assert weight.grad is not None
    found = weight.grad.clone()
    (expected,) = torch.autograd.grad(F.embedding(IDS, weight).square().sum(), weight)
    assert torch.equal(found, expected)


def test_an_output_layer_with_another_weight_does_not_count(layouts: list[torch.layout]) -> None:
    weight, other = weight_of(), weight_of()
    x = LookUp.apply(weight, IDS, None)
    linear_cross_entropy(x.view(-1, D), other, None, IDS.flatten()).backward()
    linear_cross_entropy(LookUp.apply(weight, IDS, None).view(-1, D), weight * 1.0, None, IDS.flatten()).backward()
    assert layouts == [torch.strided] * 2


@pytest.mark.parametrize("planted", ["padding", "twice"])
def test_planted_defects_are_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = weight_of()
    (expected,) = torch.autograd.grad(loss_of(stock, weight, "again", 3), weight)
    make = torch.sparse_coo_tensor

    def wrong(ids: Tensor, rows: Tensor, *size: Any, **more: Any) -> Tensor:
        if planted == "twice":  # an id that comes twice counts once
            ids, places = ids[0].unique(return_inverse=True)
            return make(ids[None], torch.zeros(len(ids), D, dtype=rows.dtype).index_copy_(0, places, rows), *size)
        more_ids = torch.tensor([[3]])
        return make(torch.cat([ids, more_ids], 1), torch.cat([rows, rows[:1]]), *size, **more)

    monkeypatch.setattr(torch, "sparse_coo_tensor", wrong)
    (found,) = torch.autograd.grad(loss_of(LookUp.apply, weight, "again", 3), weight)
    assert not torch.allclose(found, expected)


TIED = {"T5": 3, "BERT": 1, "GPT-2": 1, "Llama": 0, "OPT": 1}


@pytest.mark.parametrize("mode", ["forward", "again"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, mode: HeadMode, layouts: list[torch.layout]) -> None:
    model = language_model(name, 0.2)
    types = [type(module) for module in model.modules()]
    _, expected = gradients(model, language_batch("right"))
    lean = lean_(model, head=mode)
    tied = [n for n, what in lean.found.items() if what == "look-up, tied to the output layer"]
    assert bool(tied) is bool(TIED[name])
    _, found = gradients(model, language_batch("right"))
    assert bool(layouts) is bool(tied)
    assert set(layouts) <= {torch.sparse_coo}
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        assert found[parameter].layout is torch.strided
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)
    restore_(model)
    assert [type(module) for module in model.modules()] == types


def test_an_embedding_stays_stock_without_a_lean_output_layer_and_by_the_filter() -> None:
    model = language_model("T5", 0.2)
    assert not any("look-up," in what for what in lean_(model).found.values())
    lean = lean_(model, head="again", filter_fn=lambda module, name: not isinstance(module, nn.Embedding))
    assert not any(isinstance(module, LeanEmbedding) for module in model.modules())
    assert lean.stays["shared"] == "left out by the filter"


def test_the_peak_falls_by_a_matrix_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, width = 2048, 256
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model = T5ForConditionalGeneration(config).train()
    batch = language_batch("right")

    def peak() -> int:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        with LiveBytes() as live:
            model(**batch).loss.backward()
        return live.peak

    lean_(model, head="again")
    lean = peak()
    monkeypatch.setattr(embedding, "meets_dense_gradient", lambda ctx, place: False)
    dense = peak()
    size = vocabulary * width * 4
    assert abs(dense - lean - size) < 0.1 * size


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A group of one process, met in a file."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("way", ["ddp", "fully_shard", "checkpointing"])
def test_wrapped(way: str, one_process: None, layouts: list[torch.layout]) -> None:
    model = language_model("T5", 0.1)
    _, expected = gradients(model, language_batch("right"))
    lean_(model, head="again")
    run: Any = model
    if way == "ddp":
        run = DistributedDataParallel(model)
    elif way == "fully_shard":
        fully_shard(model)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        model.enable_input_require_grads()
    for _ in range(2):
        _, found = gradients(run, language_batch("right"), model)
        for parameter, gradient in expected.items():
            value = found[parameter].full_tensor() if isinstance(found[parameter], DTensor) else found[parameter]
            assert value.layout is torch.strided
            torch.testing.assert_close(value, gradient, rtol=1e-4, atol=1e-6)
    assert torch.sparse_coo in layouts
