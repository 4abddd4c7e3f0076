"""Examples of a task, and a task with its examples."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Label = int | float | str
"""Index of a class, number in regression, or the target itself where answers are free text."""


@dataclass(frozen=True)
class Example:
    """`text` → `target` is the text-to-text form; `parts` are the one or two bare sentences.

    `label` is the index of the class, or the number in regression, or the target where answers are free text.
    """

    text: str
    target: str
    label: Label
    parts: tuple[str, ...]


@dataclass(frozen=True)
class TaskData:
    """A task with its examples.

    `labels` holds the target words by class index, None for regression and for free text. `metrics[0]` is the main
    metric; `majority` is what it gives on dev to the most frequent training label or target, or in regression to the
    training mean (a constant: its correlation is 0); NaN without dev examples. `source` says in one line where the
    examples came from. `scale` is the range of the numbers of regression. `free_text` says that answers are texts that a
    model writes, of which `target_limit` tokens are kept (None: all). `given` is what results say of own files.
    """

    name: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    majority: float
    source: str
    scale: tuple[float, float] = (0.0, 5.0)
    free_text: bool = False
    target_limit: int | None = None
    given: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return f"TaskData({self.description})"

    @property
    def regression(self) -> bool:
        """Whether the labels are numbers."""
        return self.labels is None and not self.free_text

    @property
    def description(self) -> str:
        """Size, labels and baseline in one line."""
        sizes = f"{self.name}: {len(self.train):,} train and {len(self.dev):,} dev examples, {self._kind}"
        if not self.dev:
            return sizes
        return f"{sizes}; the majority baseline has a dev {self.metrics[0]} of {self.majority:.3f}"

    @property
    def _kind(self) -> str:
        if self.free_text:
            return "targets are texts"
        if self.labels is None:
            return f"numbers from {self.scale[0]:g} to {self.scale[1]:g}"
        return f"{len(self.labels)} labels"


def task_data(
    name: str,
    train: tuple[Example, ...],
    dev: tuple[Example, ...],
    labels: tuple[str, ...] | None,
    metrics: tuple[str, ...],
    source: str,
    *,
    scale: tuple[float, float] = (0.0, 5.0),
    free_text: bool = False,
    target_limit: int | None = None,
    given: Mapping[str, str] | None = None,
) -> TaskData:
    """A task whose majority baseline is computed from its examples."""
    from wtacrs.integration.tasks.metrics import score

    constant = _constant([example.label for example in train], regression=labels is None and not free_text)
    majority = math.nan
    if dev:
        truth = [example.label for example in dev]
        majority = score(metrics[:1], [constant] * len(dev), truth, scale=scale)[metrics[0]]
    return TaskData(
        name, train, dev, labels, metrics, majority, source, scale, free_text, target_limit, given or {}
    )


def _constant(values: list[Label], *, regression: bool) -> Label:
    """The most frequent value, the least of several; in regression the mean."""
    if regression:
        return sum(map(float, values)) / len(values)
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def digest(task: TaskData) -> str:
    """A hash of all texts, targets and labels in their order, which tells two sets of examples apart."""
    return examples_digest((*task.train, *task.dev))


def examples_digest(examples: Iterable[Example]) -> str:
    """The same of some examples."""
    found = hashlib.sha256()
    for example in examples:
        found.update(repr((example.text, example.target, example.label, example.parts)).encode())
    return found.hexdigest()[:16]
