"""The app that the commands enter, and what all of them print: bad input is one line and exit code 2, no traceback."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.parallel.processes import env_world_size, is_main_process
from wtacrs.integration.progress import count_bar

# commands that keep finished parts or states of training in their folder
_RESUMABLE = ("compare", "sweep", "noise", "test", "study", "experiment")


class _Interrupted(Exception):
    """Ctrl-C, which typer would turn into a bare exit code; the message says whether finished parts are kept."""


def _told(stopped: KeyboardInterrupt, command: str | None) -> str:
    """What the command noted when it was interrupted; else whether it goes on where it stopped."""
    notes = getattr(stopped, "__notes__", [])
    if notes:
        return "; ".join(notes)
    if command not in _RESUMABLE:
        return "interrupted"
    return f"interrupted; finished parts are kept: {shlex.join(['wtacrs', *sys.argv[1:]])} goes on"


class _Commands(TyperGroup):
    """The commands, with Ctrl-C caught before typer sees it, and one process for all but one of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that was asked for."""
        name, command, rest = super().resolve_command(ctx, args)
        if env_world_size() > 1 and name != "finetune":
            raise InputError(
                f"WORLD_SIZE={env_world_size()}: only `wtacrs finetune` runs in several processes; "
                f"start `wtacrs {name}` in one"
            )
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            raise _Interrupted(_told(stopped, ctx.invoked_subcommand)) from None


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


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wtacrs {version('wtacrs')}")
        raise typer.Exit


@app.callback()
def _global_options(
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print warnings of this package on the console, each text once; those of others stay as they are."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=WtacrsWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, WtacrsWarning):
                others(message, category, *where, **more)
            elif str(message) not in shown and is_main_process():
                shown.add(str(message))
                text = " ".join(str(message).split())
                console.print(f"[yellow]warning[/yellow] {escape(text)}", highlight=False, soft_wrap=True)

        warnings.showwarning = show
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with _warnings_in_one_line():
        return _exit_code(arguments)


def _exit_code(arguments: Sequence[str] | None) -> int:
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
            context = getattr(error, "ctx", None)
            command = " ".join(["wtacrs", *("" if context is None else context.command_path).split()[1:]])
            return _refuse(f"{error.format_message().rstrip('.')}. See `{command} --help`.")
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


def given_names(context: typer.Context) -> set[str]:
    """Names of the parameters of a command that were given, by an option or by the environment."""
    default = ("DEFAULT", "DEFAULT_MAP")
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name not in default
    }


def warn_skipped(layer: str, reason: str) -> None:
    """Print that a layer was left out, and why."""
    del layer
    console.print(f"[yellow]skipped[/yellow] {reason}")


def wrote(*paths: Path) -> None:
    """Print which of these files exist."""
    for path in paths:
        if path.exists():
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)
