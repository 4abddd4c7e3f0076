"""The `wtacrs` command line: one module per command, in the order the help lists them."""

# importing a module enters its command
from wtacrs.integration.cli import (  # noqa: F401
    capture,
    check,
    compare,
    demo,
    draw,
    experiment,
    finetune,
    layer_tests,
    layers,
    memory,
    noise,
    pretrain,
    study,
    sweep,
    theory,
    zoo,
)
from wtacrs.integration.cli.app import main

__all__ = ["main"]
