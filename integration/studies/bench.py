"""The benchmark: estimators beside the exact product, and the whole training step; result file and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from wtacrs.estimators import InputError, spec
from wtacrs.estimators.core.sizing import resized, size_of
from wtacrs.figures.plots import bench as bench_figure
from wtacrs.figures.plots import front as front_figure
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.layers.least_elements import checked_min_rows
from wtacrs.integration.measure.simulation.step import checked_shape
from wtacrs.integration.models.published_sizes import config_of
from wtacrs.integration.studies.front import measure_front
from wtacrs.integration.studies.output import device_name, draw_or_remove, source_of
from wtacrs.validation.arguments import checked_integer
from wtacrs.validation.benchmarks.bench import (
    TOO_LARGE,
    BenchProblem,
    Entry,
    bench_problem,
    captured_problem,
    gaussian_problem,
)
from wtacrs.validation.benchmarks.roofline import DTYPES, better, measure_roofs
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.files import check_folder
from wtacrs.validation.layers.captures import Captures
from wtacrs.validation.layers.compare import ZeroProduct
from wtacrs.validation.layers.scores import LayerLike
from wtacrs.validation.patterns import check_patterns, fits
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.bench import BenchPrecision, BenchResult, BenchRow, Roofs
from wtacrs.validation.records.front import FrontResult, Way
from wtacrs.validation.records.results import write_result
from wtacrs.validation.runner import Report
from wtacrs.validation.seeds import checked_seed

Size = tuple[int, int, int]
SIZES: tuple[Size, ...] = ((4096, 1024, 1024), (16384, 1024, 1024))
_ANSWER = 8
_STEP_PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class StepShape:
    """The training step that is measured: a published model with few blocks, its batch, and how its noise is found.

    With `lean`, the words of `LeanOptions`, the exact step and every sampled one are measured with such neighbours too.
    Layers whose inputs have fewer rows than `min_rows` are exact in sampled steps. Answers of an encoder–decoder have
    `target_length` tokens, 8 if None; other models have none.
    """

    model: str = "t5-base"
    layers: int = 2
    batch_size: int = 32
    length: int = 128
    target_length: int | None = None
    batches: int = 2
    draws: int = 1
    lean: str | None = None
    min_rows: int = 0


def sizes_from(text: str) -> list[Size]:
    """n × d × m of every problem.

    Raises:
        InputError: on anything but three positive numbers with an x between them, several joined by commas.

    >>> sizes_from("4096x1024x512,64x8x8")
    [(4096, 1024, 512), (64, 8, 8)]
    """
    found: list[Size] = []
    for part in text.split(","):
        numbers = part.strip().split("x")
        if len(numbers) != 3 or not all(number.isdecimal() and int(number) for number in numbers):
            raise InputError(f"sizes={text!r}: {part.strip()!r} must be N x D x M, as in 4096x1024x1024")
        found.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return found


def bench_study(
    entries: Sequence[Entry],
    out: Path,
    *,
    sizes: Sequence[Size] = SIZES,
    captures: Captures | None = None,
    layers: Sequence[str] | None = None,
    precision: str = "fp32",
    rounds: int = 9,
    draws: int = 4,
    device: str = "cpu",
    step: StepShape | None = None,
    seed: int = 0,
    report: Report | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> BenchResult:
    """Measure every entry on every problem: `bench.json`, `bench.png`, and `bench_step.png` of the whole step.

    Args:
        entries: what is measured.
        out: folder of the result.
        sizes: n, d and m of Gaussian x and dY, in place of which come the captured layers, where there are any.
        captures: layers whose x and dY, without padding, are measured.
        layers: patterns of their names; all if None.
        precision: of x and dY: fp64, fp32, bf16 or fp16.
        rounds: of timing.
        draws: of Monte Carlo where there is no closed form.
        device: where.
        step: the training step to measure too, by all entries that need no known scores; None for none.
        seed: of x, dY and draws.
        report: progress.
        skipped: told of what is left out, and why: a captured layer whose exact product is zero, an estimator that a
            problem is too small for.

    Raises:
        InputError: on an unusable argument, and if nothing could be measured.
    """
    seed = checked_seed(seed)
    checked_integer(rounds, "rounds", least=1)
    checked_integer(draws, "draws", least=3)
    if precision not in DTYPES:
        raise InputError(f"precision={precision!r} must be one of {', '.join(get_args(BenchPrecision))}")
    if step is not None and precision not in _STEP_PRECISIONS:
        raise InputError(
            f"precision={precision!r}: a training step is measured in {' or '.join(_STEP_PRECISIONS)}"
        )
    if step is not None:
        checked_shape(config_of(step.model), step.batch_size, step.length, _target_length(step))
        checked_min_rows(step.min_rows)
        if step.lean is not None:
            LeanOptions.parse(step.lean)
    if not entries:
        raise InputError("estimators must name at least one")
    check_folder("out", out)
    problems = _problems(sizes, captures, layers, precision, device, seed)
    begin_work(
        f"{len(entries)} estimators on {len(problems)} problems, {rounds} rounds of timing",
        *(f"  {name}" for name in problems),
        f"writes {out / 'bench.json'}",
    )
    roofs = measure_roofs([precision], device)
    measure = partial(
        bench_problem, entries=entries, roofs=roofs, precision=precision, rounds=rounds, draws=draws, seed=seed
    )
    rows: list[BenchRow] = []
    for done, (name, problem) in enumerate(problems.items()):
        if report is not None:
            report(name, done, len(problems))
        try:
            rows += measure(problem(), skipped=partial(_entry_skipped, skipped, name))
        except ZeroProduct as reason:
            if skipped is not None:
                skipped(name, str(reason))
    if not rows:
        raise InputError("estimators: none could be measured on any problem")
    roofs = better(roofs, measure_roofs([precision], device))
    result = BenchResult(
        stamp=stamp(seed=seed, device=device_name(device), inputs={} if captures is None else source_of(captures)),
        precision=precision,  # type: ignore[arg-type]
        rounds=rounds,
        roofs=roofs,
        rows=[_under(row, roofs) for row in rows],
        step=None if step is None else _step(entries, step, precision, rounds, device, seed, report, skipped),
    )
    write_result(out / "bench.json", result)
    draw_or_remove(partial(bench_figure.draw, result), out / "bench.png")
    if result.step is not None:
        draw_or_remove(partial(front_figure.draw, result.step), out / "bench_step.png")
    return result


def _entry_skipped(skipped: Callable[[str, str], None] | None, problem: str, entry: Entry, reason: str) -> None:
    if skipped is not None:
        skipped(problem, f"{entry.text} on {problem}: {reason}")


def _under(row: BenchRow, roofs: Roofs) -> BenchRow:
    """The row with the least time under roofs that were measured again."""
    return row.model_copy(update={"least_seconds": roofs.least_seconds(row.macs, row.least, row.multiplied_in)})


def _problems(
    sizes: Sequence[Size],
    captures: Captures | None,
    layers: Sequence[str] | None,
    precision: str,
    device: str,
    seed: int,
) -> Mapping[str, Callable[[], BenchProblem]]:
    """What makes every problem, by its name: one at a time is in memory."""
    if captures is None:
        if layers:
            raise InputError(f"layers={list(layers)!r} are those of captures: name a captured file")
        return {
            f"{n} x {d} x {m}": partial(gaussian_problem, n, d, m, precision=precision, device=device, seed=seed)
            for n, d, m in sizes
        }
    names = list(captures)
    if layers:
        check_patterns(layers, names, what="captured layers")
        names = [name for name in names if fits(name, layers)]
    return {name: partial(_opened, captures, name, precision, device) for name in names}


def _opened(captures: Mapping[str, LayerLike], name: str, precision: str, device: str) -> BenchProblem:
    return captured_problem(name, captures[name], precision=precision, device=device)


def _step(
    entries: Sequence[Entry],
    shape: StepShape,
    precision: str,
    rounds: int,
    device: str,
    seed: int,
    report: Report | None,
    skipped: Callable[[str, str], None] | None,
) -> FrontResult:
    rows = shape.min_rows
    told = partial(_entry_skipped, skipped, "the step")
    specs = list(dict.fromkeys(_step_specs(entries, shape, precision, told)))
    ways = [Way(), Way(checkpointing=True), *(Way(estimator=text, min_rows=rows) for text in specs)]
    if shape.lean is not None:
        ways += [Way(lean=shape.lean), *(Way(lean=shape.lean, estimator=text, min_rows=rows) for text in specs)]
    return measure_front(
        shape.model, layers=shape.layers, batch_size=shape.batch_size, length=shape.length,
        target_length=_target_length(shape), precision=precision, rounds=rounds, batches=shape.batches, draws=shape.draws,
        device=device, ways=ways, parts=False, seed=seed, report=report,
    )  # fmt: skip


def _target_length(shape: StepShape) -> int | None:
    if shape.target_length is not None:
        return shape.target_length
    return _ANSWER if getattr(config_of(shape.model), "is_encoder_decoder", False) else None


def _step_specs(
    entries: Sequence[Entry], shape: StepShape, precision: str, skipped: Callable[[Entry, str], None]
) -> Iterator[str]:
    """Estimators for layers of all sizes: what fits a share of the bytes at the width of the model has a size per row."""
    n, d = shape.batch_size * shape.length, config_of(shape.model).hidden_size
    for entry in entries:
        if entry.scores != "row-norms":
            continue
        estimator = entry.at(n, d, DTYPES[precision])
        if estimator is None:
            skipped(entry, TOO_LARGE)
        if estimator is None or estimator.name == "exact":
            continue
        size = size_of(estimator)
        if entry.share is not None and size is not None and size[0] != "rank":
            estimator = resized(estimator, int(1e4 * size[1] / n) / 1e4)
        yield spec(estimator)
