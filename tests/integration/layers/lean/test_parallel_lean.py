"""Lean attention and head in `DistributedDataParallel` and `fully_shard`, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.support.language_models import gradients, language_batch, language_model
from wtacrs.integration.layers.lean.attention import set_lean_attention
from wtacrs.integration.layers.lean.head import LeanHead, set_lean_head
from wtacrs.integration.layers.lean.options import HeadMode


@pytest.fixture(autouse=True)
def one_process(tmp_path: Path) -> Iterator[None]:
    """A group of one process, met in a file."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every loss by pieces."""
    seen: list[str] = []
    loss = LeanHead.loss

    def noted(self: LeanHead, *given: object, **options: object) -> Tensor:
        seen.append(self.mode)
        return loss(self, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LeanHead, "loss", noted)
    return seen


@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("name", ["T5", "Llama"])
def test_ddp(name: str, unused: bool, losses: list[str]) -> None:
    model = language_model(name, 0.1)
    _, expected = gradients(model, language_batch("right"))
    set_lean_attention(model)
    set_lean_head(model)
    replica = DistributedDataParallel(model, find_unused_parameters=unused)
    _, found = gradients(replica, language_batch("right"), model)
    assert losses == ["forward"]
    _compare(expected, found)


@pytest.mark.parametrize("mode", ["forward", "again"])
@pytest.mark.parametrize("name", ["T5", "BERT", "GPT-2", "Llama"])
def test_fully_shard(name: str, mode: HeadMode, losses: list[str]) -> None:
    model = language_model(name, 0.1)
    _, expected = gradients(model, language_batch("right"))
    set_lean_attention(model)
    set_lean_head(model, mode=mode)
    fully_shard(model)
    _, found = gradients(model, language_batch("right"))
    assert losses == [mode]
    _compare(expected, found)


def test_a_head_sharded_by_itself_is_stock(losses: list[str]) -> None:
    model = language_model("Llama", 0.1)
    _, expected = gradients(model, language_batch("right"))
    set_lean_head(model)
    fully_shard(model.lm_head)
    fully_shard(model)
    _, found = gradients(model, language_batch("right"))
    assert losses == []
    _compare(expected, found)
    assert set_lean_head(model) == {"lm_head": "FSDPLeanHead: sharded or parametrized"}


def _compare(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        value = found[name].full_tensor() if isinstance(found[name], DTensor) else found[name]
        torch.testing.assert_close(value, gradient, rtol=1e-4, atol=1e-6)
