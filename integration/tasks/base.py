"""Examples of a task, and a task with its examples."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """`text` → `target` is the text-to-text form; `parts` are the one or two bare sentences.

    `label` is the index of the class, or the number in regression.
    """

    text: str
    target: str
    label: int | float
    parts: tuple[str, ...]


@dataclass(frozen=True)
class TaskData:
    """A task with its examples.

    `labels` holds the target words by class index, None for regression. `metrics[0]` is the main metric;
    `majority` is what it gives on dev to the most frequent training label, or in regression to the training mean
    (a constant: its correlation is 0). `source` says in one line where the examples came from.
    """

    name: str
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    majority: float
    source: str

    @property
    def description(self) -> str:
        """Size, labels and baseline in one line."""
        kind = "numbers from 0 to 5" if self.labels is None else f"{len(self.labels)} labels"
        return (
            f"{self.name}: {len(self.train):,} train and {len(self.dev):,} dev examples, {kind}; "
            f"the majority baseline has a dev {self.metrics[0]} of {self.majority:.3f}"
        )


def task_data(
    name: str,
    train: tuple[Example, ...],
    dev: tuple[Example, ...],
    labels: tuple[str, ...] | None,
    metrics: tuple[str, ...],
    source: str,
) -> TaskData:
    """A task whose majority baseline is computed from its examples."""
    from wtacrs.integration.tasks.metrics import score

    values = [example.label for example in train]
    if labels is None:
        constant = sum(values) / len(values)
    else:
        counts = Counter(values)
        constant = min(counts, key=lambda label: (-counts[label], label))
    main = score(metrics[:1], [constant] * len(dev), [example.label for example in dev])
    return TaskData(name, train, dev, labels, metrics, main[metrics[0]], source)


def digest(task: TaskData) -> str:
    """A hash of all texts, targets and labels in their order, which tells two sets of examples apart."""
    found = hashlib.sha256()
    for example in (*task.train, *task.dev):
        found.update(repr((example.text, example.target, example.label, example.parts)).encode())
    return found.hexdigest()[:16]
