"""Models in wrappers: converted, restored, looked at and captured as what is inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from support.processes import in_processes
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DataParallel

from wtacrs.estimators import InputError
from wtacrs.integration.context.sampling_state import load_sampling_state, sampling_state
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.measure.coverage import coverage
from wtacrs.integration.measure.memory import step_memory
from wtacrs.integration.parallel.wrappers import replicated, unwrapped


@pytest.mark.parametrize("model", ["x", None, nn.Linear, torch.zeros(9, 9)], ids=str)
@pytest.mark.parametrize(
    "use",
    [
        lambda model: approximate_(model, "crs(budget=0.3)"),
        restore_,
        sampling_state,
        lambda model: load_sampling_state(model, {}),
        lambda model: capture(model, [], "never written"),
        coverage,
        lambda model: step_memory(model, t5_batch()),
    ],
    ids=[
        "approximate_",
        "restore_",
        "sampling_state",
        "load_sampling_state",
        "capture",
        "coverage",
        "step_memory",
    ],
)
def test_what_is_no_model_is_named(unchecked: None, use: Callable[[Any], Any], model: Any) -> None:
    with pytest.raises(InputError, match=r"^model=[^\n]* must be a torch\.nn\.Module$"):
        use(model)


def test_the_model_inside() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert unwrapped(DataParallel(model)) is unwrapped(DataParallel(DataParallel(model))) is model
    assert unwrapped(model) is model
    assert (replicated(model), replicated(DataParallel(model, device_ids=[]))) == (0, 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="without a device DataParallel calls its module")
def test_data_parallel_without_devices_trains_by_the_masks_of_its_model() -> None:
    gradients = []
    for wrap in (lambda model: model, DataParallel):
        model = tiny_t5()
        wrapped = wrap(model)
        names = approximate_(wrapped, "wta_crs(budget=0.3)", min_elements=0)
        assert names[0] == "encoder.block.0.layer.0.SelfAttention.q"
        torch.manual_seed(0)
        wrapped(**t5_batch()).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        assert restore_(wrapped) == names
        assert not any(isinstance(module, ApproxLinear) for module in model.modules())
        assert not model._forward_pre_hooks
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_replicas_on_several_devices_are_refused_and_the_model_can_be_restored() -> None:
    model = DataParallel(nn.Sequential(nn.Linear(2, 2)))
    model.device_ids = [0, 1]  # as with two devices
    with pytest.raises(InputError, match=r"model=DataParallel over 2 devices: .* one process per device"):
        approximate_(model, "crs(budget=0.5)")
    assert type(model.module[0]) is nn.Linear
    assert restore_(model) == []


def older_sharding() -> list[tuple[list[str], list[str], dict[str, str], str | None, list[str]]]:
    found = []
    for original_parameters in (False, True):
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        wrapped = FullyShardedDataParallel(
            model, use_orig_params=original_parameters, device_id=torch.device("cpu")
        )
        told = approximate_(wrapped, "crs(budget=0.5)", min_elements=0)
        wrapped(torch.randn(9, 8)).sum().backward()
        found.append((list(told), told.estimated, told.exact, told.warning, restore_(wrapped)))
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_weights_in_the_flat_parameter_of_the_older_sharding_train(tmp_path: Path) -> None:
    """A process may hold nothing of a layer's weight, which is estimated all the same."""
    for found in in_processes(older_sharding, tmp_path):
        assert found == [(["0", "2"], ["0", "2"], {}, None, ["0", "2"])] * 2


def test_coverage_and_capture_name_the_layers_of_the_model_inside(tmp_path: Path) -> None:
    model = tiny_bert()
    wrapped = DataParallel(model, device_ids=[])
    assert coverage(wrapped, bert_batch()) == coverage(model, bert_batch())
    found = capture(wrapped, [bert_batch()], tmp_path / "a.safetensors")
    assert list(found) == list(capture(model, [bert_batch()], tmp_path / "b.safetensors"))
