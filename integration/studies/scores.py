"""What scores are worth in training: the variance under every kind of them on batches that they have not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wtacrs.estimators.core.errors import InputError, NoClosedForm
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.measure.training_scores import ORACLE, ROW_NORMS, SideBySide
from wtacrs.integration.models.loading import model_name
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.progress import progress_display
from wtacrs.integration.score_memory.kinds import TRAINING_SCORES, make_gradient_norms
from wtacrs.integration.studies.budgets import at_budget
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.loop import TrainingLoop
from wtacrs.validation.arguments import without_prefixes
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.scores import ScoreMemoryBytes, TrainingScoresResult, TrainingScoresRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KINDS = tuple(kind for kind in TRAINING_SCORES if kind != ROW_NORMS)


def scores_study(
    subject: Subject,
    estimator: str,
    budgets: Sequence[int | float],
    out: Path,
    *,
    after: int,
    steps: int,
    batches: int,
    batch_size: int,
    lr: float,
    max_length: int,
    seed: int = 0,
    progress: bool = False,
) -> TrainingScoresResult:
    """Train exactly, then by row norms while every kind of scores learns, then measure them on the next batches.

    The rate rises over the first 6 % of the steps and then stays. Every batch is measured before anything is learned from
    it, and learned from afterwards, as in training. The folder receives `scores.json`.

    Args:
        subject: task and model.
        estimator: spec without a budget, of an unbiased estimator with a closed form of its variance.
        budgets: at which it is measured; the largest is that of the steps.
        out: the folder.
        after: steps of exact training at first.
        steps: that scores learn from.
        batches: that are measured.
        batch_size: examples per batch.
        lr: learning rate.
        max_length: longest input, in tokens.
        seed: of batches, new weights, draws and dropout.
        progress: show a progress line on stderr.

    Raises:
        InputError: on an unusable estimator or setting, or as `finetune`.
    """
    estimators = {budget: at_budget(estimator, budget) for budget in budgets}
    memories = {kind: made for kind in KINDS if (made := make_gradient_norms(kind)) is not None}
    memory = SideBySide(memories, estimators)
    config = FinetuneConfig(
        steps=after + steps + batches,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        seed=seed,
        schedule="constant",
    )
    task = subject.load(needs_dev=False)
    model, tokenizer = subject.open(task, seed)
    begin_work(
        f"{model_name(model)} on {task.name}: {after} exact steps, {steps} that scores learn from, {batches} measured",
        f"writes {out / 'scores.json'}",
    )
    with progress_display(progress, title=f"{task.name} · scores") as show:
        loop = _Loop(
            config,
            task,
            model,
            tokenizer,
            memory,
            repr(estimators[max(budgets, key=float)]),
            after,
            after + steps,
            show,
        )
        try:
            loop.train()
        except NoClosedForm as error:
            told = without_prefixes(str(error), f"estimator={estimator!r}", estimator)
            raise InputError(f"estimator={estimator!r}: {told}") from None
    memory.enter()
    result = TrainingScoresResult(
        stamp=stamp(seed=seed, device=str(model.device), inputs=subject.described | _settings(config)),
        task=task.name,
        model=model_name(model),
        estimator=estimator,
        after=after,
        steps=steps,
        batches=batches,
        rows=[_row(memory, kind, budget) for budget in budgets for kind in (*KINDS, ORACLE)],
        bytes=[
            ScoreMemoryBytes(scores=kind, memory=m.nbytes, rows=memory.rows_bytes if m.sees_rows else 0)
            for kind, m in memories.items()
        ],
    )
    write_result(out / "scores.json", result)
    return result


class _Loop(TrainingLoop):
    """Exact training that is converted in the middle, and measured at its end."""

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskData,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        memory: SideBySide,
        spec: str,
        after: int,
        measured_from: int,
        show: Callable[..., None],
    ) -> None:
        super().__init__(config, task, model, tokenizer)
        self._memory, self._spec, self._show = memory, spec, show
        self._after, self._measured_from = after, measured_from
        self._turn()

    def after_step(self) -> None:
        """Show the step, and turn to what comes next."""
        self._show(step=self.step, total=self.total_steps, loss=self.losses[-1])
        self._turn()

    def _turn(self) -> None:
        if self.step == self._after:
            approximate_(self.model, self._spec, scores=self._memory, min_elements=0, seed=self.config.seed)
            self.gradient_norms, self._gives_ids = self._memory, True
        self._memory.measuring = self.step >= self._measured_from


def _row(memory: SideBySide, kind: str, budget: int | float) -> TrainingScoresRow:
    found = [float(np.median(values)) for values in memory.ratios[kind, budget].values()]
    if not found:
        raise InputError(f"budget={budget}: the variance is 0 in every layer; there is nothing to compare")
    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75)).tolist()
    return TrainingScoresRow(scores=kind, budget=budget, layers=len(found), variance=middle, low=low, high=high)


def _settings(config: FinetuneConfig) -> dict[str, str]:
    return {key: str(getattr(config, key)) for key in ("batch_size", "lr", "max_length")}
