"""`lean_`: what is found, what stays and why, and what a lean model can be used for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lean_gradients import SEED, deviation, model_gradients, module_gradients
from support.models import t5_batch, tiny_t5
from support.processes import in_processes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations

from wtacrs.estimators import InputError
from wtacrs.integration import approximate_, lean_, restore_
from wtacrs.integration.layers.lean.classes import LeanModule
from wtacrs.integration.parallel.processes import Processes


def mixed() -> nn.Sequential:
    """A model of somebody's own, with parts that no lean piece knows."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 8),
        nn.LayerNorm(8),
        nn.Dropout(0.2),
        nn.Linear(8, 16),
        nn.GELU(),
        nn.LeakyReLU(),
        nn.Linear(16, 8),
        nn.RMSNorm(8, eps=1e-6),
        nn.Tanh(),
        nn.Linear(8, 2),
    ).train()


def test_what_is_found_and_what_stays() -> None:
    lean = lean_(mixed())
    assert lean == ["0", "1", "2", "3", "4", "6", "7", "9"]
    assert lean.found["7"] == "RMS norm, scale weight, eps 1e-06"
    assert lean.stays["5"].startswith("no known element-wise function")
    assert lean.stays["8"].startswith("tanh")


def test_reasons() -> None:
    model = nn.Sequential(
        nn.GELU(),
        nn.Embedding(3, 4),
        parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.modules.linear.NonDynamicallyQuantizableLinear(4, 4),
        nn.Dropout(0.1, inplace=True),
        nn.BatchNorm1d(4),
        nn.Linear(4, 4),
        nn.Linear(4, 4, dtype=torch.complex64),
    )
    model[6].forward = lambda x: x
    lean = lean_(model)
    assert lean == ["0"]
    assert lean.stays["1"] == "a look-up: it keeps ids"
    assert lean.stays["2"].startswith("parametrized")
    assert "own forward would be lost" in lean.stays["3"]
    assert lean.stays["4"] == "dropout in place"
    assert lean.stays["5"].startswith("no lean piece")
    assert lean.stays["6"] == "its forward is replaced on the instance"
    assert "complex64" in lean.stays["7"]


def test_a_filter_chooses_and_a_second_call_counts() -> None:
    model = mixed()
    lean_(model)
    lean = lean_(model, filter_fn=lambda module, name: not isinstance(module, nn.Dropout))
    assert lean.stays["2"] == "left out by the filter"
    assert type(model[2]) is nn.Dropout
    assert restore_(model) == lean


@pytest.mark.parametrize(
    "model", [nn.Linear(4, 4), nn.Conv2d(1, 1, 3), nn.Sequential()], ids=["linear", "conv", "empty"]
)
def test_a_model_without_such_neighbours_is_refused(model: nn.Module) -> None:
    with pytest.raises(InputError, match="has no norm, dropout or activation that can keep less"):
        lean_(model)
    assert not isinstance(model, LeanModule)


def test_a_model_with_foreign_parts_has_its_gradients(generator: torch.Generator) -> None:
    model, x = mixed(), torch.randn(9, 8, generator=generator)
    known = module_gradients(model, x)
    lean_(model)
    assert deviation(module_gradients(model, x), known) <= 3e-6


def test_eval_mode_and_no_grad_are_stock(generator: torch.Generator) -> None:
    model, x = mixed(), torch.randn(9, 8, generator=generator)
    torch.manual_seed(SEED)
    with torch.no_grad():
        training, known = model(x), model.eval()(x)
    lean_(model)
    assert torch.equal(model(x), known)
    torch.manual_seed(SEED)
    with torch.no_grad():
        assert torch.equal(model.train()(x), training)


@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "aot_eager"])
def test_compiled_models_are_the_stock_ones(backend: str, generator: torch.Generator) -> None:
    torch._dynamo.reset()
    model, x = mixed(), torch.randn(9, 8, generator=generator)
    found = []
    for _ in range(2):
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        found.append(module_gradients(compiled, x))
        torch._dynamo.reset()
        lean_(model)
    assert all(torch.equal(found[1][name], value) for name, value in found[0].items())


def test_transforms_of_torch_take_the_stock_path(generator: torch.Generator) -> None:
    model, x = mixed(), torch.randn(9, 8, generator=generator)
    model[2].p = 0.0
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (x[None],)).square().sum()

    per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    known = per_example(parameters, x)
    lean_(model)
    found = per_example(parameters, x)
    assert all(torch.equal(found[name], value) for name, value in known.items())


def test_hooks_stay_and_are_run(generator: torch.Generator) -> None:
    model, x = mixed(), torch.randn(9, 8, generator=generator)
    seen: list[str] = []
    for name, module in model.named_children():
        module.register_forward_hook(lambda m, a, y, name=name: seen.append(name))
        module.register_full_backward_hook(lambda m, dx, dy, name=name: seen.append(name))
    known = module_gradients(model, x)
    names, seen[:] = list(seen), []
    lean_(model)
    found = module_gradients(model, x)
    assert seen == names
    assert deviation(found, known) <= 3e-6


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shards(model: nn.Module, *kinds: str) -> nn.Module:
    mesh = init_device_mesh("cpu", (Processes.here().count,))
    for module in model.modules():
        if type(module).__name__.removeprefix("Lean") in kinds:
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "ddp": DistributedDataParallel,
    "blocks": lambda model: shards(model, "T5Block"),
    "norms": lambda model: shards(model, "T5LayerNorm"),
}


def wrapped_gradients() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, wrap in WAYS.items():
        for first in (True, False):
            model = tiny_t5()
            batch = {key: value[Processes.here().rank :][:2] for key, value in t5_batch().items()}
            names = lean_(model) if first else []
            model = wrap(model)
            names = names or lean_(model)
            model(**batch).loss.backward()
            gradients = {n.removeprefix("module."): whole(p.grad) for n, p in model.named_parameters()}
            converted = sum(isinstance(module, LeanModule) for module in model.modules())
            restored = restore_(model)
            left = sum(isinstance(module, LeanModule) for module in model.modules())
            found[f"{name}, {first}"] = gradients, list(names), restored, converted, left
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_wrapped_and_sharded_models(tmp_path: Path) -> None:
    """The norms' weights are gone from memory when a linear layer outside their shard makes its input again."""
    exact: dict[str, Tensor] = {}
    for rank in range(2):
        model = tiny_t5()
        model(**{key: value[rank:][:2] for key, value in t5_batch().items()}).loss.backward()
        for name, parameter in model.named_parameters():
            exact[name] = exact.get(name, 0.0) + parameter.grad / 2
    for found in in_processes(wrapped_gradients, tmp_path):
        assert len(found) == 2 * len(WAYS)
        for way, (gradients, names, restored, converted, left) in found.items():
            assert names == restored, way
            assert (converted, left) == (len(names), 0), way
            for name, gradient in gradients.items():
                torch.testing.assert_close(gradient, exact[name], atol=1e-6, rtol=1e-5, msg=f"{way}: {name}")


def test_lora(generator: torch.Generator) -> None:
    peft = pytest.importorskip("peft")
    model = tiny_t5(dropout=0.1)
    config = peft.LoraConfig(r=4, target_modules=["q", "v", "wi", "wo"], lora_dropout=0.1)
    model, batch = peft.get_peft_model(model, config).train(), t5_batch()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, generator=generator)
    known, _ = model_gradients(model, batch)
    lean_(model)
    found, _ = model_gradients(model, batch)
    assert deviation(found, known) <= 1e-5
    assert approximate_(model, "wta_crs(budget=0.3)")
