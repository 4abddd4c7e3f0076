"""The `wtacrs` command line: one line and exit code 2 on bad input, never a traceback for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from wtacrs.estimators import InputError
from wtacrs.integration.progress import count_bar

if TYPE_CHECKING:
    from wtacrs.validation.comparison import ScoreKind

app = typer.Typer(
    name="wtacrs",
    help="Estimators of the weight gradient dW = dYᵀ X: compare them, test them, fine-tune with them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# a file or a pipe has no width of its own: 80 columns would fold every table
console = Console(width=None if sys.stdout.isatty() else 120)
progress_bar = partial(count_bar, console)

_SCORE_OPTIONS: dict[str, tuple[ScoreKind, ...]] = {
    "oracle": ("oracle",),
    "row-norms": ("row norms",),
    "both": ("oracle", "row norms"),
}

CapturesArgument = Annotated[Path, typer.Argument(metavar="CAPTURES", help="File written by `wtacrs capture`.")]
LayersOption = Annotated[
    list[str] | None,
    typer.Option("--layers", metavar="PATTERN", help="Only layers whose name fits, as in '*.wi'. Repeatable."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
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
        metavar="NAME|DIR", help="Hugging Face model: a hub name or a local folder. Default: a small new T5."
    ),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(metavar="NAME|DIR", help="Vocabulary of the small new T5. Default: trained on the task."),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except InputError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or 'file'}: {error.strerror or error}")
    except (KeyboardInterrupt, typer.Abort):
        return _refuse("interrupted", code=130)
    except Exception as error:
        # usage errors of the parser, which typer carries under private names
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())  # type: ignore[attr-defined]
            return 0
        if hasattr(error, "format_message"):
            return _refuse(f"{error.format_message()} See `wtacrs --help`.")
        raise
    return code if isinstance(code, int) else 0


def _refuse(message: str, code: int = 2) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _budgets(texts: Sequence[str]) -> list[int | float]:
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


def _scores(text: str) -> tuple[ScoreKind, ...]:
    if text not in _SCORE_OPTIONS:
        raise InputError(f"--scores {text!r} must be one of {', '.join(_SCORE_OPTIONS)}")
    return _SCORE_OPTIONS[text]


def _warn(layer: str, reason: str) -> None:
    del layer
    console.print(f"[yellow]skipped[/yellow] {reason}")


def _wrote(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)


@app.command()
def zoo(
    name: Annotated[str | None, typer.Argument(help="One estimator: its definition, proof and variance.")] = None,
) -> None:
    """List the estimators and what they promise, or explain one of them."""
    import inspect

    from wtacrs.estimators import lookup
    from wtacrs.integration.tables import zoo_table

    if name is None:
        console.print(zoo_table())
    else:
        console.print(inspect.getdoc(lookup(name)), markup=False, highlight=False)


@app.command()
def capture(
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write (safetensors).")] = Path(
        "runs/captures.safetensors"
    ),
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    batches: Annotated[int, typer.Option(min=1, help="Number of batches.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per batch.")] = 32,
    max_length: Annotated[int, typer.Option(min=2, help="Longest input, in tokens.")] = 128,
    layers: LayersOption = None,
    seed: SeedOption = 0,
) -> None:
    """Save x, dy and the padding mask of every linear layer of a model on training batches."""
    from wtacrs.integration.commands import capture_command

    with progress_bar("capturing") as report:
        found = capture_command(
            out, task, data, model, tokenizer, batches, batch_size, max_length, layers, seed, report
        )
    console.print(f"{len(found.layers)} layers, {batches} batches, {found.path.stat().st_size / 2**20:.1f} MiB")
    _wrote(found.path)


@app.command()
def compare(
    captures: CapturesArgument,
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="As in 'wta_crs(winners=\"optimal\")'; without a budget: at each --budget."
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows (all, if fewer). Repeatable."),
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(
            "--bytes", metavar="S", help="Instead: paper's WTA-CRS and `recommended` at this share of bytes."
        ),
    ] = None,
    layers: LayersOption = None,
    scores: Annotated[str, typer.Option(help="oracle (‖x‖‖dy‖), row-norms (‖x‖) or both.")] = "both",
    draws: Annotated[int, typer.Option(min=3, help="Monte Carlo draws where there is no closed form.")] = 1000,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figures.")] = Path(
        "runs/compare"
    ),
    seed: SeedOption = 0,
) -> None:
    """Bias, variance, stored bytes and multiplications of estimators on captured layers."""
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.studies import DEFAULT_BUDGETS, DEFAULT_ESTIMATORS, comparison_study
    from wtacrs.integration.tables import comparison_table
    from wtacrs.validation.captures import load_captures

    if share:
        if estimator or budget:
            raise InputError("--bytes compares two estimators of its own: leave out --estimator and --budget")
        _compare_bytes(captures, share, layers, _scores(scores), min(draws, 32), out, seed)
        return
    chosen = _budgets(budget) if budget else list(DEFAULT_BUDGETS)
    check_folder("out", out)
    with progress_bar("comparing") as report:
        result = comparison_study(
            load_captures(captures),
            estimator or list(DEFAULT_ESTIMATORS),
            chosen,
            out,
            layers=layers,
            scores=_scores(scores),
            draws=draws,
            seed=seed,
            report=report,
            skipped=_warn,
        )
    console.print(comparison_table(result))
    axes = ("budget", "bytes", "multiplications")
    _wrote(out / "comparison.json", *(out / f"variance_{axis}.png" for axis in axes))


def _compare_bytes(
    captures: Path,
    shares: Sequence[float],
    layers: list[str] | None,
    scores: tuple[ScoreKind, ...],
    draws: int,
    out: Path,
    seed: int,
) -> None:
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.studies import equal_bytes_study
    from wtacrs.integration.tables import ratio_table
    from wtacrs.validation.captures import load_captures

    opened = load_captures(captures)
    check_folder("out", out)
    with progress_bar("comparing") as report:
        ratios = equal_bytes_study(
            opened, shares, out, layers=layers, scores=scores, draws=draws, seed=seed, report=report, skipped=_warn
        )
    console.print(ratio_table(ratios))
    _wrote(*(out / f"equal_bytes-{share:g}.json" for share in shares))


@app.command()
def sweep(
    captures: CapturesArgument,
    budget: Annotated[str, typer.Option(metavar="B", help="0.3 = 30 % of the rows, 32 = 32 rows.")] = "0.3",
    layers: LayersOption = None,
    scores: Annotated[str, typer.Option(help="oracle (‖x‖‖dy‖), row-norms (‖x‖) or both.")] = "oracle",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figure.")] = Path(
        "runs/sweep"
    ),
) -> None:
    """Exact variance of WTA-CRS for every number of winners |C|, with both rules' choices marked."""
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.studies import sweep_study
    from wtacrs.integration.tables import sweep_table
    from wtacrs.validation.captures import load_captures

    check_folder("out", out)
    with progress_bar("sweeping") as report:
        result = sweep_study(
            load_captures(captures),
            _budgets([budget])[0],
            out,
            layers=layers,
            scores=_scores(scores),
            report=report,
            skipped=_warn,
        )
    console.print(sweep_table(result))
    _wrote(out / "sweep.json", out / "winner_sweep.png")


@app.command()
def check(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="As in 'crs(budget=0.3)'.")],
    captures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also test the mean on captured layers, at their real size."),
    ] = None,
    layers: LayersOption = None,
    draws: Annotated[int, typer.Option(min=30, help="Draws per captured layer.")] = 2000,
    level: Annotated[float, typer.Option(help="Probability that a sound estimator fails any test.")] = 1e-6,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the verdicts there, as JSON.")
    ] = None,
    seed: SeedOption = 0,
) -> int:
    """Check an estimator against every law its traits promise; exit code 1 if it breaks one."""
    from wtacrs.estimators import make
    from wtacrs.integration.studies import check_study
    from wtacrs.integration.tables import check_table
    from wtacrs.validation.captures import load_captures

    estimator = make(spec)
    if layers and captures is None:
        raise InputError(f"--layers {layers[0]!r} chooses among captured layers: it needs --captures FILE")
    opened = None if captures is None else load_captures(captures)
    with progress_bar("checking") as report:
        result = check_study(
            estimator, out, captures=opened, layers=layers, draws=draws, level=level, seed=seed, report=report
        )
    console.print(check_table(result))
    if out is not None:
        _wrote(out / f"check-{estimator.name}.json")
    return 0 if result.passed else 1


@app.command()
def theory(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the result and the figures.")] = Path(
        "runs/theory"
    ),
    seed: SeedOption = 0,
) -> int:
    """What is true of the estimators and what only looks true, a figure each; exit code 1 if a claim fails."""
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.studies import theory_study
    from wtacrs.integration.tables import theory_table

    check_folder("out", out)
    with progress_bar("theory") as report:
        result = theory_study(out, seed=seed, report=report)
    console.print(theory_table(result))
    _wrote(out / "theory.json", *(out / f"theory_{claim.name}.png" for claim in result.claims))
    return 0 if result.holds else 1


@app.command()
def finetune(
    estimator: Annotated[
        str, typer.Option(metavar="SPEC", help="Estimator of dW; 'exact' for ordinary training.")
    ] = "wta_crs(budget=0.3)",
    task: TaskOption = "docstrings",
    data: DataOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.")] = Path("runs/finetune"),
    epochs: Annotated[float, typer.Option(help="Passes over the training examples.")] = 3.0,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples per forward pass.")] = 32,
    accumulation: Annotated[int, typer.Option(help="Forward passes per optimizer step.")] = 1,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 3e-4,
    warmup: Annotated[float, typer.Option(help="Fraction of the steps over which the rate rises.")] = 0.06,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for autocast.")] = "fp32",
    max_length: Annotated[int, typer.Option(help="Longest input, in tokens.")] = 128,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations; default one epoch.")] = None,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between saved states; default at evaluations.")
    ] = None,
    train_limit: Annotated[int | None, typer.Option(help="Use only so many training examples.")] = None,
    dev_limit: Annotated[int | None, typer.Option(help="Use only so many dev examples.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Fine-tune a model on a task with an estimated weight gradient."""
    from wtacrs.integration.commands import finetune_command
    from wtacrs.integration.finetune_config import FinetuneConfig
    from wtacrs.integration.tables import training_table

    options: dict[str, Any] = {
        "estimator": None if estimator == "exact" else estimator,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "lr": lr,
        "warmup": warmup,
        "precision": precision,
        "max_length": max_length,
        "eval_every": eval_every,
        "save_every": save_every,
        "seed": seed,
        "out": out,
        "resume": resume,
    }
    result = finetune_command(
        FinetuneConfig(**options),
        task,
        data,
        model,
        tokenizer,
        train_limit=train_limit,
        dev_limit=dev_limit,
        overwrite=overwrite,
    )
    console.print(training_table([result]))
    _wrote(out / "result.json", out / "metrics.jsonl", out / "best")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results, figures and report.")] = Path(
        "runs/demo"
    ),
    seed: SeedOption = 0,
) -> None:
    """The whole line, offline: train exactly and with WTA-CRS, capture, compare, sweep, check, report."""
    from wtacrs.integration.commands import check_folder
    from wtacrs.integration.demo import run_demo

    check_folder("out", out)
    run_demo(out, seed=seed, console=console)


if __name__ == "__main__":
    sys.exit(main())
