"""The `wtacrs` command line: a module per command."""

# importing a module enters its command
from wtacrs.integration.cli import (  # noqa: F401
    bench,
    budgets,
    capture,
    check,
    compare,
    demo,
    draw,
    experiment,
    finetune,
    front,
    layer_tests,
    layers,
    masks,
    memory,
    noise,
    norms,
    plan,
    pretrain,
    report,
    scores,
    simulate,
    study,
    sweep,
    theory,
    transfer,
    zoo,
)
from wtacrs.integration.cli.app import main

__all__ = ["main"]
