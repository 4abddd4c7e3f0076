"""`simulate_step`: all bytes of a training step from a config alone; `measure_step`: the same of a real model.

Both run the same lines: two steps with an update each, since states of the optimizer exist from the second one on. The
first tells who keeps what (`track_memory`), the second what is alive at every moment (`Ledger`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.choice import EstimatorChoice, made_of_argument
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.estimated_weight_grad import MIN_ELEMENTS
from wtacrs.integration.layers.lean.convert import lean_
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.least_elements import checked_min_elements
from wtacrs.integration.layers.linear_layers import filter_of
from wtacrs.integration.measure.kept_bytes import training_layers
from wtacrs.integration.measure.memory import checkpointed, loss_of, without_cache
from wtacrs.integration.measure.simulation.ledger import Ledger, Peak
from wtacrs.integration.measure.simulation.values import NoValues, fill_without_values, without_values
from wtacrs.integration.measure.track_memory import bytes_of, track_memory
from wtacrs.integration.models.lora import add_lora
from wtacrs.integration.models.published_sizes import config_of, model_from
from wtacrs.validation.arguments import check_callable, check_flag, checked_integer
from wtacrs.validation.records.owners import owner_bytes, shared_bytes
from wtacrs.validation.records.simulation import AliveBytes, SimulatedStep, StepChoice, StepPrecision
from wtacrs.validation.records.track_memory import TrackedMemoryResult

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

OPTIMIZERS = ("adamw", "adamw-foreach", "sgd", "adafactor", "none")
"""AdamW one parameter at a time, as on the CPU; all at once, as on CUDA by default, with temporary copies of all
parameters; SGD without momentum; Adafactor of transformers; no update, and no states."""


@dataclass(frozen=True)
class Simulation:
    """What a step needs.

    Attributes:
        step: all of it, as a record.
        tracked: every storage that is kept, with all that hold it; None with offloading, which hides them.
    """

    step: SimulatedStep
    tracked: TrackedMemoryResult | None

    def __repr__(self) -> str:
        step = self.step
        return f"Simulation({step.choice.name}: {step.peak:,} bytes at the peak, {step.kept:,} kept)"


@dataclass(frozen=True)
class _How:
    """A `StepChoice` with what is no text: estimators by layer, patterns, and what the caller does to the model."""

    choice: StepChoice
    estimator: EstimatorChoice
    layers: tuple[str, ...] | None
    min_elements: int
    prepare: Callable[[nn.Module], object] | None


def simulate_step(
    model: str | Path | PretrainedConfig,
    *,
    batch_size: int,
    length: int = 128,
    target_length: int | None = None,
    estimator: EstimatorChoice = "exact",
    lean: bool | str | LeanOptions = False,
    lora_rank: int | None = None,
    checkpointing: bool = False,
    offload: bool = False,
    precision: str = "fp32",
    optimizer: str = "adamw",
    layers: Iterable[str] | None = None,
    min_elements: int = MIN_ELEMENTS,
    prepare: Callable[[nn.Module], object] | None = None,
) -> Simulation:
    """The bytes of a training step on the CPU, without the model, the memory or the time that it takes.

    The real code runs on tensors without numbers (`NoValues`): the model of transformers, the converted layers, autograd
    and the optimizer. What it cannot know is what depends on numbers: the batch has no padding, and every label counts. A
    real step of such a batch has the same bytes; ignored labels make it an upper bound, and padding adds the masks that
    some models keep. On CUDA, kernels have buffers of their own and the allocator rounds; both come on top.

    Args:
        model: a published size (`PUBLISHED_SIZES`), a folder of a checkpoint, its `config.json`, or a config.
        batch_size: examples.
        length: tokens of an input.
        target_length: tokens of an answer of an encoder–decoder; None for `length`. Others take none.
        estimator: of dW, as in `approximate_`: a spec, or a mapping of patterns to specs; "exact" for stock layers.
        lean: options of `lean_`, as in `approximate_`.
        lora_rank: of adapters that train in place of all weights; None for all weights.
        checkpointing: recompute activations, block by block.
        offload: keep what is saved for the backward pass on the host, as `torch.autograd.graph.save_on_cpu` does.
        precision: "fp32", "bf16" for autocast, "bf16-weights" for weights, gradients and states in bfloat16.
        optimizer: one of `OPTIMIZERS`.
        layers: patterns of the layers to convert (with `lora_rank`, to adapt); None for all.
        min_elements: as in `approximate_`.
        prepare: called with the model before anything is converted, to change it as the caller likes.

    Raises:
        InputError: on an argument that is none of these, where the model cannot be checkpointed, and where an operator
            depends on numbers.

    >>> found = simulate_step("t5-small", batch_size=8, length=64, estimator="wta_crs(budget=0.3)")
    >>> found.step.parameters, found.step.states > 2 * found.step.parameters, found.step.phase
    (242026496, True, 'backward')
    """
    how = _how(
        estimator=estimator,
        lean=lean,
        lora_rank=lora_rank,
        checkpointing=checkpointing,
        offload=offload,
        precision=precision,
        optimizer=optimizer,
        layers=layers,
        min_elements=min_elements,
        prepare=prepare,
    )
    config = config_of(model)
    shape = checked_shape(config, batch_size, length, target_length)
    with torch.device("meta"):
        made = _adapted(model_from(config), how)
    _convert(made, how)
    shifts = shape.target_length is None and has_output_embeddings(made)
    with without_values(NoValues(all_count=not shifts)):
        fill_without_values(made)
        return _taken(made, example_batch(made, shape), shape, how)


def measure_step(
    model: PreTrainedModel,
    *,
    batch_size: int,
    length: int = 128,
    target_length: int | None = None,
    **options: Any,
) -> Simulation:
    """What `simulate_step` tells, measured on a real model on the CPU, which is used up: converted and updated twice.

    Args:
        model: stock, on the CPU.
        batch_size: examples, of ones.
        length: tokens of an input.
        target_length: as in `simulate_step`.
        **options: all others of `simulate_step`.

    Raises:
        InputError: as there, and if the model is not on the CPU.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise InputError(f"model={type(model).__name__}: it must be on the CPU, whose operators are written down")
    how = _how(**options)
    shape = checked_shape(model.config, batch_size, length, target_length)
    with torch.random.fork_rng(devices=[]):
        made = _adapted(model.train(), how)
        _convert(made, how)
        return _taken(made, example_batch(made, shape), shape, how)


@dataclass(frozen=True)
class Shape:
    """Of a batch: examples, tokens of an input, and of an answer for an encoder–decoder."""

    batch_size: int
    length: int
    target_length: int | None


def example_batch(model: nn.Module, shape: Shape) -> dict[str, Tensor]:
    """A batch without padding in which every label counts: ids, mask, and the labels that the model asks for."""
    tokens = torch.ones(shape.batch_size, shape.length, dtype=torch.int64)
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if shape.target_length is not None:
        labels = torch.ones(shape.batch_size, shape.target_length, dtype=torch.int64)
    elif has_output_embeddings(model):
        labels = torch.ones_like(tokens)
    else:
        labels = torch.ones(shape.batch_size, dtype=torch.int64)
    return {**batch, "labels": labels}


def has_output_embeddings(model: Any) -> bool:
    """Whether a model writes, and takes a label for every token."""
    return model.get_output_embeddings() is not None


def _how(
    *,
    estimator: EstimatorChoice = "exact",
    lean: bool | str | LeanOptions = False,
    lora_rank: int | None = None,
    checkpointing: bool = False,
    offload: bool = False,
    precision: str = "fp32",
    optimizer: str = "adamw",
    layers: Iterable[str] | None = None,
    min_elements: int = MIN_ELEMENTS,
    prepare: Callable[[nn.Module], object] | None = None,
) -> _How:
    check_flag(checkpointing, "checkpointing")
    check_flag(offload, "offload")
    if precision not in get_args(StepPrecision):
        raise InputError(f"precision={precision!r} must be {', '.join(get_args(StepPrecision))}")
    if optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer={optimizer!r} must be one of {', '.join(OPTIMIZERS)}")
    check_callable(prepare, "prepare", takes="a model")
    options = LeanOptions.of(lean)
    choice = StepChoice(
        estimator=_text(estimator),
        lean=None if options is None else str(options),
        lora_rank=None if lora_rank is None else checked_integer(lora_rank, "lora_rank", least=1, or_none=True),
        checkpointing=checkpointing,
        offload=offload,
        precision=cast("StepPrecision", precision),
        optimizer=optimizer,
    )
    patterns = None if layers is None else tuple(layers)
    return _How(choice, estimator, patterns, checked_min_elements(min_elements), prepare)


def _text(estimator: EstimatorChoice) -> str:
    if isinstance(estimator, Mapping):
        return ", ".join(f"{pattern}: {_text(spec)}" for pattern, spec in estimator.items())
    return "exact" if estimator == "exact" else repr(made_of_argument(estimator))


def checked_shape(config: PretrainedConfig, batch_size: int, length: int, target_length: int | None) -> Shape:
    """The shape of a batch, as a config takes it.

    Raises:
        InputError: on a size below 1, too many positions, and an answer for a model without a decoder of its own.
    """
    batch_size = checked_integer(batch_size, "batch_size", least=1)
    length = checked_integer(length, "length", least=1)
    if target_length is not None:
        target_length = checked_integer(target_length, "target_length", least=1, or_none=True)
    writes = bool(getattr(config, "is_encoder_decoder", False))
    if target_length is not None and not writes:
        raise InputError(
            f"target_length={target_length}: {config.model_type} has no decoder of its own; leave it out"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and length > positions:
        raise InputError(f"length={length}: {config.model_type} of this config has {positions} positions")
    return Shape(batch_size, length, (target_length or length) if writes else None)


def _adapted(model: PreTrainedModel, how: _How) -> nn.Module:
    choice = how.choice
    adapted: nn.Module = model
    if choice.lora_rank is not None:
        adapted = add_lora(model, choice.lora_rank, layers=how.layers)
    return adapted.to(torch.bfloat16) if choice.precision == "bf16-weights" else adapted


def _convert(model: nn.Module, how: _How) -> None:
    if how.prepare is not None:
        how.prepare(model)
    if how.choice.lean is not None:
        lean_(model, **LeanOptions.parse(how.choice.lean).arguments())
    if how.choice.estimator != "exact":
        patterns = None if how.choice.lora_rank is not None else how.layers
        approximate_(
            model, how.estimator, filter_fn=filter_of(model, patterns), min_elements=how.min_elements, seed=0
        )


def _taken(model: nn.Module, batch: dict[str, Tensor], shape: Shape, how: _How) -> Simulation:
    choice = how.choice
    optimizer = _optimizer(model, choice.optimizer)
    with without_cache(model), checkpointed(model, choice.checkpointing):
        tracked = _first_step(model, batch, optimizer, choice)
        states = [] if optimizer is None else _states(optimizer)
        fixed = {
            "parameters": bytes_of(model.parameters()),
            "buffers": bytes_of(model.buffers()),
            "batch": bytes_of(batch.values()),
            "optimizer states": bytes_of(states),
        }
        gradients, peak = _second_step(model, batch, optimizer, choice)
    below = sum(fixed.values())
    alive = [AliveBytes(kind=kind, modules="", operation="", bytes=size) for kind, size in fixed.items() if size]
    kept = [] if tracked is None else tracked.kept
    return Simulation(
        SimulatedStep(
            choice=choice,
            batch_size=shape.batch_size,
            length=shape.length,
            target_length=shape.target_length,
            converted=len(training_layers(model)) if choice.estimator != "exact" else 0,
            parameters=fixed["parameters"],
            buffers=fixed["buffers"],
            batch=fixed["batch"],
            states=fixed["optimizer states"],
            gradients=gradients,
            kept=peak.kept if tracked is None else tracked.total,
            host=peak.host,
            peak=below + peak.bytes,
            phase=peak.phase,
            phases={phase: below + size for phase, size in peak.phases.items()},
            alive=sorted([*alive, *peak.alive], key=lambda entry: -entry.bytes),
            owners=owner_bytes(kept, "pattern"),
            shared=shared_bytes(kept, "pattern"),
            blocks={} if tracked is None else {name: tracked.freed_by(name) for name in block_names(model)},
        ),
        tracked,
    )


def block_names(model: nn.Module) -> list[str]:
    """Names of the blocks that a model repeats: the members of its outermost lists of modules, in their order."""
    found: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and not any(name.startswith(f"{b}.") for b in found):
            found.extend(f"{name}.{place}" if name else str(place) for place in range(len(module)))
    return found


def _first_step(
    model: nn.Module, batch: dict[str, Tensor], optimizer: Any, choice: StepChoice
) -> TrackedMemoryResult | None:
    with contextlib.nullcontext() if choice.offload else track_memory(model) as tracked:
        with _offloaded(None) if choice.offload else contextlib.nullcontext():
            loss = loss_of(model, batch, choice.precision)
        loss.backward()
    if optimizer is not None:
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return None if tracked is None else tracked.result


def _second_step(
    model: nn.Module, batch: dict[str, Tensor], optimizer: Any, choice: StepChoice
) -> tuple[int, Peak]:
    with Ledger(model) as ledger:
        with _offloaded(ledger) if choice.offload else contextlib.nullcontext():
            loss = loss_of(model, batch, choice.precision)
        ledger.begin("backward")
        loss.backward()
        del loss
        found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        ledger.note_gradients(found)
        gradients = bytes_of(found)
        del found
        if optimizer is not None:
            ledger.begin("update")
            optimizer.step()
        model.zero_grad(set_to_none=True)
    return gradients, ledger.peak_of()


@contextlib.contextmanager
def _offloaded(ledger: Ledger | None) -> Iterator[None]:
    """Keep copies on the host of all that is saved, as `save_on_cpu` does; on the CPU itself it would copy nothing."""

    def pack(tensor: Tensor) -> Tensor:
        copy = tensor.detach().clone()
        if ledger is not None:
            ledger.note_host(copy)
        return copy

    with saved_tensors_hooks(pack, lambda copy: copy.clone()):
        yield


def _states(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(dict(optimizer.state)) if isinstance(leaf, Tensor)]


def _optimizer(model: nn.Module, name: str) -> Any:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "none":
        return None
    if name == "sgd":
        return torch.optim.SGD(trained, lr=1e-3, foreach=False)
    if name == "adafactor":
        from transformers import Adafactor

        return Adafactor(trained)
    return torch.optim.AdamW(trained, lr=1e-3, foreach=name == "adamw-foreach")
