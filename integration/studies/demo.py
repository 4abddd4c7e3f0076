"""`wtacrs demo`: every step on the embedded task and model, offline, from real text to a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from rich.console import Console

from wtacrs.estimators import make
from wtacrs.figures.plots import training as training_figure
from wtacrs.figures.report.finding import find_results
from wtacrs.figures.report.report import write_report
from wtacrs.figures.report.verdict import verdict
from wtacrs.integration.models.loading import SMALL_T5, load_model, small_t5, task_tokenizer
from wtacrs.integration.studies.capture import capture_task
from wtacrs.integration.studies.check import check_study, result_files
from wtacrs.integration.studies.compare import DEFAULT_ESTIMATORS, candidates_of, comparison_study
from wtacrs.integration.studies.sweep import DEFAULT_BUDGETS, sweep_study
from wtacrs.integration.tables.check import check_summary
from wtacrs.integration.tables.compare import comparison_table
from wtacrs.integration.tables.folding import folded
from wtacrs.integration.tables.training import training_table
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.loading import load_task
from wtacrs.integration.training.config import DEMO
from wtacrs.integration.training.run import finetune
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.runner import Runner
from wtacrs.validation.seeds import checked_seed
from wtacrs.validation.summaries.sweep import which_winners

ESTIMATOR = "wta_crs(budget=0.3)"
CHECKED = ("exact", "topk(budget=0.3)", "crs(budget=0.3)", ESTIMATOR)
BUDGETS = (0.05, 0.1, 0.2, 0.3, 0.5)


def run_demo(out: Path, *, seed: int, console: Console) -> Path:
    """Train exactly and with WTA-CRS, capture the trained model, compare, sweep, check and report.

    Runs on one thread: a second one gains a fifth on an idle machine, and on a busy one the two wait for each other
    many times longer than they compute. Everything is written to `out`, an earlier demo's files there are replaced;
    the trained models lie in sub-folders. One seed on one machine gives one set of results, timings aside.

    Returns:
        The report's path.
    """
    seed = checked_seed(seed)
    started = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        report = _steps(out, seed, console)
    finally:
        torch.set_num_threads(threads)
    console.print(f"done in {time.perf_counter() - started:.0f} s: open {report}", highlight=False, soft_wrap=True)
    return report


def _steps(out: Path, seed: int, console: Console) -> Path:
    begin_work(
        "trains a small T5 exactly and with WTA-CRS, captures, compares, sweeps, checks; about a minute",
        f"writes {out / 'report.html'} and what it shows",
    )
    say = _narrator(console, out)
    with say("task", "reading sentences from the docstrings of the installed libraries"):
        task = load_task("docstrings")
    console.print(f"  {task.description}", highlight=False)
    runs = []
    for name, spec in (("exact", None), ("wta_crs", ESTIMATOR)):
        with say("train", f"a small new T5, {'exactly' if spec is None else f'with dW by {spec}'}"):
            runs.append(_train(task, out, name, spec, seed))
    training_figure.draw(runs, out / "training_curves.png")
    console.print(*folded(training_table(runs), console.width), sep="\n")
    with say("capture", "x, dY and padding mask of every linear layer of the trained T5, one batch"):
        captures = _capture(task, out, seed)
    with say("compare", f"bias, variance and bytes on {len(captures.layers)} layers, in closed form"):
        comparison = comparison_study(
            captures,
            candidates_of(["exact", *DEFAULT_ESTIMATORS], BUDGETS, None),
            out,
            seed=seed,
            runner=Runner(folder=out),
        )
    console.print(*folded(comparison_table(comparison), console.width), sep="\n")
    with say("sweep", "exact variance of WTA-CRS for every number of winners |C|"):
        sweep = sweep_study([captures], DEFAULT_BUDGETS, out)
    for sentence in which_winners(sweep.sweeps):
        console.print(f"  {sentence}", highlight=False)
    with say("check", "every property that the estimators promise, by enumeration and by sampling"):
        estimators = [make(spec) for spec in CHECKED]
        files = result_files(out, estimators)
        checks = [check_study(*pair, seed=seed) for pair in zip(estimators, files, strict=True)]
    for result in checks:
        console.print(f"  {check_summary(result)}", highlight=False)
    with say("report", "one self-contained page"):
        report = write_report(out)
    for told in verdict(find_results([out]).results):
        console.print(f"  {told.text}", highlight=False, markup=False)
    return report


def _train(task: TaskData, out: Path, name: str, spec: str | None, seed: int) -> TrainingResult:
    tokenizer = task_tokenizer(task)
    config = DEMO.but(estimator=spec, seed=seed, out=out / f"model-{name}")
    result = finetune(config, task, small_t5(tokenizer, seed=seed), tokenizer, progress=True)
    write_result(out / f"training-{name}.json", result)
    return result


def _capture(task: TaskData, out: Path, seed: int) -> Captures:
    model, tokenizer = load_model(str(out / "model-exact" / "last"), task)
    model.name_or_path = f"{SMALL_T5}, trained exactly"
    return capture_task(
        model, tokenizer, task, out / "captures.safetensors", batches=1, batch_size=32, max_length=48, seed=seed
    )


def _narrator(console: Console, out: Path) -> Callable[[str, str], AbstractContextManager[None]]:
    """Says what is done and how long it took; the first line names the folder."""
    console.print(f"wtacrs demo → {out}", highlight=False, soft_wrap=True)

    @contextmanager
    def say(step: str, what: str) -> Iterator[None]:
        console.print(f"[bold]{step}[/bold]  {what}", highlight=False)
        started = time.perf_counter()
        yield
        console.print(f"  [dim]{time.perf_counter() - started:.0f} s[/dim]", highlight=False)

    return say
