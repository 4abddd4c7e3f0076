"""Ways to take a training step, on one model: setting each of them up, and what it keeps, takes and adds in noise."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.lean.convert import lean_
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.linear_layers import is_linear_layer
from wtacrs.integration.measure.memory import LiveBytes, checkpointed, loss_of, saved_by_type, without_cache
from wtacrs.integration.models.lora import add_lora
from wtacrs.validation.benchmarks.timing import wait_for
from wtacrs.validation.records.front import Way

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = Mapping[str, Tensor]
LeanPart = Callable[[nn.Module], bool]

PARTS: dict[str, LeanPart] = {
    "norms": lambda module: bool(module._parameters) and not is_linear_layer(module),
    "dropout": lambda module: isinstance(module, nn.Dropout),
    "activations": lambda module: not module._parameters and not isinstance(module, nn.Dropout),
    "recipes of exact layers": is_linear_layer,
}
"""Neighbours that `lean_` converts, apart, in the order in which the saving is decomposed."""


class Subjects:
    """One model with its weights, and copies of it for ways that a model cannot be brought back from.

    Args:
        model: stock, in training mode, on its device.
        seed: of adapters and dropout.
    """

    def __init__(self, model: PreTrainedModel, *, seed: int = 0) -> None:
        self._stock, self._seed = model, seed
        self._adapted: dict[int, nn.Module] = {}
        self._compiled: dict[float, nn.Module] = {}

    @contextlib.contextmanager
    def taken(self, way: Way) -> Iterator[nn.Module]:
        """The model, ready for steps of this way; stock again afterwards."""
        model = self._model(way)
        _set_attention(model, way.attention)
        with without_cache(model), checkpointed(model, way.checkpointing), _budget(way.memory_budget):
            try:
                _convert(model, way, self._seed)
                yield model if way.memory_budget is None else self._compiled[way.memory_budget]
            finally:
                restore_(model)

    def _model(self, way: Way) -> nn.Module:
        if way.memory_budget is not None and way.memory_budget not in self._compiled:
            own = copy.deepcopy(self._stock)
            self._compiled[way.memory_budget] = torch.compile(own)  # type: ignore[assignment]
        if way.memory_budget is not None:
            compiled: Any = self._compiled[way.memory_budget]
            found: nn.Module = compiled._orig_mod
            return found
        if way.lora_rank is None:
            return self._stock
        if way.lora_rank not in self._adapted:
            adapted = add_lora(copy.deepcopy(self._stock), way.lora_rank, seed=self._seed)
            self._adapted[way.lora_rank] = _with_trained_b(adapted, self._seed)
        return self._adapted[way.lora_rank]


def _set_attention(model: nn.Module, implementation: str) -> None:
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):  # encoder and decoder may have configs of their own
            module.set_attn_implementation(implementation)


def _with_trained_b(model: nn.Module, seed: int) -> nn.Module:
    """Adapters as after some training: B is zero at first, and A has no gradient then, nor any noise."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad and not bool(parameter.detach().any()):
            drawn = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
            parameter.data.copy_(drawn)
    return model


def _convert(model: nn.Module, way: Way, seed: int) -> None:
    if way.estimator != "exact":
        approximate_(model, way.estimator, min_rows=way.min_rows, lean=way.lean or False, seed=seed)
    elif way.lean is not None:
        lean_(model, **LeanOptions.parse(way.lean).arguments())


@contextlib.contextmanager
def _budget(budget: float | None) -> Iterator[None]:
    if budget is None:
        yield
        return
    from torch._functorch import config

    with config.patch(activation_memory_budget=budget):
        yield


@dataclass(frozen=True)
class StepBytes:
    """Bytes of a step: kept for the backward pass, and the most that is alive; None where the compiler hides it."""

    kept: int
    peak: int | None


def step_bytes(subjects: Subjects, way: Way, batch: Batch) -> StepBytes:
    """Measure one way, as `step_memory` does."""
    with subjects.taken(way) as model:
        if way.memory_budget is not None:
            loss_of(model, batch, way.precision).backward()  # compiles
        return _bytes_of(model, way, batch)


def _bytes_of(model: nn.Module, way: Way, batch: Batch) -> StepBytes:
    model.zero_grad(set_to_none=True)
    loss = partial(loss_of, model, batch, way.precision)
    kept = sum(entry.bytes for entry in saved_by_type(model, loss, batch))
    if way.memory_budget is not None:
        return StepBytes(kept, None)
    with LiveBytes() as live:
        loss().backward()
    model.zero_grad(set_to_none=True)
    return StepBytes(kept, live.peak)


def step_seconds(
    subjects: Subjects,
    ways: Sequence[Way],
    batch: Batch,
    *,
    rounds: int,
    report: Callable[[str, int, int], None] | None = None,
) -> list[list[float]]:
    """Seconds of forward and backward pass of every way, in each of several rounds; ways take turns.

    Two steps of a way are run at a time and the second one counts, since a model that was just converted is cold.
    """
    seconds: list[list[float]] = [[] for _ in ways]
    device = next(iter(batch.values())).device
    for done in range(rounds):
        for place, way in enumerate(ways):
            if report is not None:
                report(f"time of {way.name}", done * len(ways) + place, rounds * len(ways))
            with subjects.taken(way) as model:
                for _ in range(2):
                    model.zero_grad(set_to_none=True)
                    wait_for(device)
                    started = time.perf_counter()
                    loss_of(model, batch, way.precision).backward()
                    wait_for(device)
                    taken = time.perf_counter() - started
                seconds[place].append(taken)
                model.zero_grad(set_to_none=True)
    return seconds


def gradient_noise(
    subjects: Subjects,
    ways: Sequence[Way],
    batches: Sequence[Batch],
    *,
    draws: int,
    seed: int,
    report: Callable[[str, int, int], None] | None = None,
) -> list[float | None]:
    """E‖Ĝ − G‖² of every way over draws, on the first batch, over the variance of G between the batches.

    Dropout masks are the same in all steps of one batch. Ways that draw their own masks, by "quick-dropout", are measured
    with stock masks; ways with adapters are compared with exact training of the adapters. Compiled ways have None: their
    masks are others.

    Args:
        subjects: the model.
        ways: to be measured.
        batches: at least two.
        draws: of every estimator.
        seed: of dropout.
        report: progress.
    """
    found: list[float | None] = []
    known: dict[tuple[int | None, str, str], tuple[dict[str, Tensor], float]] = {}
    for done, way in enumerate(ways):
        if report is not None:
            report(f"noise of {way.name}", done, len(ways))
        if way.memory_budget is not None:
            found.append(None)
            continue
        if not _is_estimated(way):
            found.append(0.0)
            continue
        key = way.lora_rank, way.precision, way.attention
        if key not in known:
            exact = Way(lora_rank=way.lora_rank, precision=way.precision, attention=way.attention)
            known[key] = _exact_gradients(subjects, exact, batches, seed)
        gradient, between = known[key]
        with subjects.taken(_with_stock_masks(way)) as model:
            errors = [_squared_error(_gradients(model, way, batches[0], seed), gradient) for _ in range(draws)]
        found.append(sum(errors) / draws / between)
    return found


def _is_estimated(way: Way) -> bool:
    bits = None if way.lean is None else LeanOptions.parse(way.lean).bits
    return way.estimator != "exact" or bits is not None


def _with_stock_masks(way: Way) -> Way:
    if way.lean is None:
        return way
    return way.model_copy(update={"lean": str(replace(LeanOptions.parse(way.lean), dropout="stock"))})


def _exact_gradients(
    subjects: Subjects, way: Way, batches: Sequence[Batch], seed: int
) -> tuple[dict[str, Tensor], float]:
    """The gradient of the first batch, and the variance between batches, by Welford's recurrence."""
    with subjects.taken(way) as model:
        first = _gradients(model, way, batches[0], seed)
        mean = {name: gradient.clone() for name, gradient in first.items()}
        scatter = 0.0
        for count, batch in enumerate(batches[1:], start=2):
            for name, gradient in _gradients(model, way, batch, seed).items():
                before = gradient - mean[name]
                mean[name].add_(before, alpha=1.0 / count)
                scatter += float((before * (gradient - mean[name])).sum(dtype=torch.float64))
    return first, scatter / (len(batches) - 1)


def _gradients(model: nn.Module, way: Way, batch: Batch, seed: int) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        loss_of(model, batch, way.precision).backward()
    found = {name: p.grad.detach() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def _squared_error(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    return sum(
        float((found[name] - gradient).square().sum(dtype=torch.float64)) for name, gradient in exact.items()
    )


def saving_parts(subjects: Subjects, estimator: str, batch: Batch) -> list[tuple[str, StepBytes]]:
    """What a step keeps as one part after another is made lean, and in the end sampled.

    Args:
        subjects: the model.
        estimator: of dW, in the last but two steps.
        batch: of a step.
    """
    found = [("stock", step_bytes(subjects, Way(), batch))]
    chosen: list[LeanPart] = []
    for name, part in PARTS.items():
        chosen.append(part)
        found.append((name, _lean_bytes(subjects, tuple(chosen), batch)))
    steps = {
        "attention": Way(lean="attention"),
        "output layer and loss": Way(lean="attention,head"),
        "sampling": Way(lean="attention,head", estimator=estimator),
        "attention again": Way(lean="attention-again,head", estimator=estimator),
        "output layer again": Way(lean="attention-again,head-again", estimator=estimator),
    }
    return [*found, *((name, step_bytes(subjects, way, batch)) for name, way in steps.items())]


def _lean_bytes(subjects: Subjects, parts: tuple[LeanPart, ...], batch: Batch) -> StepBytes:
    with subjects.taken(Way()) as model:
        lean_(model, filter_fn=lambda module, _: any(part(module) for part in parts))
        return _bytes_of(model, Way(), batch)
