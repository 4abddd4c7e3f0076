"""Train a model exactly for some steps, keeping a copy of an earlier state, before it is captured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.progress import progress_display
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.defaults import LEARNING_RATE
from wtacrs.integration.training.loop import TrainingLoop

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    config = FinetuneConfig(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        seed=seed,
        schedule="constant",
    )
    with progress_display(progress, title=f"{task.name} · exact, before the capture") as show:
        run = _LoopWithEarlierCopy(config, task, model, tokenizer, age, show)
        run.train()
    model.to("cpu")  # where the batches of the capture are
    return run.earlier


class _LoopWithEarlierCopy(TrainingLoop):
    """Training that keeps a copy of the model `age` steps before the end."""

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskData,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        age: int | None,
        show: Callable[..., None],
    ) -> None:
        super().__init__(config, task, model, tokenizer)
        self.earlier: PreTrainedModel | None = None
        self._kept_at = None if age is None else self.total_steps - age
        self._show = show
        self._keep()

    def after_step(self) -> None:
        """Show the step, and keep the model if this is the state to be kept."""
        self._show(step=self.step, total=self.total_steps, loss=self.losses[-1])
        self._keep()

    def _keep(self) -> None:
        if self.step == self._kept_at:
            self.earlier = copy.deepcopy(self.model).to("cpu")
