"""What a training step keeps: exactly, with estimators, with checkpointing and with both. Result file and figure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from wtacrs.estimators import InputError, make
from wtacrs.figures.plots import memory as memory_figure
from wtacrs.integration.layers.estimated_weight_grad import checked_budget_of
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.least_elements import checked_min_rows
from wtacrs.integration.measure.memory import can_checkpoint, step_memory
from wtacrs.integration.models.loading import is_text_to_text, model_name
from wtacrs.integration.models.lora import add_lora
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies.output import draw_or_remove
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.batches import require_examples, task_batches
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import stamp, with_lean
from wtacrs.validation.records.memory import MemoryResult
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["fp32", "bf16"]


def memory_study(
    subject: Subject,
    estimators: Sequence[str],
    out: Path,
    *,
    batch_size: int,
    max_length: int,
    precision: str,
    layers: Sequence[str] | None,
    device: str,
    lora_rank: int | None,
    lora_fa: bool,
    seed: int,
    report: Report,
    owners: bool = False,
    lean: Sequence[str] = (),
    budget_of: str = "all-rows",
    min_rows: int = 0,
) -> MemoryResult:
    """Open task and model, and measure; the arguments are those of `measure_memory`.

    Raises:
        InputError: on anything that cannot be loaded or used; what needs no model is checked before one is opened.
    """
    seed = checked_seed(seed)
    if precision not in ("fp32", "bf16"):
        raise InputError(f"--precision {precision!r} must be fp32 or bf16")
    checked_budget_of(budget_of)
    checked_min_rows(min_rows)
    for spec in estimators:
        make(spec)
    for words in lean:
        LeanOptions.parse(words)
    FinetuneConfig(lora_rank=lora_rank, lora_fa=lora_fa)
    check_folder("out", out)
    task = subject.load(needs_dev=False)
    require_examples(task, 1, batch_size)
    model, tokenizer = subject.open(task, seed)
    return measure_memory(
        model,
        tokenizer,
        task,
        estimators,
        out,
        batch_size=batch_size,
        max_length=max_length,
        precision="bf16" if precision == "bf16" else "fp32",
        layers=layers,
        device=device,
        lora_rank=lora_rank,
        lora_fa=lora_fa,
        seed=seed,
        report=report,
        owners=owners,
        lean=lean,
        budget_of=budget_of,
        min_rows=min_rows,
    )


def measure_memory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    estimators: Sequence[str],
    out: Path,
    *,
    batch_size: int = 32,
    max_length: int = 128,
    precision: Precision = "fp32",
    layers: Sequence[str] | None = None,
    device: str = "cpu",
    lora_rank: int | None = None,
    lora_fa: bool = False,
    seed: int = 0,
    report: Report | None = None,
    owners: bool = False,
    lean: Sequence[str] = (),
    budget_of: str = "all-rows",
    min_rows: int = 0,
) -> MemoryResult:
    """Measure one batch of a task in every way, and write `memory.json`.

    A model that cannot checkpoint is measured without. With a `lora_rank` the model gets adapters first (`add_lora`), by
    `layers` those of the named layers. With `owners` the exact step and that of the first estimator tell who holds what.
    Every text of `lean`, in the words of `LeanOptions`, adds all of these steps once more, with such neighbours.
    `budget_of` and `min_rows` are those of `approximate_`.

    Raises:
        InputError: on an unusable spec or pattern, and on too few examples.
    """
    seed = checked_seed(seed)
    checked_budget_of(budget_of)
    checked_min_rows(min_rows)
    name, text_to_text = model_name(model), is_text_to_text(model)
    if lora_rank is not None:
        name = f"{name} with {'LoRA-FA' if lora_fa else 'LoRA'} {lora_rank}"
        adapted = add_lora(model, lora_rank, layers=layers, frozen_a=lora_fa, seed=seed)
        model, layers = cast("PreTrainedModel", adapted), None
    specs = list(dict.fromkeys(["exact", *(repr(make(spec)) for spec in estimators)]))
    neighbours = [None, *dict.fromkeys(str(LeanOptions.parse(words)) for words in lean)]
    recomputed = (False, True) if can_checkpoint(model) else (False,)
    ways = [(words, spec, on) for words in neighbours for spec in specs for on in recomputed]
    options = {"batches": 1, "batch_size": batch_size, "max_length": max_length, "seed": seed}
    begin_work(
        f"{name} on {task.name}: {len(ways)} ways to take a step of {batch_size} examples, of {len(specs)} estimators",
        *(f"  {with_lean(spec, words)}{', checkpointed' if on else ''}" for words, spec, on in ways),
        f"writes {out / 'memory.json'}",
    )
    (batch,) = task_batches(task, tokenizer, text_to_text=text_to_text, **options)
    model.to(device)
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    steps = []
    for done, (words, spec, on) in enumerate(ways):
        if report is not None:
            report(with_lean(spec, words), done, len(ways))
        told = owners and not on and spec in specs[:2]
        measured = partial(step_memory, model, batch, precision=precision, layers=layers, owners=told)
        steps.append(
            measured(estimator=spec, lean=words, checkpointing=on, budget_of=budget_of, min_rows=min_rows)
        )
    inputs = {"max_length": str(max_length)} | ({"layers": " ".join(layers)} if layers else {})
    inputs |= {"budget_of": budget_of} if budget_of != "all-rows" else {}
    inputs |= {"min_rows": str(min_rows)} if min_rows else {}
    result = MemoryResult(
        stamp=stamp(seed=seed, device=device, inputs=inputs),
        model=name,
        task=task.name,
        batch_size=batch_size,
        tokens=batch["input_ids"].shape[1],
        precision=precision,
        parameters=sum(p.numel() * p.element_size() for p in model.parameters()),
        steps=steps,
    )
    write_result(out / "memory.json", result)
    draw_or_remove(partial(memory_figure.draw, result), out / "memory.png")
    return result
