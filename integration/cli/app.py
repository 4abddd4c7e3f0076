"""The `wtacrs` command line: one line and exit code 2 on bad input, never a traceback for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from wtacrs.estimators import InputError
from wtacrs.integration.parallel.processes import env_world_size, is_main_process
from wtacrs.integration.progress import count_bar

if TYPE_CHECKING:
    from wtacrs.validation.records.base import ScoreKind

# these keep finished pieces or states of training in their folder
_GO_ON = ("compare", "sweep", "noise", "test", "study", "experiment")


class _Interrupted(Exception):
    """Ctrl-C, which typer would turn into a bare exit code; the message says what has become of the work."""


class _Commands(TyperGroup):
    """The commands, with Ctrl-C caught before typer sees it, and one process for all but one of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that was asked for."""
        name, command, rest = super().resolve_command(ctx, args)
        if env_world_size() > 1 and name != "finetune":
            raise InputError(
                f"WORLD_SIZE={env_world_size()}: only `wtacrs finetune` runs in several processes; start `wtacrs {name}` in one"
            )
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = "; what is done is kept: the same command goes on"
            raise _Interrupted(f"interrupted{kept if ctx.invoked_subcommand in _GO_ON else ''}") from None


app = typer.Typer(
    cls=_Commands,
    name="wtacrs",
    help="Estimators of the weight gradient dW = dYᵀ X: compare them, test them, fine-tune with them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# a file or a pipe has no width of its own: 80 columns would fold every table
_COLUMNS = os.environ.get("COLUMNS", "")
console = Console(width=None if sys.stdout.isatty() else max(140, int(_COLUMNS) if _COLUMNS.isdigit() else 0))
progress_bar = partial(count_bar, console)

_SCORE_OPTIONS: dict[str, tuple[ScoreKind, ...]] = {
    "oracle": ("oracle",),
    "row-norms": ("row-norms",),
    "stale": ("stale",),
    "both": ("oracle", "row-norms"),
    "all": ("oracle", "row-norms", "stale"),
}

CapturesArgument = Annotated[Path, typer.Argument(metavar="CAPTURES", help="File written by `wtacrs capture`.")]
LayersOption = Annotated[
    list[str] | None,
    typer.Option("--layers", metavar="PATTERN", help="Only layers whose name fits, as in '*.wi'. Repeatable."),
]
ScoresOption = Annotated[
    str | None,
    typer.Option(
        help="oracle (‖x‖‖dy‖), row-norms (‖x‖), stale (‖x‖ · earlier ‖dy‖), both (the first two) or all. "
        "Default: both, and stale where the captures have it."
    ),
]
SeedOption = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
JobsOption = Annotated[int, typer.Option(min=1, help="Processes.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Dask scheduler, as in tcp://host:8786: its machines do the work."),
]
DeviceOption = Annotated[str, typer.Option(help="Where the products are computed: cpu, cuda, cuda:1 …")]
TaskOption = Annotated[
    str, typer.Option(help="docstrings (offline), sst2, rte, mrpc, cola, stsb, qnli, wnli or boolq.")
]
DataOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of GLUE TSV files (SST-2/train.tsv …); else the task is downloaded."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="Hugging Face model: a hub name, a local folder, or new:bert, new:deberta, new:gpt2, new:llama, "
        "new:opt or new:t5-gated for a small untrained one. Default: a small new T5.",
    ),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|DIR", help="Vocabulary of a small new model. Default: trained on the task."),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except InputError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or 'file'}: {error.strerror or error}")
    except _Interrupted as stopped:
        return _stopped(str(stopped))
    except (KeyboardInterrupt, typer.Abort):
        return _stopped("interrupted")
    except Exception as error:
        # usage errors of the parser, which typer carries under private names
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())  # type: ignore[attr-defined]
            return 0
        if hasattr(error, "format_message"):
            return _refuse(f"{error.format_message()} See `wtacrs --help`.")
        raise
    return code if isinstance(code, int) else 0


def _stopped(message: str) -> int:
    if is_main_process():
        print(message, file=sys.stderr)
    return 130


def _refuse(message: str, code: int = 2) -> int:
    if is_main_process():
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def budgets_from(texts: Sequence[str]) -> list[int | float]:
    """`0.3` is a fraction of the rows, `32` a number of rows."""
    budgets: list[int | float] = []
    for text in texts:
        try:
            budgets.append(int(text) if text.strip().lstrip("+-").isdigit() else float(text))
        except ValueError:
            raise InputError(
                f"--budget {text!r} must be a fraction such as 0.3 or a number of rows such as 32"
            ) from None
    return budgets


def scores_from(text: str | None) -> tuple[ScoreKind, ...] | None:
    """The kinds of scores that `--scores` names; None, for all that the captures allow, if it is not given."""
    if text is None:
        return None
    if text not in _SCORE_OPTIONS:
        raise InputError(f"--scores {text!r} must be one of {', '.join(_SCORE_OPTIONS)}")
    return _SCORE_OPTIONS[text]


def device_from(text: str) -> str:
    """A device that this machine has."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {text!r} cannot be used: {reason}") from None
    return text


def warn_skipped(layer: str, reason: str) -> None:
    """Tell that a layer was left out, and why."""
    del layer
    console.print(f"[yellow]skipped[/yellow] {reason}")


def wrote(*paths: Path) -> None:
    """Tell which of these files there are."""
    for path in paths:
        if path.exists():
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
