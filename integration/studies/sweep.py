"""The |C| sweep over captured files, layers and budgets: result file and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from wtacrs.estimators import InputError
from wtacrs.figures.plots import winner_regret, winner_sweep
from wtacrs.integration.studies.layer_choice import chosen_of_files
from wtacrs.integration.studies.output import Drawer, device_name, keep, source_of
from wtacrs.validation.layers.captures import Captures, opened_captures
from wtacrs.validation.layers.sweep import sweep_entry
from wtacrs.validation.records.base import ScoreKind, stamp
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.runner import Runner, Task, file_mark

DEFAULT_BUDGETS = (0.1, 0.3, 0.5)


def sweep_study(
    files: Captures | str | Path | Sequence[Captures | str | Path],
    budgets: Sequence[int | float] = DEFAULT_BUDGETS,
    out: str | Path | None = None,
    *,
    layers: Sequence[str] | None = None,
    scores: Sequence[ScoreKind] = ("oracle",),
    products: bool = True,
    device: str = "cpu",
    runner: Runner | None = None,
) -> SweepResult:
    """Variance of WTA-CRS for every |C|; writes `sweep.json`, `winner_sweep.png` and `winner_regret.png`.

    Args:
        files: one or several of captures, opened or by name: architectures, training steps.
        budgets: fractions or numbers of rows.
        out: folder of the files; nothing is written if None.
        layers: patterns; each must fit in some file. A file in which none fits is left out.
        scores: kinds of scores.
        products: False leaves out ‖G_T‖², the part of the cost that is O(n·d·m), and with it every regret.
        device: where the products are computed.
        runner: processes, machines, resumption and progress.

    Raises:
        InputError: on an unusable budget or layer, on a file that is named twice, and if no layer is left.
    """
    runner = Runner() if runner is None else runner
    given = [files] if isinstance(files, (Captures, str, Path)) else files
    opened = [opened_captures(file) for file in given]
    names = capture_names(opened)
    distinct = list({repr(budget): budget for budget in budgets}.values())
    tasks = [
        Task(
            key=f"sweep {file_mark(captures.path)} {name} {entry} {distinct} {list(scores)} {products} {device}",
            work=sweep_entry,
            arguments=(captures.path, entry, distinct, name, tuple(scores), products, device),
            label=entry,
        )
        for name, captures, entries in zip(names, opened, chosen_of_files(opened, layers), strict=True)
        for entry in entries
    ]
    sweeps = runner.run(WinnerSweep, tasks)
    if not sweeps:
        told = ", ".join(str(captures.path) for captures in opened)
        raise InputError(f"captures={told}: the exact product is zero in every chosen layer")
    inputs = {"budget": ", ".join(map(str, distinct)), **_sources(names, opened)}
    result = SweepResult(stamp=stamp(seed=None, device=device_name(device), inputs=inputs), sweeps=sweeps)
    figures: dict[str, Drawer] = {
        "winner_sweep.png": partial(winner_sweep.draw, result),
        "winner_regret.png": partial(winner_regret.draw, result),
    }
    keep(result, out, "sweep.json", runner, figures)
    return result


def capture_names(files: Sequence[Captures]) -> list[str]:
    """A short name for every captured file: its model, the training step where it is known; else the file's name.

    Raises:
        InputError: if there is no file, or one is named twice.
    """
    if not files:
        raise InputError("captures: at least one file is needed")
    paths = [captures.path.resolve() for captures in files]
    for path, count in Counter(paths).items():
        if count > 1:
            raise InputError(f"captures={path.name} is named {count} times")
    names = [_model_and_step(captures) for captures in files]
    for further in (lambda path: path.name, str):
        counts = Counter(names)
        names = [f"{name} ({further(captures.path)})" if counts[name] > 1 else name
                 for name, captures in zip(names, files, strict=True)]  # fmt: skip
    return names


def _model_and_step(captures: Captures) -> str:
    model = str(captures.metadata.get("model") or captures.path.stem)
    if len(parts := Path(model).parts) > 2:  # a local folder; a name on the hub has two parts
        model = "/".join(parts[-2:])
    step = captures.metadata.get("step")
    return model if step is None else f"{model}, step {step}"


def _sources(names: Sequence[str], files: Sequence[Captures]) -> dict[str, str]:
    if len(files) == 1:
        return source_of(files[0])
    return {
        name: ", ".join(f"{key} {value}" for key, value in source_of(captures).items())
        for name, captures in zip(names, files, strict=True)
    }
