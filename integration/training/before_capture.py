"""Train a model exactly for some steps, keeping copies of earlier states, before it is captured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.progress import progress_display
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.defaults import LEARNING_RATE
from wtacrs.integration.training.loop import TrainingLoop

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Visit = Callable[[int, "PreTrainedModel", "PreTrainedModel | None"], None]
"""Called with the steps taken, the model, and a copy of an earlier state or None."""


def check_age(after: int | None, age: int | None) -> None:
    """Refuse an age without a training that is long enough.

    Raises:
        InputError: naming both numbers.
    """
    if age is not None and after is None:
        raise InputError(f"age={age}: needs --after STEPS, the training in which the earlier state lies")
    if age is not None and after is not None and not 1 <= age <= after:
        raise InputError(f"age={age}: must be from 1 to after={after}, the steps of the training")


def train_for_capture(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    *,
    steps: int,
    age: int | None = None,
    lr: float = LEARNING_RATE,
    batch_size: int = 32,
    max_length: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> PreTrainedModel | None:
    """Train in place, exactly, with AdamW at a rate that rises over the first 6 % and then stays.

    A rate that falls to zero, as at the end of a fine-tuning, would leave the states of the last steps next to equal.
    The model ends on the CPU; a result is a function of the arguments on a given device.

    Args:
        model: to be trained; its weights change.
        tokenizer: the model's.
        task: the examples to train on.
        steps: optimizer steps.
        age: also keep a copy of the model as it was so many steps before the end.
        lr: learning rate.
        batch_size: examples per step.
        max_length: longest input, in tokens.
        seed: of the order of the examples and of dropout.
        progress: show a progress line on stderr.

    Returns:
        The copy, or None without `age`.

    Raises:
        InputError: on an age above `steps`, unusable settings, or a loss that is not finite.
    """
    check_age(steps, age)
    copies: list[PreTrainedModel | None] = []

    def take(_: int, __: PreTrainedModel, earlier: PreTrainedModel | None) -> None:
        copies.append(earlier)

    _train(
        model,
        tokenizer,
        task,
        times=[steps],
        age=age,
        visit=take,
        config=_config(steps, lr, batch_size, max_length, seed),
        progress=progress,
    )
    return copies[0]


def train_through(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    *,
    times: Sequence[int],
    age: int,
    visit: Visit,
    lr: float = LEARNING_RATE,
    batch_size: int = 32,
    max_length: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Train once, as `train_for_capture` does, and show copies of the model at several times.

    What is shown lies on the CPU, and may be changed. What a visit draws changes nothing of the training.

    Args:
        model: to be trained; its weights change.
        tokenizer: the model's.
        task: the examples to train on.
        times: steps after which the model is shown, rising; 0 is the start.
        age: the copy of an earlier state is so many steps older; None is shown where there is no such state.
        visit: what is called at every time.
        lr: learning rate.
        batch_size: examples per step.
        max_length: longest input, in tokens.
        seed: of the order of the examples and of dropout.
        progress: show a progress line on stderr.

    Raises:
        InputError: on times that do not rise from 0 on, an age below 1, unusable settings, or a loss that is not finite.
    """
    check_times(times, age)

    def show(step: int, now: PreTrainedModel, earlier: PreTrainedModel | None) -> None:
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices=devices):
            visit(step, copy.deepcopy(now).to("cpu"), earlier)

    if times[-1] == 0:
        show(0, model, None)
        return
    config = _config(times[-1], lr, batch_size, max_length, seed)
    _train(model, tokenizer, task, times=times, age=age, visit=show, config=config, progress=progress)


def check_times(times: Sequence[int], age: int) -> None:
    """Refuse times that do not rise, and an age below 1.

    Raises:
        InputError: naming the argument.
    """
    if not times or times[0] < 0 or any(later <= time for time, later in pairwise(times)):
        raise InputError(f"after={list(times)}: numbers of steps that rise, from 0 on, are needed")
    if age < 1:
        raise InputError(f"age={age}: must be at least 1, the steps between a state and the earlier one")


def _config(steps: int, lr: float, batch_size: int, max_length: int, seed: int) -> FinetuneConfig:
    return FinetuneConfig(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        seed=seed,
        schedule="constant",
    )


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskData,
    *,
    times: Sequence[int],
    age: int | None,
    visit: Visit,
    config: FinetuneConfig,
    progress: bool,
) -> None:
    with progress_display(progress, title=f"{task.name} · exact, before the capture") as show:
        _VisitedLoop(config, task, model, tokenizer, times, age, visit, show).train()
    model.to("cpu")  # where the batches of the capture are


class _VisitedLoop(TrainingLoop):
    """Training that is visited at some times, with a copy of the model `age` steps before each."""

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskData,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        times: Sequence[int],
        age: int | None,
        visit: Visit,
        show: Callable[..., None],
    ) -> None:
        super().__init__(config, task, model, tokenizer)
        self._times = set(times)
        self._age, self._visit, self._show = age, visit, show
        self._copies: dict[int, PreTrainedModel] = {}
        self._look()

    def after_step(self) -> None:
        """Show the step, and look whether this is a state to be kept or visited."""
        self._show(step=self.step, total=self.total_steps, loss=self.losses[-1])
        self._look()

    def _look(self) -> None:
        if self._age is not None and self.step + self._age in self._times:
            self._copies[self.step] = copy.deepcopy(self.model).to("cpu")
        if self.step in self._times:
            self._visit(self.step, self.model, self._copies.pop(self.step - (self._age or 0), None))
