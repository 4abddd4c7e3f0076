"""What exact steps cost before a run: time, peak and kept bytes on the batches of the run's own first steps.

Nothing is updated and no random number of the run is used up: the run that follows is the one without a baseline.
The first step warms up and shows what is kept, the second one the peak; neither is timed, here or in the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, islice
from typing import TYPE_CHECKING

import torch

from wtacrs.integration.measure.kept_bytes import KeptBytesProbe
from wtacrs.integration.measure.memory import PeakWatch
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.encoding import Encoded
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.loop import TrainingLoop, epoch_steps
from wtacrs.validation.records.training import StepCost

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
UNTIMED_STEPS = 2
"""Steps at the start whose time is not counted: they are measured otherwise."""


def wants_baseline(config: FinetuneConfig) -> bool:
    """Whether there is something to compare with exact steps, and a way to: one process, at the start of a run."""
    method = config.estimator is not None or config.plan is not None or config.lean is not None
    wanted = config.baseline_steps > 0 and method and not config.resume
    if wanted and Processes.here().count > 1:
        logger.info("baseline_steps=%d: measured in one process alone, so not here", config.baseline_steps)
        return False
    return wanted


def measure_baseline(
    config: FinetuneConfig, task: TaskData, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[StepCost, Sequence[Encoded]]:
    """Take exact steps without updates.

    Args:
        config: of the run; its estimator and lean neighbours are not looked at.
        task: of the run.
        model: stock, perhaps with adapters; weights, buffers and gradients end as they were.
        tokenizer: of the model.

    Returns:
        What the steps cost, and the encoded training set, which the run uses too.
    """
    plain = config.but(
        estimator=None, plan=None, lean=None, scores="row-norms", out=None, tensorboard=False, trackers=()
    )
    loop = _ExactSteps(plain, task, model, tokenizer)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        cost = loop.measure(config.baseline_steps)
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    return cost, loop.train_set


class _ExactSteps(TrainingLoop):
    """The run's first steps, without updates."""

    _watch: AbstractContextManager[object] = nullcontext()

    def watched(self) -> AbstractContextManager[object]:
        """The peak, in the step that shows it."""
        return self._watch

    def measure(self, steps: int) -> StepCost:
        self.model.train()
        kept: int | None = None
        peak: int | None = None
        for number, batches in enumerate(islice(self._batches(), min(UNTIMED_STEPS + steps, self.total_steps))):
            probe = KeptBytesProbe(self.model) if number == 0 else None
            watch = PeakWatch(self.model) if number == 1 else None
            self._watch = nullcontext() if watch is None else watch
            self.model.zero_grad(set_to_none=True)
            self.pass_seconds.append(self.passes(batches)[1])
            if probe is not None:
                probe.remove()
                kept = None if probe.found is None else probe.found.kept
            if watch is not None:
                peak = watch.peak
        return StepCost(seconds=self.pass_seconds[UNTIMED_STEPS:], kept_bytes=kept, peak_bytes=peak)

    def _batches(self) -> Iterator[list[list[Encoded]]]:
        for epoch in count():
            yield from epoch_steps(self.train_set, self.config, epoch)
