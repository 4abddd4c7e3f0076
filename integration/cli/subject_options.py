"""Options that name task and model, of every command that opens them: one decorator gives them to a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.completion import complete_task
from wtacrs.integration.cli.output import console
from wtacrs.integration.parallel.environment import is_main_process

if TYPE_CHECKING:
    from wtacrs.integration.models.opening import Subject
    from wtacrs.integration.tasks.own_files import OwnFiles

TrainOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Own training examples, in place of --task: .csv, .tsv, .jsonl, .parquet, or a folder that datasets' "
        "save_to_disk wrote.",
    ),
]
DevOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Own dev examples, with the same columns.")]
DevShareOption = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="In place of --dev: so large a part of --train, the same for every seed."),
]
TextOption = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the text.")]
Text2Option = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a second text, for pairs.")]
LabelOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of the label: names, whole numbers, or numbers.")
]
LabelKindOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="What labels are: classes, or numbers (regression). Default: classes, or numbers where one has a fraction.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="In place of --label: column of texts that an encoder–decoder is to write."
    ),
]
MaxTargetLengthOption = Annotated[
    int | None, typer.Option(min=2, help="Longest --target, in tokens. Default: none is cut.")
]
EncodingOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of own text files, as in cp1252. Default: UTF-8, or what their mark says."),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        help="docstrings (offline, the default), sst2, rte, mrpc, cola, stsb, qnli, wnli or boolq; or --train.",
        autocompletion=complete_task,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of GLUE TSV files (SST-2/train.tsv …); else the task is downloaded."),
]
TrainLimitOption = Annotated[int | None, typer.Option(min=1, help="Use only so many training examples.")]
DevLimitOption = Annotated[int | None, typer.Option(min=1, help="Use only so many dev examples.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="Hugging Face model: a hub name, a local folder, or new:bert, new:deberta, new:gpt2, new:llama, "
        "new:opt or new:t5-gated for a small untrained one, new:t5-base for a published size. Default: a small new T5.",
    ),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|DIR", help="Vocabulary of a small new model. Default: trained on the task."),
]

OWN_FILES = {
    "train": TrainOption,
    "dev": DevOption,
    "dev_share": DevShareOption,
    "text": TextOption,
    "text2": Text2Option,
    "label": LabelOption,
    "label_kind": LabelKindOption,
    "target": TargetOption,
    "max_target_length": MaxTargetLengthOption,
    "encoding": EncodingOption,
}
"""The options of own files by their names in `OwnFiles`; all are None where they are not given."""

_NAMED = {"task": TaskOption, "data": DataOption}
_LIMITS = {"train_limit": TrainLimitOption, "dev_limit": DevLimitOption}
_MODEL = {"model": ModelOption, "tokenizer": TokenizerOption}
SUBJECT_OPTIONS = {**_NAMED, **OWN_FILES, **_LIMITS, **_MODEL}
"""All options that name task and model."""


def with_subject(*, without: tuple[str, ...] = ("train_limit", "dev_limit")) -> Callable[[Callable], Callable]:
    """Decorate a command that takes `subject: Subject`: its options stand in place of that argument.

    Args:
        without: names of the options that the command does not have.
    """
    return _with_options("subject", without, subject_from)


def with_given_subject(*, without: tuple[str, ...]) -> Callable[[Callable], Callable]:
    """Decorate a command that takes `given: dict[str, Any]`: those of the subject's options that were given.

    Args:
        without: names of the options that the command does not have.
    """
    return _with_options("given", without, lambda all_of: {k: v for k, v in all_of.items() if v is not None})


def _with_options(
    argument: str, without: tuple[str, ...], made: Callable[[dict[str, Any]], Any]
) -> Callable[[Callable], Callable]:
    options = {name: kind for name, kind in SUBJECT_OPTIONS.items() if name not in without}

    def decorate(command: Callable) -> Callable:
        @wraps(command)
        def entered(**values: Any) -> Any:
            given = {name: values.pop(name) for name in options}
            return command(**values, **{argument: made(given)})

        hints = get_type_hints(command, localns={"Subject": object}, include_extras=True)
        parameters = list[inspect.Parameter]()
        for name, parameter in inspect.signature(command).parameters.items():
            if name == argument:
                parameters += [_option(name, kind) for name, kind in options.items()]
            else:
                kept = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
                parameters.append(kept)
        entered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        entered.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del entered.__wrapped__  # whose annotations typer would take
        return entered

    return decorate


def _option(name: str, kind: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def subject_from(given: dict[str, Any]) -> Subject:
    """Task and model that options name, by their names; those that a command does not have are left out.

    Raises:
        InputError: on options that contradict each other.
    """
    from wtacrs.integration.models.opening import Subject

    values = {name: given.get(name) for name in ("data", "model", "tokenizer", "train_limit", "dev_limit")}
    files = files_from(given)
    if files is None:
        return Subject(task=given.get("task") or "docstrings", tell=_tell, **values)
    for name in ("task", "data"):
        if given.get(name) is not None:
            raise InputError(f"--{name} {given[name]}, --train {files.train}: one of them says what is trained on")
    return Subject(task=files.name, files=files, tell=_tell, **values)


def files_from(given: dict[str, Any]) -> OwnFiles | None:
    """Own files that options name, a path by its text too, as settings of a run keep it; None if there are none.

    Raises:
        InputError: on a column without a file.
    """
    from wtacrs.integration.tasks.own_files import OwnFiles

    own = {name: given[name] for name in OWN_FILES if given.get(name) is not None}
    if not own:
        return None
    if "train" not in own:
        first = next(iter(own)).replace("_", "-")
        raise InputError(f"--{first} needs --train FILE, own training examples")
    return OwnFiles(**own | {name: Path(own[name]) for name in ("train", "dev") if name in own})


def _tell(line: str) -> None:
    if is_main_process():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
