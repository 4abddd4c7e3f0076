"""Which blocks of a model to sample, to make lean and to checkpoint, for a step within an amount of memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from torch import Tensor, nn

from wtacrs.estimators import InputError, make
from wtacrs.figures.plots import plan as plan_figure
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.planned import load_plan
from wtacrs.integration.models.loading import is_text_to_text, model_name, without_place
from wtacrs.integration.models.lora import add_lora
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.planning.choices import ESTIMATORS, FEW_ESTIMATORS, LEAN, choices_of, heads_of
from wtacrs.integration.planning.costs import PRECISIONS, Noise, measured_costs
from wtacrs.integration.planning.modelled_time import measured_rates
from wtacrs.integration.planning.noise import captured_noise, independent_rows_noise, noise_of_captures
from wtacrs.integration.planning.simulated import simulated_costs
from wtacrs.integration.planning.solver import Front, Solution, alike_plans, check_ceilings, stock_solution
from wtacrs.integration.studies.output import device_name, draw_or_remove
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.batches import require_examples, task_batches
from wtacrs.validation.arguments import checked_integer
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.files import check_folder
from wtacrs.validation.layers.captures import load_captures
from wtacrs.validation.layers.noise import layer_entries
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.plan import Choice, CostTable, FrontPoint, Plan, PlannedBlock, Rates
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Precision = Literal["fp32", "bf16"]


class Limits(NamedTuple):
    """What a plan must hold: bytes, and noise over the minibatch's or time over the stock step's.

    With `kept_as`, an estimator among the choices, blocks keep no more than if all had that one.
    """

    memory: int
    noise_ceiling: float | None = None
    time_ceiling: float | None = None
    kept_as: str | None = None

    def checked(self, choices: Sequence[Choice]) -> Limits:
        """The same with the estimator spelled as the choices have it.

        Raises:
            InputError: on unusable ceilings, and on an estimator that is no choice.
        """
        check_ceilings(self.noise_ceiling, self.time_ceiling)
        if self.kept_as is None:
            return self
        spec = repr(make(self.kept_as))
        if Choice(estimator=spec) not in choices:
            known = dict.fromkeys(choice.estimator for choice in choices if choice.estimator is not None)
            raise InputError(f"kept_as={self.kept_as!r} is none of the estimators: {', '.join(known)}")
        return self._replace(kept_as=spec)


def plan_study(
    subject: Subject,
    limits: Limits,
    out: Path,
    *,
    batch_size: int,
    max_length: int,
    estimators: Sequence[str] = ESTIMATORS,
    lean: Sequence[str] = LEAN,
    estimators_only: bool = False,
    captured: int = 4,
    costs: Path | None = None,
    precision: str = "fp32",
    lora_rank: int | None = None,
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
        estimators_only: blocks choose an estimator or none: none is lean or checkpointed, nor is the output layer lean.
        captured: batches that the noise is found on, ≥ 2; 0 for a general law.
        costs: an earlier plan whose costs are used in place of measured ones; no model is opened then.
        precision: "fp32", or "bf16" for autocast.
        lora_rank: of adapters that train in place of all weights; None for all weights.
        device: where it is measured.
        seed: of new weights and batches.
        report: called with what is measured.

    Raises:
        InputError: on anything that cannot be loaded or used, and if no plan is within the limits.
    """
    seed = checked_seed(seed)
    choices = _choices(estimators, lean, estimators_only=estimators_only)
    check_folder("out", out)
    if costs is None:
        limits = limits.checked(choices)
    if captured == 1 or captured < 0:
        raise InputError(f"captured={captured} must be 0 or at least 2: noise is told from that between batches")
    if captured and lora_rank is not None:
        raise InputError(
            f"captured={captured} with lora_rank={lora_rank} must be 0: adapters begin at zero, "
            "and half of them have no gradient"
        )
    if costs is not None:
        earlier = load_plan(costs)
        begin_work(f"the best plan within the limits, by the costs in {costs}", f"writes {out / 'plan.json'}")
        return _written(_planned_again(earlier, limits, report, estimators_only=estimators_only), out)
    precision = _checked_precision(precision)
    task = subject.load(needs_dev=False)
    require_examples(task, max(captured, 1), batch_size)
    model, tokenizer = subject.open(task, seed)
    begin_work(
        f"{model_name(model)} on {task.name}: costs of {len(choices)} choices for every block, "
        f"noise on {captured} batches",
        f"writes {out / 'plan.json'}",
    )
    batches = _batches(task, model, tokenizer, max(captured, 1), batch_size, max_length, seed, device)
    name, trained = model_name(model), _adapted(model, lora_rank)
    trained.to(device)
    report("noise", 0, 1)
    specs = list(dict.fromkeys(choice.estimator for choice in choices if choice.estimator is not None))
    noise = captured_noise(trained, batches, specs) if captured else independent_rows_noise(trained)
    table = measured_costs(
        trained,
        batches[0],
        choices,
        noise=noise,
        noise_by="closed form" if captured else "independent rows",
        heads=(None,) if estimators_only else heads_of(trained),
        precision=precision,
        progress=partial(report, "steps"),
    )
    plan = make_plan(
        table,
        limits,
        model=name,
        task=task.name,
        batch_size=batch_size,
        tokens=batches[0]["input_ids"].shape[1],
        precision=precision,
        lora_rank=lora_rank,
        seed=seed,
        device=device,
        report=report,
    )
    return _written(plan, out)


def simulated_plan_study(
    model: str,
    limits: Limits,
    out: Path,
    *,
    batch_size: int,
    length: int,
    target_length: int | None = None,
    estimators: Sequence[str] = FEW_ESTIMATORS,
    lean: Sequence[str] = LEAN,
    estimators_only: bool = False,
    captures: Path | None = None,
    rates: Rates | None = None,
    precision: str = "fp32",
    lora_rank: int | None = None,
    report: Report,
) -> Plan:
    """Simulate what choices cost from a model's config, and write the best plan to `plan.json`.

    Args:
        model: as in `simulate_step`.
        limits: of the plan.
        out: folder for the plan and its figure.
        batch_size: examples of a batch.
        length: tokens of an input.
        target_length: tokens of an answer of an encoder–decoder; None for `length`.
        estimators: specs that blocks may have.
        lean: words of `LeanOptions` that blocks may have.
        estimators_only: as in `plan_study`.
        captures: layers of the model that `wtacrs capture` has captured, for the noise; None for a general law.
        rates: of the machine that the plan is for; None to measure those of this one.
        precision: "fp32", or "bf16" for autocast.
        lora_rank: of adapters that train in place of all weights; None for all weights.
        report: called with what is simulated.

    Raises:
        InputError: on anything that cannot be used, and if no plan is within the limits.
    """
    choices = _choices(estimators, lean, estimators_only=estimators_only)
    limits = limits.checked(choices)
    check_folder("out", out)
    precision = _checked_precision(precision)
    begin_work(
        f"{model}: simulated costs of {len(choices)} choices for every block", f"writes {out / 'plan.json'}"
    )
    table = simulated_costs(
        model,
        choices,
        batch_size=batch_size,
        rates=measured_rates(precision=precision) if rates is None else rates,
        length=length,
        target_length=target_length,
        noise=independent_rows_noise if captures is None else partial(_noise_of_file, captures, choices),
        noise_by="independent rows" if captures is None else "closed form",
        heads=(None,) if estimators_only else None,
        precision=precision,
        lora_rank=lora_rank,
        progress=partial(report, "steps"),
    )
    plan = make_plan(
        table,
        limits,
        model=without_place(model),
        task="no task",
        batch_size=batch_size,
        tokens=length,
        precision=precision,
        lora_rank=lora_rank,
        report=report,
    )
    return _written(plan, out)


def _choices(estimators: Sequence[str], lean: Sequence[str], *, estimators_only: bool) -> list[Choice]:
    return choices_of(estimators, () if estimators_only else lean, checkpointed=not estimators_only)


def _noise_of_file(captures: Path, choices: Sequence[Choice], model: nn.Module) -> Noise:
    specs = list(dict.fromkeys(choice.estimator for choice in choices if choice.estimator is not None))
    blocks, found = list(blocks_of(model)), load_captures(captures)
    if not any(layer.startswith(f"{block}.") for layer in layer_entries(found) for block in blocks):
        raise InputError(f"captures={captures}: its layers are of no block of this model, such as {blocks[0]}")
    return noise_of_captures(found, blocks, specs)


def _checked_precision(precision: str) -> Precision:
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} must be {' or '.join(map(repr, PRECISIONS))}")
    return cast("Precision", precision)


def _adapted(model: PreTrainedModel, lora_rank: int | None) -> nn.Module:
    return model if lora_rank is None else add_lora(model, checked_integer(lora_rank, "lora_rank", least=1))


def make_plan(
    table: CostTable,
    limits: Limits,
    *,
    model: str,
    task: str,
    batch_size: int,
    tokens: int,
    precision: Precision = "fp32",
    lora_rank: int | None = None,
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
        kept_as=None if limits.kept_as is None else Choice(estimator=limits.kept_as),
        progress=None if report is None else partial(report, "plans"),
    )
    best = front.at(limits.memory)
    return Plan(
        stamp=stamp(seed=seed, device=device_name(device)),
        model=model,
        task=task,
        batch_size=batch_size,
        tokens=tokens,
        precision=precision,
        lora_rank=lora_rank,
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
        kept_as=limits.kept_as,
        alike=alike_plans(table),
    )


def _planned_again(earlier: Plan, limits: Limits, report: Report, *, estimators_only: bool) -> Plan:
    if earlier.costs is None:
        raise InputError(f"costs: the plan for {earlier.model} holds no costs")
    table = _estimators_alone(earlier.costs) if estimators_only else earlier.costs
    return make_plan(
        table,
        limits.checked([option.choice for option in table.blocks[0].options]),
        model=earlier.model,
        task=earlier.task,
        batch_size=earlier.batch_size,
        tokens=earlier.tokens,
        precision=earlier.precision,
        lora_rank=earlier.lora_rank,
        seed=earlier.stamp.seed,
        report=report,
    ).model_copy(update={"stamp": earlier.stamp})


def _estimators_alone(table: CostTable) -> CostTable:
    """The table without lean and checkpointed choices, and with the stock output layer alone."""
    blocks = [
        block.model_copy(
            update={"options": [o for o in block.options if o.choice == Choice(estimator=o.choice.estimator)]}
        )
        for block in table.blocks
    ]
    return table.model_copy(update={"blocks": blocks, "rest": table.rest[:1]})


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
