"""The app that the commands enter, and its exit codes: bad input is one line and exit code 2, no traceback."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.cli.output import output_as, show_plan, warn
from wtacrs.integration.parallel.environment import env_world_size, is_main_process
from wtacrs.validation.dry_run import WouldBegin, dry_run
from wtacrs.validation.files import no_empty_folders

# commands that keep finished parts or states of training in their folder
_RESUMABLE = ("compare", "sweep", "noise", "test", "study", "experiment")

_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else on stdout.")]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check all inputs, say what would be done, write nothing.")
]


class _Interrupted(Exception):
    """Ctrl-C, which typer would turn into a bare exit code; with what the command noted when it was interrupted."""

    def __init__(self, command: str | None, notes: Sequence[str]) -> None:
        super().__init__("interrupted")
        self.command, self.notes = command, notes


def _told(stopped: _Interrupted, arguments: Sequence[str]) -> str:
    """What the command noted; else whether it goes on where it stopped."""
    if stopped.notes:
        return "; ".join(stopped.notes)
    if stopped.command not in _RESUMABLE:
        return "interrupted"
    return f"interrupted; finished parts are kept: {shlex.join(['wtacrs', *arguments])} goes on"


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
            raise _Interrupted(ctx.invoked_subcommand, getattr(stopped, "__notes__", [])) from None


class App(typer.Typer):
    """Commands that share options: --quiet, --json of the result, and --dry-run of what takes long."""

    def command(  # type: ignore[override]
        self, name: str | None = None, *, as_json: bool = True, dry: bool = True, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Enter a command.

        Args:
            name: the function's, if None.
            as_json: whether it has a result, and --json.
            dry: whether it takes long, and has --dry-run: it calls `begin_work` once its inputs are checked.
            **options: of typer.
        """
        enter = super().command(name, **options)

        def entered(function: Callable[..., Any]) -> Callable[..., Any]:
            enter(_with_shared_options(function, as_json=as_json, dry=dry))
            return function

        return entered


def _with_shared_options(function: Callable[..., Any], *, as_json: bool, dry: bool) -> Callable[..., Any]:
    shared = {"quiet": _Quiet} | ({"as_json": _Json} if as_json else {}) | ({"dry": _DryRun} if dry else {})
    signature = inspect.signature(function, eval_str=True)

    @wraps(function)
    def run(**values: Any) -> Any:
        given = {name: values.pop(name, False) for name in ("quiet", "as_json", "dry")}
        with ExitStack() as stack:
            stack.enter_context(output_as(quiet=given["quiet"], as_json=given["as_json"]))
            stack.enter_context(dry_run(given["dry"]))
            stack.enter_context(no_empty_folders())
            try:
                return function(**values)
            except WouldBegin as plan:
                if is_main_process():
                    show_plan(plan.lines)
                return 0

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in shared.items()
    ]
    parameters = [*signature.parameters.values(), *added]
    del run.__wrapped__  # typer would read its signature
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


app = App(
    cls=_Commands,
    name="wtacrs",
    help="Estimators of the weight gradient dW = dYᵀ X: compare them, test them, fine-tune with them.",
    epilog="Exit codes: 0 done; 1 a claim is broken (check, test, theory); 2 bad input, or a file that cannot be read "
    "or written; 3 a claim is undecided (check, test); 130 interrupted.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"wtacrs {version('wtacrs')}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit."),
    ] = False,
    quiet: _Quiet = False,
) -> None:
    context.with_resource(output_as(quiet=quiet))


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print warnings of this package on stderr, each text once; those of others stay as they are."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=WtacrsWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, WtacrsWarning):
                others(message, category, *where, **more)
            elif str(message) not in shown and is_main_process():
                shown.add(str(message))
                warn(str(message))

        warnings.showwarning = show
        yield


def run_app(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with _warnings_in_one_line():
        code = _exit_code(arguments)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            return _closed_pipe()
        except OSError as error:  # as on a full disk
            return _refuse(f"stdout: {error.strerror or error}")
        return code


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except InputError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        return _closed_pipe()
    except OSError as error:
        return _refuse(f"{error.filename or 'output'}: {error.strerror or error}")
    except ModuleNotFoundError as error:
        return _refuse(missing_package(error))
    except _Interrupted as stopped:
        return _stopped(_told(stopped, sys.argv[1:] if arguments is None else arguments))
    except (KeyboardInterrupt, typer.Abort):
        return _stopped("interrupted")
    except Exception as error:
        # usage errors of the parser, which typer carries under private names
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())  # type: ignore[attr-defined]
            return 0
        if hasattr(error, "format_message"):
            command = " ".join(["wtacrs", *_names(getattr(error, "ctx", None))])
            return _refuse(f"{error.format_message().rstrip('.')}. See `{command} --help`.")
        raise
    return code if isinstance(code, int) else 0


def _names(context: Any) -> list[str]:
    """The command and its groups, without the program, which may be `python -m …`."""
    if context is None or context.parent is None:
        return []
    return [*_names(context.parent), context.info_name]


_EXTRAS = {
    "train": ("accelerate", "datasets", "sklearn", "sentencepiece", "tokenizers", "transformers"),
    "peft": ("peft",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "cluster": ("distributed",),
}


def missing_package(error: ModuleNotFoundError) -> str:
    """Which package is missing, and how to install it.

    Raises:
        ModuleNotFoundError: the error itself, where a module of this package is missing: a defect.
    """
    name = (error.name or "").partition(".")[0]
    if name in ("", "wtacrs"):
        raise error
    extra = next((extra for extra, names in _EXTRAS.items() if name in names), None)
    package = name if extra is None else f"'wtacrs[{extra}]'"
    return f"{name} is not installed: pip install {package}"


def _closed_pipe() -> int:
    """Whoever read stdout has gone, as `head` does: nothing is left to say, and the interpreter flushes into nothing."""
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())
    return 0


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
