"""An experiment: one file in, runs that go on, one result out; bad files are one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from readme_numbers import experiments as numbers
from readme_numbers.records import NumbersResult
from support.cli import refused
from support.paths import ROOT
from support.result_examples import factorial as example_factorial
from support.result_examples import plan as example_plan
from support.runs import NUMBERS, TASK
from support.runs_study import Colours

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.plots import experiment as figure
from wtacrs.integration.cli import main
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies import experiment_runs
from wtacrs.integration.studies import runs as runs_module
from wtacrs.integration.studies.design import design_hash
from wtacrs.integration.studies.experiment import (
    ExperimentConfig,
    experiment_rows,
    read_experiment,
    run_experiment,
)
from wtacrs.integration.studies.experiment_config import read_config, subject_of
from wtacrs.integration.studies.experiment_runs import RunOptions
from wtacrs.integration.studies.factorial import FactorialConfig
from wtacrs.integration.tables.experiment import experiment_table
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.loop import TrainingLoop
from wtacrs.validation.records.experiment import ExperimentResult, ExperimentRun
from wtacrs.validation.records.plan import BlockChoices, Choice, PlannedBlock
from wtacrs.validation.records.results import load_result, write_result, write_text
from wtacrs.validation.records.training import TrainingPoint, TrainingResult
from wtacrs.validation.statistics.equivalence import (
    paired_equivalence,
    pooled_std,
    power,
    seeds_needed,
    without_verdict,
)

TEXT = """
name = "tiny"
seeds = [3, 5]
margin = 0.2
train_limit = 40
dev_limit = 12
model = "new:bert"

[training]
steps = 2
batch_size = 8
max_length = 16

[methods]
"half of the rows" = 'crs(budget=0.5)'
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExperimentResult]:
    folder = tmp_path_factory.mktemp("experiment")
    file = folder / "tiny.toml"
    file.write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment_runs, "subject_of", lambda *given: Colours())
        return folder, run_experiment(read_experiment(file), folder / "out")


def test_every_run_is_there_and_the_table_follows_from_them(done: tuple[Path, ExperimentResult]) -> None:
    folder, result = done
    assert load_result(folder / "out" / "experiment.json") == result
    assert [(run.label, run.seed) for run in result.runs] == [
        ("exact", 3), ("exact", 5), ("half of the rows", 3), ("half of the rows", 5)
    ]  # fmt: skip
    assert [run.result.estimator for run in result.runs] == ["exact", "exact", *["crs(budget=0.5)"] * 2]
    exact, half = result.rows
    finals = [run.result.final for run in result.runs]
    assert exact.standing is None
    expected = paired_equivalence(finals[2:], finals[:2], margin=0.2)
    assert half.standing == without_verdict(expected)  # two steps teach nothing
    assert half.mean == pytest.approx(sum(finals[2:]) / 2)
    assert experiment_table(result).row_count == 2
    assert (folder / "out" / "experiment.png").exists()
    left = {path.name for path in (folder / "out" / "half-of-the-rows" / "seed-3").iterdir()}
    assert left == {"state.pt", "metrics.jsonl", "result.json"}  # no weights


def test_it_goes_on_where_it_stopped(done: tuple[Path, ExperimentResult], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, result = done
    config = read_experiment(folder / "tiny.toml")
    started = []
    honest = runs_module.train_in

    def watched(run: Path, *arguments, **options) -> TrainingResult:
        started.append((run / "state.pt").exists())
        return honest(run, *arguments, **options)

    monkeypatch.setattr(runs_module, "train_in", watched)
    monkeypatch.setattr(experiment_runs, "subject_of", lambda *given: Unopened())
    again = run_experiment(config, folder / "out")
    assert started == [True] * 4
    assert again.runs == result.runs


def test_runs_of_another_experiment_are_copied_if_all_is_the_same(
    done: tuple[Path, ExperimentResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = done
    file = tmp_path / "other.toml"
    file.write_text(TEXT.replace("tiny", "other").replace("half of the rows", "half").replace("[3, 5]", "[5, 7]"))
    trained = []
    honest = runs_module.finetune

    def watched(config: FinetuneConfig, *arguments, **options) -> TrainingResult:
        trained.append((config.estimator, config.seed))
        return honest(config, *arguments, **options)

    monkeypatch.setattr(runs_module, "finetune", watched)
    monkeypatch.setattr(experiment_runs, "subject_of", lambda *given: Colours())
    other = run_experiment(read_experiment(file), tmp_path / "out", RunOptions(runs_of=[folder / "out"]))
    assert trained == [(None, 7), ("crs(budget=0.5)", 7)]
    before = {(run.label, run.seed): run.result for run in result.runs}
    assert [run.result for run in other.runs if run.seed == 5] == [
        before["exact", 5],
        before["half of the rows", 5],
    ]
    assert not list((tmp_path / "out").rglob("*.part"))
    run_experiment(read_experiment(file), tmp_path / "anew", RunOptions(runs_of=[folder / "out"], overwrite=True))
    assert len(trained) == 6
    file.write_text(file.read_text().replace("steps = 2", "steps = 3"))
    run_experiment(
        read_experiment(file), tmp_path / "longer", RunOptions(runs_of=[folder / "out", tmp_path / "out"])
    )
    assert len(trained) == 10


def test_a_run_is_copied_only_if_model_examples_and_weights_are_asked_for_alike(
    done: tuple[Path, ExperimentResult], tmp_path: Path
) -> None:
    folder, _ = done
    config = read_experiment(folder / "tiny.toml").settings()["exact"].but(seed=3, keep_weights=False)
    studies = [folder / "out"]
    assert runs_module.take_over(tmp_path / "a" / "seed-3", config, Colours(), TASK, studies) == (
        folder / "out" / "exact" / "seed-3"
    )
    assert (tmp_path / "a" / "seed-3" / "result.json").exists()
    for other, subject, task in (
        (config.but(lr=0.5), Colours(), TASK),
        (config.but(seed=5, estimator="topk(budget=0.5)"), Colours(), TASK),
        (config.but(keep_weights=True), Colours(), TASK),
        (config, Colours(model="new:bert"), TASK),
        (config, Colours(), NUMBERS),
    ):
        assert runs_module.take_over(tmp_path / "b" / "seed-3", other, subject, task, studies) is None
    assert not (tmp_path / "b").exists()
    (tmp_path / "c" / "seed-3").mkdir(parents=True)
    assert runs_module.take_over(tmp_path / "c" / "seed-3", config, Colours(), TASK, studies) is not None
    (tmp_path / "d" / "seed-3").mkdir(parents=True)
    (tmp_path / "d" / "seed-3" / "notes.txt").write_text("mine")
    assert runs_module.take_over(tmp_path / "d" / "seed-3", config, Colours(), TASK, studies) is None
    assert (tmp_path / "d" / "seed-3" / "notes.txt").read_text() == "mine"


def test_runs_of_a_missing_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TEXT.replace('"new:bert"', '"new:bert"\ntask = "sst2"'))
    assert "runs-of=" in refused(capsys, "experiment", str(file), "--runs-of", str(tmp_path / "none"))


class Unopened(Colours):
    """The small task, whose model nobody may open."""

    def open(self, task: TaskData, seed: int):
        raise AssertionError("the model is opened")


def test_only_the_same_run_is_taken_from_its_result(done: tuple[Path, ExperimentResult]) -> None:
    folder, result = done
    config = read_experiment(folder / "tiny.toml").settings()["exact"].but(seed=3, keep_weights=False)
    run = folder / "out" / "exact" / "seed-3"
    assert runs_module.train_in(run, config, Unopened(), TASK) == result.runs[0].result
    with pytest.raises(InputError, match=r"config lr=0\.5, but the run in .* had "):
        runs_module.train_in(run, config.but(lr=0.5), Unopened(), TASK)
    with pytest.raises(InputError, match="task='numbers', but the run in"):
        runs_module.train_in(run, config, Unopened(), NUMBERS)
    with pytest.raises(AssertionError, match="the model is opened"):
        runs_module.train_in(run, config, Unopened(model="new:bert"), TASK)


def test_two_labels_are_corrected_together(done: tuple[Path, ExperimentResult]) -> None:
    _, result = done
    runs = list(result.runs)
    finals = {3: 0.71, 5: 0.74}
    for run in result.runs[2:]:
        moved = run.result.model_copy(update={"final": finals[run.seed]})
        runs.append(ExperimentRun(label="another", seed=run.seed, result=moved))
    half, another = experiment_rows(runs, margin=0.5, level=0.05)[1:]
    alone = paired_equivalence([0.71, 0.74], [r.result.final for r in result.runs[:2]], margin=0.5)
    assert another.standing.equivalent >= alone.equivalent
    assert {half.standing.level, another.standing.level} == {0.05}


def test_methods_may_estimate_the_variance_together(done: tuple[Path, ExperimentResult]) -> None:
    _, result = done
    runs = list(result.runs)
    for run, final in zip(result.runs[2:], (0.71, 0.74), strict=True):
        moved = run.result.model_copy(update={"final": final})
        runs.append(ExperimentRun(label="another", seed=run.seed, result=moved))
    finals = [[run.result.final for run in runs[i : i + 2]] for i in (0, 2, 4)]
    rows = experiment_rows(runs, margin=0.2, level=0.05, pooled=True)
    std = pooled_std(finals)
    assert [row.standing.freedom for row in rows[1:]] == [2, 2]
    assert all(row.standing.error == pytest.approx(std.deviation / 2**0.5) for row in rows[1:])


@pytest.mark.parametrize(("majority", "learned"), [(0.55, True), (0.70, False)])
def test_there_is_no_verdict_where_nothing_was_learned(
    done: tuple[Path, ExperimentResult], majority: float, learned: bool
) -> None:
    _, result = done
    finals = {"exact": (0.7, 0.72), "half of the rows": (0.7, 0.72)}
    runs = [
        ExperimentRun(
            label=run.label,
            seed=run.seed,
            result=run.result.model_copy(update={"final": finals[run.label][i % 2], "majority": majority}),
        )
        for i, run in enumerate(result.runs)
    ]
    rows = experiment_rows(runs, margin=0.1, level=0.05)
    assert rows[1].standing.verdict == ("equivalent" if learned else "nothing learned")
    told = result.model_copy(update={"runs": runs, "rows": rows, "majority": majority})
    assert ("nothing follows" in experiment_table(told).caption) != learned
    assert style.png(figure.build(told)).startswith(b"\x89PNG")


def test_the_seeds_needed_follow_from_what_the_runs_vary(done: tuple[Path, ExperimentResult]) -> None:
    _, result = done
    standing = result.rows[1].standing
    wanted = seeds_needed(standing.error * 2**0.5, margin=0.2, level=0.05)
    assert result.rows[1].seeds_needed == wanted
    assert result.rows[0].seeds_needed is None


def test_the_figure_draws_runs_intervals_and_the_margin(
    done: tuple[Path, ExperimentResult], tmp_path: Path
) -> None:
    folder, result = done
    fig = figure.build(result)
    left, right = fig.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["exact", "half of the rows"]
    assert any(text.get_text() == result.rows[1].standing.verdict for text in right.texts)
    assert style.png(fig).startswith(b"\x89PNG")
    assert load_result(folder / "out" / "experiment.json") == result
    assert figure.draw(result, tmp_path / "o.png").read_bytes() == (folder / "out" / "experiment.png").read_bytes()


def test_the_experiments_of_the_project_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_result(
        tmp_path / "runs" / "plan-minilm-sst2" / "plan.json", example_plan()
    )  # made before its experiment
    files = sorted((ROOT / "integration" / "experiments").glob("*.toml"))
    assert files
    for file in files:
        kinds = {"methods": ExperimentConfig, "factors": FactorialConfig}
        assert read_config(file, kinds).name == file.stem


def test_results_are_taken_over_into_the_readme(done: tuple[Path, ExperimentResult], tmp_path: Path) -> None:
    _, nothing = done
    rows = experiment_rows(nothing.runs, margin=0.2, level=0.05)
    for row in rows[1:]:
        assert row.standing.verdict == "nothing learned"
    learned = paired_equivalence([0.7, 0.75], [0.7, 0.72], margin=0.2)
    rows[1] = rows[1].model_copy(update={"standing": learned})
    result = nothing.model_copy(update={"rows": rows})
    assert numbers.experiment_numbers([nothing, result]).head[1:] == numbers.experiment_numbers([result]).head[1:]
    (tmp_path / numbers.FOLDER).mkdir(parents=True)
    (tmp_path / numbers.GALLERY).mkdir(parents=True)
    powered = result.model_copy(update={"config": result.config | {"name": "powered", "held_out": 12}})
    crossed = example_factorial()
    single = (numbers.MASKS, numbers.FRONT, numbers.WINNERS, numbers.GROWTH, *numbers.BUDGETS.values())
    for path in (*single, *numbers.GALLERY.glob(numbers.SIMULATED)):
        shutil.copy(path, tmp_path / path)
    write_result(tmp_path / "run" / "experiment.json", result)
    write_result(tmp_path / "powered" / "experiment.json", powered)
    write_result(tmp_path / "crossed" / "factorial.json", crossed)
    write_result(tmp_path / numbers.NUMBERS, NumbersResult(stamp=result.stamp, tables=[]))
    (tmp_path / "README.md").write_text(
        "".join(
            f"<!-- numbers: {name} -->\n<!-- end -->\n"
            for name in (
                *("experiments", "powered", "schedules", "schedules-cells", "experiments-lora", "masks"),
                *("front", "front-short", "front-lora", "simulation", "scores"),
                *("winner-rules", "winner-shares", "growth", "growth-confounders", *numbers.BUDGETS),
            )
        )
    )
    arguments = [*(str(tmp_path / name) for name in ("run", "powered", "crossed")), "--root", str(tmp_path)]
    assert numbers.main(arguments) == 2  # not one of the experiments there
    for name in ("tiny", "powered", "schedules"):
        (tmp_path / numbers.FOLDER / f"{name}.toml").write_text(TEXT)
    assert numbers.main(arguments) == 0
    assert numbers.committed(tmp_path / numbers.FOLDER) == [powered, crossed, result]
    for name in ("tiny", "powered", "schedules"):
        assert (tmp_path / numbers.GALLERY / f"experiment_{name}.png").exists()
    tables = (tmp_path / "README.md").read_text().split("<!-- end -->\n")
    head, _, majority, exact, half = tables[0].splitlines()[1:]
    assert "tiny, accuracy, 2 seeds" in head
    assert majority.endswith(f"{100 * result.majority:.1f} |")
    assert exact.startswith(f"| exact | {100 * result.rows[0].mean:.1f} ± ")
    assert half.endswith(f"{result.rows[1].standing.verdict} |")
    _, _, own_exact, own_half = tables[1].splitlines()[
        1:
    ]  # an experiment with held-out examples has a table of its own
    assert own_exact == f"| exact | {exact.split('|')[2].strip()} | – |"
    assert half.split("|")[2].strip() in own_half
    contrasts = tables[2].splitlines()[3:]
    assert len(contrasts) == len(crossed.contrasts)
    for line, one in zip(contrasts, crossed.contrasts, strict=True):
        assert f"| {one.kind} | {100 * one.difference:+.1f}".replace("-", "−") in line
        assert line.endswith(f"{one.verdict} |")
    cells = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in tables[3].splitlines()[3:]}
    assert cells == {"constant": "80.0 ± 0.6", "cosine": "82.0 ± 0.6"}


BAD = {
    "no TOML": ("name = ", "is no TOML"),
    "another key": (TEXT + "\ncolour = 1", "colour"),
    "unknown estimator": (TEXT.replace("crs(", "csr("), "unknown estimator 'csr'"),
    "exact named": (TEXT.replace('"half of the rows"', "exact"), "always run"),
    "one seed": (TEXT.replace("[3, 5]", "[3]"), "seeds"),
    "one seed twice": (TEXT.replace("[3, 5]", "[3, 3]"), "must be distinct"),
    "a negative seed": (TEXT.replace("[3, 5]", "[3, -5]"), "seeds: -5 must be an integer from 0 to 4294967295"),
    "a huge seed": (
        TEXT.replace("[3, 5]", "[99999999999999999999, 5]"),
        "seeds: 99999999999999999999 must be an integer from 0 to 4294967295",
    ),
    "a seed that is no number": (TEXT.replace("[3, 5]", "[3, true]"), "seeds: True must be an integer"),
    "negative margin": (TEXT.replace("0.2", "-0.2"), "margin"),
    "training": (TEXT.replace("steps = 2", "stepps = 2"), "stepps"),
    "a seed in training": (TEXT.replace("steps = 2", "seed = 2"), "training.seed is set by the experiment"),
    "an estimator in training": (TEXT.replace("steps = 2", "estimator = 'crs'"), "is set by the methods"),
    "a field of a method": (TEXT + "another = { rank = 2 }\n", "rank"),
    "a seed in a method": (TEXT + "another = { seed = 2 }\n", "another.seed is set by the experiment"),
    "one folder": (TEXT + "\"half-of the-rows\" = 'exact'\n", "would share a folder"),
    "too few evaluations": (
        TEXT.replace("steps = 2", "steps = 2\neval_every = 1").replace(
            "[training]", "average_last = 3\n[training]"
        ),
        "average_last=3: a run has 2 evaluations",
    ),
    "no method": (TEXT.replace("\"half of the rows\" = 'crs(budget=0.5)'", ""), "methods"),
    "a loss that is not evaluated": (
        TEXT.replace("margin = 0.2", "margin = 0.2\nloss_margin = 0.1"),
        "dev_loss",
    ),
    "methods are no table": ('name = "x"\nmethods = 3', "methods"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_one_line(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, words = BAD[what]
    file = tmp_path / "x.toml"
    file.write_text(text)
    assert main(["experiment", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
    assert not (tmp_path / "out").exists()


def test_what_is_trained_is_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TEXT)
    config = read_experiment(file)
    assert subject_of(config, tmp_path, None) == Subject("docstrings", tmp_path, "new:bert", None, 40, 12)
    assert subject_of(config, None, "here").model == "here"


def test_runs_count_by_their_last_evaluations_and_by_the_loss(done: tuple[Path, ExperimentResult]) -> None:
    """Lower losses are better, and are judged as a family of their own."""
    _, result = done
    dev = {("exact", 3): (0.70, 0.5), ("exact", 5): (0.72, 0.6)}
    dev |= {("half of the rows", 3): (0.74, 0.3), ("half of the rows", 5): (0.76, 0.39)}
    runs = []
    for run in result.runs:
        accuracy, loss = dev[run.label, run.seed]
        points = [
            TrainingPoint(
                step=i,
                epoch=0.0,
                train_loss=None,
                dev={"accuracy": accuracy + 0.01 * i, "loss": loss},
                seconds=1.0,
            )
            for i in range(4)
        ]
        moved = run.result.model_copy(
            update={"metric": "accuracy", "majority": 0.5, "history": points, "final": points[-1].dev["accuracy"]}
        )
        runs.append(ExperimentRun(label=run.label, seed=run.seed, result=moved))
    exact, half = experiment_rows(runs, margin=0.2, level=0.05, average_last=2, loss_margin=0.01)
    assert exact.mean == pytest.approx(0.71 + 0.025)
    assert half.mean == pytest.approx(0.75 + 0.025)
    assert (exact.loss, half.loss) == (pytest.approx(0.55), pytest.approx(0.345))
    assert half.loss_standing.verdict == "better"
    assert exact.loss_standing is None


def test_the_design_is_recorded_first_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(TEXT.replace("margin = 0.2", "margin = 0.2\ndeviation = 0.1"))
    config = read_experiment(file)
    assert config.power == power(2, 0.1, margin=0.2, level=0.05)
    monkeypatch.setattr(experiment_runs, "subject_of", lambda *given: Colours())

    def interrupted(*arguments, **options):
        assert (tmp_path / "out" / "design.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(runs_module, "train_in", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "design.json").read_text())
    assert told["sha256"] == design_hash(told["design"])
    assert told["power"] == config.power
    other = config.model_copy(update={"margin": 0.3})
    with pytest.raises(InputError, match="begun with another design"):
        run_experiment(other, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run_experiment(other, tmp_path / "out", RunOptions(overwrite=True))
    (tmp_path / "out" / "design.json").write_text("{}")
    with pytest.raises(InputError, match="no design"):
        run_experiment(other, tmp_path / "out")


def test_every_seed_holds_out_other_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "sentence1\tlabel\n" + "".join(f"sentence {i}\t{i % 2}\n" for i in range(60))
    for split in ("train", "dev"):
        write_text(tmp_path / "SST-2" / f"{split}.tsv", rows)
    file = tmp_path / "tiny.toml"
    file.write_text(TEXT.replace("train_limit = 40", "held_out = 20").replace("dev_limit = 12", 'task = "sst2"'))
    seen: list[TaskData] = []

    def recorded(folder: Path, config: FinetuneConfig, subject: Subject, task: TaskData, **options) -> None:
        seen.append(task)
        if len(seen) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs_module, "train_in", recorded)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(read_experiment(file), tmp_path / "out", RunOptions(data=tmp_path))
    assert [len(task.dev) for task in seen] == [20] * 4
    assert seen[0].dev == seen[1].dev  # exact and the method, of one seed
    assert seen[2].dev == seen[3].dev
    assert seen[0].dev != seen[2].dev


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_experiment(tmp_path / "missing.toml")
    assert ExperimentConfig(name="x", methods={"a": "crs(budget=0.5)"}).seeds == (0, 1, 2)


def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text("margin = -1\nseed = 3\n[data]\ntrain = 'a.csv'\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_experiment(file)
    for told in ("name: Field required", "methods: Field required", "margin: ", "seed: "):
        assert told in str(error.value)
    assert "\n" not in str(error.value)


PLANNED = TEXT + '"planned" = { plan = "plans/p.json" }\n'
BLOCKS = {"bert.encoder.layer.0": Choice(estimator="crs(budget=0.25)"), "bert.encoder.layer.1": Choice()}


def plan_file(path: Path, blocks: dict[str, Choice]) -> Path:
    done = [
        PlannedBlock(name=name, choice=choice, kept=1, seconds=0.1, noise=0.1) for name, choice in blocks.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(path, example_plan().model_copy(update={"blocks": done}))
    return path


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """An experiment with a plan beside its file."""
    plan_file(tmp_path / "plans" / "p.json", BLOCKS)
    (tmp_path / "tiny.toml").write_text(PLANNED.replace("max_length = 16", "max_length = 24"))
    return tmp_path / "tiny.toml"


def test_a_method_trains_what_its_plan_says(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, list[str]] = {}
    honest = TrainingLoop._step

    def watched(self, batches):
        layers = {n: m.estimator for n, m in self.model.named_modules() if isinstance(m, EstimatedWeightGrad)}
        seen[str(self.config.plan or self.config.estimator)] = sorted({f"{n}: {e}" for n, e in layers.items()})
        return honest(self, batches)

    monkeypatch.setattr(TrainingLoop, "_step", watched)
    assert main(["experiment", str(planned), "--out", str(tmp_path / "out")]) == 0
    does = BlockChoices(blocks=BLOCKS)
    sampled = seen[str(does)]
    assert sampled
    assert all(one.startswith("bert.encoder.layer.0.") and one.endswith("crs(budget=0.25)") for one in sampled)
    assert len(sampled) == 6  # query, key, value, output and the two of the feed-forward part
    found = load_result(tmp_path / "out" / "experiment.json")
    assert [run.result.estimator for run in found.runs if run.label == "planned"] == [str(does)] * 2
    assert found.config["methods"]["planned"]["plan"] == does.model_dump(mode="json")
    # another plan is another design
    plan_file(tmp_path / "plans" / "p.json", {"bert.encoder.layer.0": Choice()})
    assert "begun with another design" in refused(
        capsys, "experiment", str(planned), "--out", str(tmp_path / "out")
    )


def test_a_dry_run_tells_the_plan_and_whether_it_fits(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ["--out", str(tmp_path / "out")]
    assert main(["experiment", "tiny.toml", "--dry-run", *out]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"planned: {BlockChoices(blocks=BLOCKS)}, 2 blocks: 1 × crs(budget=0.25), 1 × exact" in told
    plan_file(tmp_path / "plans" / "p.json", {"encoder.block.0": Choice()})
    for way in (["--dry-run"], []):  # before anything is trained
        assert "has no block 'encoder.block.0'" in refused(capsys, "experiment", "tiny.toml", *way, *out)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ('"missing.json"', "methods.planned.plan='missing.json': no such file as missing.json or"),
        ("3", "methods.planned.plan=3 must be the name of a file that `wtacrs plan` wrote"),
        ('"tiny.toml"', "methods.planned.plan='tiny.toml': "),
        ('"other.json"', "other.json"),
    ],
)
def test_a_bad_plan_is_one_line(
    plan: str, told: str, planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(tmp_path / "other.json", NumbersResult(stamp=example_plan().stamp, tables=[]))
    planned.write_text(PLANNED.replace('"plans/p.json"', plan))
    assert told in refused(capsys, "experiment", str(planned), "--out", str(tmp_path / "out"))


def test_plans_may_be_levels_of_a_factor(planned: Path, tmp_path: Path) -> None:
    crossed = PLANNED.partition("[methods]")[0] + (
        '[factors.dW]\nexact = {}\nplanned = { plan = "plans/p.json" }\n[factors.rate]\nlow = { lr = 1e-4 }\n'
        "high = { lr = 1e-3 }\n"
    )
    (tmp_path / "crossed.toml").write_text(crossed)
    config = read_config(tmp_path / "crossed.toml", {"factors": FactorialConfig})
    assert config.settings()["planned", "low"].plan == BlockChoices(blocks=BLOCKS)
