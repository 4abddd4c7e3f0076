"""Which blocks of a model to sample, to make lean and to checkpoint, for a step within an amount of memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from wtacrs.estimators import InputError
from wtacrs.figures.plots import plan as plan_figure
from wtacrs.integration.layers.planned import load_plan
from wtacrs.integration.models.loading import is_text_to_text, model_name
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.planning.choices import ESTIMATORS, LEAN, choices_of, heads_of
from wtacrs.integration.planning.costs import measured_costs
from wtacrs.integration.planning.noise import captured_noise, independent_rows_noise
from wtacrs.integration.planning.solver import Front, Solution, check_ceilings, stock_solution
from wtacrs.integration.studies.output import device_name, draw_or_remove
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.batches import require_examples, task_batches
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.plan import CostTable, FrontPoint, Plan, PlannedBlock
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Limits(NamedTuple):
    """What a plan must hold: bytes, and noise over the minibatch's or time over the stock step's."""

    memory: int
    noise_ceiling: float | None = None
    time_ceiling: float | None = None


def plan_study(
    subject: Subject,
    limits: Limits,
    out: Path,
    *,
    batch_size: int,
    max_length: int,
    estimators: Sequence[str] = ESTIMATORS,
    lean: Sequence[str] = LEAN,
    captured: int = 4,
    costs: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    report: Report,
) -> Plan:
    """Open task and model, measure what choices cost, and write the best plan to `plan.json`.

    Args:
        subject: task and model.
        limits: of the plan.
        out: folder for the plan and its figure.
        batch_size: examples of a batch.
        max_length: longest input, in tokens.
        estimators: specs that blocks may have.
        lean: words of `LeanOptions` that blocks may have.
        captured: batches that the noise is found on, ≥ 2; 0 for a general law.
        costs: an earlier plan whose costs are used in place of measured ones; no model is opened then.
        device: where it is measured.
        seed: of new weights and batches.
        report: called with what is measured.

    Raises:
        InputError: on anything that cannot be loaded or used, and if no plan is within the limits.
    """
    seed = checked_seed(seed)
    choices = choices_of(estimators, lean)
    check_ceilings(limits.noise_ceiling, limits.time_ceiling)
    check_folder("out", out)
    if captured == 1 or captured < 0:
        raise InputError(f"captured={captured} must be 0 or at least 2: noise is told from that between batches")
    if costs is not None:
        return _written(_planned_again(load_plan(costs), limits, report), out)
    task = subject.load()
    require_examples(task, max(captured, 1), batch_size)
    model, tokenizer = subject.open(task, seed)
    batches = _batches(task, model, tokenizer, max(captured, 1), batch_size, max_length, seed, device)
    model.to(device).config.use_cache = False
    report("noise", 0, 1)
    specs = list(dict.fromkeys(choice.estimator for choice in choices if choice.estimator is not None))
    noise = captured_noise(model, batches, specs) if captured else independent_rows_noise(model)
    table = measured_costs(
        model,
        batches[0],
        choices,
        noise=noise,
        noise_by="closed form" if captured else "independent rows",
        heads=heads_of(model),
        progress=partial(report, "steps"),
    )
    plan = make_plan(
        table,
        limits,
        model=model_name(model),
        task=task.name,
        batch_size=batch_size,
        tokens=batches[0]["input_ids"].shape[1],
        seed=seed,
        device=device,
        report=report,
    )
    return _written(plan, out)


def make_plan(
    table: CostTable,
    limits: Limits,
    *,
    model: str,
    task: str,
    batch_size: int,
    tokens: int,
    seed: int | None = None,
    device: str = "cpu",
    report: Report | None = None,
) -> Plan:
    """The best plan of a table of costs, with all that its record says.

    Raises:
        InputError: if no plan is within the limits.
    """
    stock = stock_solution(table)
    ceiling = None if limits.time_ceiling is None else limits.time_ceiling * stock.seconds
    front = Front(
        table,
        noise_ceiling=limits.noise_ceiling,
        time_ceiling=ceiling,
        progress=None if report is None else partial(report, "plans"),
    )
    best = front.at(limits.memory)
    return Plan(
        stamp=stamp(seed=seed, device=device_name(device)),
        model=model,
        task=task,
        batch_size=batch_size,
        tokens=tokens,
        memory=limits.memory,
        noise_ceiling=limits.noise_ceiling,
        time_ceiling=limits.time_ceiling,
        head=best.rest.head,
        blocks=_blocks(table, best),
        peak=best.peak,
        seconds=best.seconds,
        noise=best.noise,
        stock_peak=stock.peak,
        stock_seconds=stock.seconds,
        limit=best.moment,
        front=[
            FrontPoint(memory=memory, peak=found.peak, seconds=found.seconds, noise=found.noise)
            for memory, found in front.points
        ],
        costs=table,
    )


def _planned_again(earlier: Plan, limits: Limits, report: Report) -> Plan:
    if earlier.costs is None:
        raise InputError(f"costs: the plan for {earlier.model} holds no costs")
    return make_plan(
        earlier.costs,
        limits,
        model=earlier.model,
        task=earlier.task,
        batch_size=earlier.batch_size,
        tokens=earlier.tokens,
        seed=earlier.stamp.seed,
        report=report,
    ).model_copy(update={"stamp": earlier.stamp})


def _blocks(table: CostTable, best: Solution) -> list[PlannedBlock]:
    return [
        PlannedBlock(
            name=block.name, choice=option.choice, kept=option.kept, seconds=option.seconds, noise=option.noise
        )
        for block, option in zip(table.blocks, best.options, strict=True)
    ]


def _batches(
    task: TaskData,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: int,
    batch_size: int,
    max_length: int,
    seed: int,
    device: str,
) -> list[dict[str, Tensor]]:
    options = {"batches": batches, "batch_size": batch_size, "max_length": max_length, "seed": seed}
    found = task_batches(task, tokenizer, text_to_text=is_text_to_text(model), **options)
    return [{name: tensor.to(device) for name, tensor in batch.items()} for batch in found]


def _written(plan: Plan, out: Path) -> Plan:
    write_result(out / "plan.json", plan)
    draw_or_remove(partial(plan_figure.draw, plan), out / "plan.png")
    return plan
