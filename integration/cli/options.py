"""Options that several commands share, by topic, and what their texts mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wtacrs.estimators import InputError
from wtacrs.integration.cli.completion import complete_estimator
from wtacrs.validation.seeds import ACCEPTED_SEEDS, checked_seed

if TYPE_CHECKING:
    from wtacrs.validation.records.base import ScoreKind


def _usable_seed(value: int) -> int:
    return checked_seed(value, "--seed")


# captured layers
CapturesArgument = Annotated[Path, typer.Argument(metavar="CAPTURES", help="File written by `wtacrs capture`.")]
CaptureFilesArgument = Annotated[
    list[Path], typer.Argument(metavar="CAPTURES...", help="Files written by `wtacrs capture`.")
]
LayersOption = Annotated[
    list[str] | None,
    typer.Option("--layers", metavar="PATTERN", help="Only layers whose name fits, as in '*.wi'. Repeatable."),
]

# estimators
EstimatorsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--estimator",
        metavar="SPEC",
        help="As in 'wta_crs(winners=\"optimal\")', or your own, as in 'mine.py:Mine(k=4)'; without a budget: at each "
        "--budget. Repeatable.",
        autocompletion=complete_estimator,
    ),
]
EstimatorOption = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="Estimator of dW, as in 'crs(budget=0.3)' or 'mine.py:Mine(budget=0.3)'; 'exact' for ordinary training.",
        autocompletion=complete_estimator,
    ),
]
BudgetOfOption = Annotated[
    str,
    typer.Option(
        metavar="ROWS",
        help="What a budget is a share of: all-rows, or live-rows, those that no mask calls padding.",
    ),
]
_LEAN_WORDS = (
    "neighbours (norms, dropout, activations), attention or attention-again, head or head-again, 8-bit or 4-bit, "
    "quick-dropout, joined by commas."
)
LeanOption = Annotated[str | None, typer.Option(metavar="WORDS", help=f"What else is to keep less: {_LEAN_WORDS}")]
LeansOption = Annotated[
    list[str] | None,
    typer.Option("--lean", metavar="WORDS", help=f"Measure with lean neighbours too: {_LEAN_WORDS} Repeatable."),
]
BudgetsOption = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows. Repeatable."),
]
_SCORES = "oracle (‖x‖‖dy‖), row-norms (‖x‖), stale (‖x‖ · earlier ‖dy‖), both (the first two) or all."
ScoresOption = Annotated[str, typer.Option(metavar="KIND", help=f"What rows are sampled by: {_SCORES}")]
AnyScoresOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help=f"What rows are sampled by: {_SCORES} Default: both, and stale where the captures have it.",
    ),
]
DrawsOption = Annotated[int, typer.Option(min=3, help="Monte Carlo draws where there is no closed form.")]

# where and how it is computed
SeedOption = Annotated[
    int, typer.Option(callback=_usable_seed, help=f"Seed of everything that is drawn, {ACCEPTED_SEEDS}.")
]
JobsOption = Annotated[int, typer.Option(min=1, help="Processes.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Dask scheduler, as in tcp://host:8786: its machines do the work."),
]
DeviceOption = Annotated[str, typer.Option(help="Where it is computed: cpu, cuda, cuda:1 …")]

# training
StepsOption = Annotated[int, typer.Option(min=1, help="Optimizer steps.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Examples per forward pass.")]
MinRowsOption = Annotated[
    int, typer.Option(min=0, metavar="N", help="Leave layers exact whose inputs have fewer rows than this.")
]
MaxLengthOption = Annotated[int, typer.Option(min=2, help="Longest input, in tokens.")]
LearningRateOption = Annotated[
    float,
    typer.Option(help="Peak learning rate of AdamW; about 3e-4 for pre-trained models, 1e-3 for small new ones."),
]
PrecisionOption = Annotated[str, typer.Option(help="fp32, or bf16 for autocast.")]
LoraRankOption = Annotated[
    int | None, typer.Option(help="Train adapters of this rank (LoRA) instead; `pip install 'wtacrs[peft]'`.")
]
LoraFaOption = Annotated[bool, typer.Option("--lora-fa", help="Freeze A of every adapter; B alone trains.")]

# folders
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figures.")]
RunOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run.")]
SaveEveryOption = Annotated[
    int, typer.Option(min=1, help="Steps between saved states, from which an interrupted run is resumed.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")]
ReplaceOption = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]
AnewOption = Annotated[
    bool, typer.Option("--overwrite", help="Start anew instead of continuing what is in the folder.")
]


def spec_from(text: str) -> str | None:
    """The spec that `--estimator` names; None for exact training."""
    return None if text == "exact" else text


def budgets_from(texts: Sequence[str] | None, default: Sequence[int | float] = ()) -> list[int | float]:
    """`0.3` is a fraction of the rows, `32` a number of rows.

    Raises:
        InputError: on what is neither.
    """
    if not texts:
        return list(default)
    budgets: list[int | float] = []
    for text in texts:
        try:
            budgets.append(int(text) if text.strip().lstrip("+-").isdigit() else float(text))
        except ValueError:
            raise InputError(
                f"--budget {text!r} must be a fraction such as 0.3 or a number of rows such as 32"
            ) from None
    return budgets


def scores_from(text: str) -> tuple[ScoreKind, ...]:
    """The kinds of scores that `--scores` names.

    Raises:
        InputError: on another name.
    """
    from wtacrs.validation.layers.scores import SCORE_KINDS

    several: dict[str, tuple[ScoreKind, ...]] = {"both": SCORE_KINDS, "all": (*SCORE_KINDS, "stale")}
    return several[text] if text in several else (score_kind_from(text, several),)


def score_kind_from(text: str, others: Iterable[str] = ()) -> ScoreKind:
    """The one kind of scores that `--scores` names.

    Args:
        text: what was given.
        others: names that the option takes too, for the message.

    Raises:
        InputError: on another name.
    """
    from wtacrs.validation.layers.scores import SCORE_KINDS

    kinds: dict[str, ScoreKind] = {kind: kind for kind in (*SCORE_KINDS, "stale")}
    if text not in kinds:
        raise InputError(f"--scores {text!r} must be one of {', '.join([*kinds, *others])}")
    return kinds[text]


def device_from(text: str) -> str:
    """A device that this machine has.

    Raises:
        InputError: on any other.
    """
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {text!r} cannot be used: {reason}") from None
    return text
