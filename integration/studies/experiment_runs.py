"""What experiments over seeds do alike: open the subject, tell the plan, record the design, train all settings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from wtacrs.integration.studies.design import record_design
from wtacrs.integration.studies.experiment_config import (
    ExperimentBase,
    check_subject,
    dumped,
    planned_lines,
    stamp_inputs,
    subject_of,
)
from wtacrs.integration.studies.runs import planned_runs, train_over_seeds
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.dry_run import begin_work
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.training import TrainingResult

LabelT = TypeVar("LabelT", bound=Hashable)


@dataclass(frozen=True)
class RunOptions:
    """What a call adds to the file of an experiment.

    Attributes:
        data: folder of GLUE files, where the task is one of them.
        model: overrides the file's model: a local folder, say.
        tokenizer: likewise, of a small new model.
        runs_of: folders of other experiments; their finished runs of the same settings are copied, not trained again.
        overwrite: start anew whatever the folder holds.
        progress: show progress lines on stderr.
    """

    data: Path | None = None
    model: str | None = None
    tokenizer: str | None = None
    runs_of: Sequence[Path] = ()
    overwrite: bool = False
    progress: bool = False


@dataclass(frozen=True, eq=False)
class TrainedRuns(Generic[LabelT]):
    """The runs of an experiment.

    Attributes:
        results: by setting and seed.
        common: fields of a result of any kind of experiment: stamp, config, metric, majority, dev_size, design.
    """

    results: dict[tuple[LabelT, int], TrainingResult]
    common: dict[str, Any]


def train_experiment(
    config: ExperimentBase,
    settings: Mapping[LabelT, FinetuneConfig],
    folder_of: Callable[[LabelT], str],
    out: Path,
    options: RunOptions,
    *,
    crossed: str,
    writes: str,
    foreseen: Sequence[str] = (),
    power: float | None = None,
) -> TrainedRuns[LabelT]:
    """Train all settings of an experiment from all of its seeds.

    Args:
        config: the experiment.
        settings: how the runs are trained, but for the seed.
        folder_of: name of the folder that holds the runs of a setting.
        out: the experiment's folder.
        options: what the call adds to the file.
        crossed: what is crossed with the seeds, for the plan: "3 methods".
        writes: name of the file that holds the result, for the plan.
        foreseen: further lines of the plan.
        power: foreseen, of the comparisons.

    Raises:
        InputError: as `finetune`, and if a run in the folder had other settings, or the experiment another design.
    """
    subject = subject_of(config, options.data, options.model, options.tokenizer)
    config.refuse_missing(subject)
    task = subject.load()
    folders = {label: out / folder_of(label) for label in settings}
    planned = [folders[label] / f"seed-{seed}" for seed in config.seeds for label in settings]
    check_subject(subject, task, settings, planned, config.seeds[0])
    begin_work(
        f"{config.name}: {subject.name} on {task.name}, {len(task.train):,} examples, {len(planned)} runs: "
        f"{crossed} × {len(config.seeds)} seeds",
        *foreseen,
        *planned_lines(settings),
        *planned_runs(planned, runs_of=options.runs_of, overwrite=options.overwrite),
        f"writes {out / writes}",
    )
    decided = dumped(config)
    design = record_design(out / "design.json", decided, power=power, overwrite=options.overwrite)
    results = train_over_seeds(
        settings,
        folders,
        config.seeds,
        subject,
        task,
        runs_of=options.runs_of,
        overwrite=options.overwrite,
        progress=options.progress,
    )
    first = next(iter(results.values()))
    common = {
        "stamp": stamp(seed=None, device=first.stamp.device, inputs=stamp_inputs(subject, task)),
        "config": decided,
        "metric": first.metric,
        "majority": first.majority,
        "dev_size": first.dev_size,
        "design": design,
    }
    return TrainedRuns(results, common)
