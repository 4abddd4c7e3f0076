"""The `wtacrs` command line: one module per command, in the order the help lists them."""

# importing a module enters its command
from wtacrs.integration.cli import capture, check, compare, demo, finetune, layer_tests, sweep, theory, zoo  # noqa: F401
from wtacrs.integration.cli.app import main

__all__ = ["main"]
