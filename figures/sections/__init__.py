"""The sections of the report, one file per kind of result: sentences, a table, and the figures."""

from wtacrs.figures.sections import (
    budgets,
    check,
    compare,
    experiment,
    layer_tests,
    masks,
    memory,
    noise,
    norms,
    pretrain,
    scale,
    sweep,
    theory,
    track_memory,
    training,
    transfer,
)

__all__ = [
    "budgets",
    "check",
    "compare",
    "experiment",
    "layer_tests",
    "masks",
    "memory",
    "noise",
    "norms",
    "pretrain",
    "scale",
    "sweep",
    "theory",
    "track_memory",
    "training",
    "transfer",
]
