"""Which number of winners |C|: exact regrets of rules by architecture, task, time in training and scores."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wtacrs.estimators import InputError
from wtacrs.estimators.core.sizing import check_budget
from wtacrs.estimators.rows.wta_crs import fixed_winners
from wtacrs.figures.plots import winners as figure
from wtacrs.integration.models.loading import model_name
from wtacrs.integration.models.opening import Subject, check_model
from wtacrs.integration.studies.capture import capture_task
from wtacrs.integration.studies.output import keep
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.batches import require_examples, without_captured
from wtacrs.integration.training.before_capture import check_times, train_through
from wtacrs.integration.training.defaults import NEW_MODEL_LEARNING_RATE
from wtacrs.validation.layers.captures import Captures, entry_name
from wtacrs.validation.layers.compare import ZeroProduct
from wtacrs.validation.layers.scores import default_scores
from wtacrs.validation.layers.sweep import sweep_winners
from wtacrs.validation.records.base import ScoreKind, stamp
from wtacrs.validation.records.sweep import WinnerSweep
from wtacrs.validation.records.winners import OPTIMAL, PAPER, RuleRegrets, WinnersResult, WinnerState
from wtacrs.validation.runner import Runner, Task, TaskOutput
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.summaries.sweep import regret

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEW_T5 = "new:t5"
MODELS = (NEW_T5, "new:bert", "new:gpt2", "new:deberta", "new:opt", "new:llama")
GLUE_TASKS = ("sst2", "mrpc", "rte")
TIMES = (0, 100, 300)
BUDGETS = (0.1, 0.3)
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 0.9)


class Measured(NamedTuple):
    """What is the same in every training of a study; fields as the arguments of `winners_study`."""

    times: tuple[int, ...]
    budgets: tuple[int | float, ...]
    fractions: tuple[float, ...]
    age: int
    batch_size: int
    max_length: int
    min_rows: int
    lr: float


def winners_subjects(
    models: Sequence[str] = MODELS,
    tasks: Sequence[str] | None = None,
    *,
    data: Path | None = None,
    tokenizer: str | None = None,
    train_limit: int | None = None,
) -> list[Subject]:
    """Every model on every task.

    Args:
        models: as in `Subject`, and "new:t5" for the small new T5.
        tasks: names; SST-2, MRPC and RTE with `data`, else the docstrings.
        data: folder of GLUE files.
        tokenizer: vocabulary of new models; trained on the task if None.
        train_limit: examples that are used for training and captures.

    Raises:
        InputError: on a model or a task that is named twice.
    """
    chosen = tasks or (GLUE_TASKS if data is not None else ("docstrings",))
    for argument, names in (("model", models), ("task", chosen)):
        if len(set(names)) < len(names):
            raise InputError(f"{argument}={', '.join(names)}: each may be named once")
    return [
        Subject(
            task=task,
            data=None if task == "docstrings" else data,
            model=None if model == NEW_T5 else model,
            tokenizer=tokenizer if model.startswith("new:") else None,
            train_limit=train_limit,
        )
        for model in models
        for task in chosen
    ]


def winners_study(
    subjects: Sequence[Subject],
    out: str | Path | None = None,
    *,
    times: Sequence[int] = TIMES,
    budgets: Sequence[int | float] = BUDGETS,
    fractions: Sequence[float] = FRACTIONS,
    age: int = 50,
    batch_size: int = 16,
    max_length: int = 64,
    min_rows: int = 64,
    lr: float = NEW_MODEL_LEARNING_RATE,
    seeds: int = 2,
    seed: int = 0,
    runner: Runner | None = None,
) -> WinnersResult:
    """Train every model exactly on every task, and compute on the way what each rule for |C| costs: `winners.json`.

    Captured examples are not trained on. Rows that a mask calls padding are left out before budgets are taken. A training
    with all its times is one piece: an interrupted study goes on with the next one.

    Args:
        subjects: models on tasks, as `winners_subjects` gives them.
        out: folder of the result and of `winners.png`; nothing is written if None.
        times: steps of training before a batch is captured, rising; 0 is the start.
        budgets: fractions or numbers of rows.
        fractions: fixed |C| as parts of k, in [0, 1), beside the paper's rule and the optimal one.
        age: the stale scores know the gradient norms of so many steps before; times below it have none.
        batch_size: examples of a captured batch, and of a step.
        max_length: longest input, in tokens.
        min_rows: layers with fewer rows are left out.
        lr: learning rate.
        seeds: trainings of every model on every task.
        seed: the first one: of weights, batches and dropout.
        runner: processes, resumption and progress.

    Raises:
        InputError: on unusable settings, and on what cannot be loaded.
    """
    settings = _checked(
        Measured(
            tuple(times), tuple(budgets), tuple(map(float, fractions)), age, batch_size, max_length, min_rows, lr
        )
    )
    numbers = _seeds(seed, seeds)
    _check_subjects(subjects, batch_size, seed)
    runner = Runner() if runner is None else runner
    tasks = [
        Task(
            key=f"winners {subject} {number} {settings}",
            work=training_states,
            arguments=(subject, number, settings),
            label=f"{subject.name}, {subject.task}, seed {number}",
        )
        for subject in subjects
        for number in numbers
    ]
    states = runner.run(WinnerState, tasks)
    if not states:
        raise InputError(f"min_rows={min_rows}: no layer has so many rows and a gradient")
    result = WinnersResult(
        stamp=stamp(seed=seed, inputs=_described(subjects, settings)),
        rules=rule_names(settings.fractions),
        age=age,
        batch_size=batch_size,
        max_length=max_length,
        min_rows=min_rows,
        states=states,
    )
    keep(result, out, "winners.json", runner, {"winners.png": partial(figure.draw, result)})
    return result


def rule_names(fractions: Sequence[float]) -> list[str]:
    """The rules as `winners` of `wta_crs` spells them.

    >>> rule_names([0.0, 0.5])
    ['"paper"', '"optimal"', '0.0', '0.5']
    """
    return [PAPER, OPTIMAL, *map(repr, fractions)]


def training_states(subject: Subject, seed: int, settings: Measured) -> TaskOutput[WinnerState]:
    """One training: what the rules cost at all of its times.

    Raises:
        InputError: on what cannot be loaded or trained.
    """
    task = subject.load(seed, needs_dev=False)
    require_examples(task, 1, settings.batch_size)
    rest = without_captured(task, settings.batch_size, seed)
    model, tokenizer = subject.open(task, seed)
    sizes: dict[str, Any] = {"batch_size": settings.batch_size, "max_length": settings.max_length}
    found: list[WinnerState] = []

    def visit(step: int, now: PreTrainedModel, earlier: PreTrainedModel | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "captures.safetensors"
            captures = capture_task(now, tokenizer, task, path, batches=1, **sizes, seed=seed, earlier=earlier)
            found.extend(_states(captures, model_name(model), task, seed, step, settings))

    train_through(
        model,
        tokenizer,
        rest,
        times=settings.times,
        age=settings.age,
        visit=visit,
        lr=settings.lr,
        **sizes,
        seed=seed,
    )
    return TaskOutput(tuple(found), None if found else "no layer has enough rows and a gradient")


def _states(
    captures: Captures, model: str, task: TaskData, seed: int, step: int, settings: Measured
) -> list[WinnerState]:
    """The state, or nothing where no layer is large enough."""
    kinds = default_scores(captures)
    sweeps: dict[tuple[ScoreKind, int | float], list[WinnerSweep]] = defaultdict(list)
    layers, rows = [], []
    for entry in captures:
        found = _swept(captures, entry, kinds, settings)
        if not found:
            continue
        layers.append(entry_name(entry).layer)
        rows.append(found[0].n)
        for sweep in found:
            sweeps[sweep.scores, sweep.budget].append(sweep)
    if not layers:
        return []
    choices = [_regrets(same, settings.fractions) for same in sweeps.values()]
    return [
        WinnerState(model=model, task=task.name, seed=seed, step=step, layers=layers, rows=rows, choices=choices)
    ]


def _swept(captures: Captures, entry: str, kinds: Sequence[ScoreKind], settings: Measured) -> list[WinnerSweep]:
    """The variances of one layer for all scores and budgets; none where it is too small or gets no gradient."""
    layer = captures[entry]
    live = layer.mask
    if int(live.sum()) < settings.min_rows:
        return []
    x, dy = layer.x[live], layer.dy[live]
    stale = None if layer.stale is None else layer.stale[live]
    try:
        return [
            sweep
            for kind in kinds
            for sweep in sweep_winners(
                entry, x, dy, settings.budgets, stale=stale, scores=kind, fractions=settings.fractions
            )
        ]
    except ZeroProduct:
        return []


def _regrets(sweeps: Sequence[WinnerSweep], fractions: Sequence[float]) -> RuleRegrets:
    """Of all layers, with one kind of scores at one budget."""

    def chosen(sweep: WinnerSweep) -> list[int]:
        return [sweep.paper, sweep.optimal, *(fixed_winners(fraction, sweep.k) for fraction in fractions)]

    table = [[_rounded(regret(sweep, winners)) for winners in chosen(sweep)] for sweep in sweeps]
    return RuleRegrets(
        scores=sweeps[0].scores,
        budget=sweeps[0].budget,
        best=[sweep.best or 0 for sweep in sweeps],
        regrets=dict(zip(rule_names(fractions), map(list, zip(*table, strict=True)), strict=True)),
    )


def _rounded(value: float | None) -> float:
    """To three digits: a study has thousands."""
    assert value is not None  # the sweep has its products
    return float(f"{value:.3g}")


def _checked(settings: Measured) -> Measured:
    check_times(settings.times, settings.age)
    if not settings.budgets or len(set(settings.budgets)) < len(settings.budgets):
        raise InputError(f"budgets={list(settings.budgets)}: at least one is needed, each once")
    for budget in settings.budgets:
        check_budget(budget, "winners_study")
    fractions = settings.fractions
    if not all(0 <= fraction < 1 for fraction in fractions) or len(set(fractions)) < len(fractions):
        raise InputError(f"fractions={list(fractions)}: parts of k in [0, 1), each once, are needed")
    for name in ("batch_size", "min_rows"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name}={getattr(settings, name)}: must be at least 1")
    return settings


def _check_subjects(subjects: Sequence[Subject], batch_size: int, seed: int) -> None:
    """Refuse, before the first training, what a later one could not load."""
    for subject in subjects:
        check_model(subject.model, subject.tokenizer)
    for subject in {(one.task, one.data, one.train_limit): one for one in subjects}.values():
        require_examples(subject.load(seed, needs_dev=False), 1, batch_size)


def _seeds(first: int, count: int) -> list[int]:
    if count < 1:
        raise InputError(f"seeds={count}: at least 1 is needed")
    checked_seed(first + count - 1, f"seeds={count} from seed={first} on: the last seed")
    return [first + i for i in range(count)]


def _described(subjects: Sequence[Subject], settings: Measured) -> dict[str, str]:
    inputs: dict[str, list[str]] = defaultdict(list)
    for subject in subjects:
        for key, value in (subject.described | {"model": subject.name}).items():
            if value not in inputs[key]:
                inputs[key].append(value)
    told = {key: ", ".join(values) for key, values in inputs.items()}
    return told | {"after": ", ".join(map(str, settings.times)), "lr": str(settings.lr)}
