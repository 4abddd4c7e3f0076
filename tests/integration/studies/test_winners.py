"""The study of |C|: regrets are those of the estimators themselves, a training is shown and not disturbed, it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.cli import refused
from support.paths import ROOT
from support.runs import TASK, same_weights, tiny
from support.runs_study import Colours
from torch import nn
from transformers import PreTrainedTokenizerBase

from wtacrs.estimators import InputError, make
from wtacrs.integration.cli import main
from wtacrs.integration.studies import winners as module
from wtacrs.integration.studies.capture import capture_task
from wtacrs.integration.studies.experiment import ExperimentConfig
from wtacrs.integration.studies.experiment_config import read_config
from wtacrs.integration.studies.winners import rule_names, winners_study, winners_subjects
from wtacrs.integration.training.before_capture import train_for_capture, train_through
from wtacrs.validation.layers.scores import layer_scores
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.winners import OPTIMAL, PAPER, WinnersResult
from wtacrs.validation.runner import Runner
from wtacrs.validation.summaries.winners import grouped, rule_label, winner_cases

SETTINGS = {"lr": 3e-3, "batch_size": 8, "max_length": 24}
STUDY = {**SETTINGS, "times": (0, 2), "age": 1, "budgets": (0.2, 0.4), "fractions": (0.0, 0.5)}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[WinnersResult, Path]:
    out = tmp_path_factory.mktemp("winners")
    return winners_study([Colours()], out, **STUDY, seeds=2), out


def test_it_holds_every_state_and_kind_of_scores(study: tuple[WinnersResult, Path]) -> None:
    result, out = study
    assert load_result(out / "winners.json") == result
    assert (out / "winners.json").read_text().count("\n") == 1  # thousands of numbers in one line
    assert (out / "winners.png").exists()
    assert list(result.rules) == ['"paper"', '"optimal"', "0.0", "0.5"]
    assert [(state.seed, state.step) for state in result.states] == [(0, 0), (0, 2), (1, 0), (1, 2)]
    for state in result.states:
        kinds = ["oracle", "row-norms", *(["stale"] if state.step else [])]
        assert [(c.scores, c.budget) for c in state.choices] == [(k, b) for k in kinds for b in (0.2, 0.4)]
        assert min(state.rows) >= result.min_rows
        for choice in state.choices:
            assert list(choice.regrets) == list(result.rules)
            assert all(value >= 1 for values in choice.regrets.values() for value in values)


def test_regrets_are_those_of_the_estimators(study: tuple[WinnersResult, Path], tmp_path: Path) -> None:
    result, _ = study
    model, tokenizer = Colours().open(TASK, 0)
    sizes = {"batch_size": 8, "max_length": 24}
    captures = capture_task(model, tokenizer, TASK, tmp_path / "c.safetensors", batches=1, **sizes, seed=0)
    first = result.states[0]
    assert len(first.layers) >= 8
    for layer in (first.layers[0], first.layers[-1]):
        place = first.layers.index(layer)
        found = captures[f"{layer}#0"]
        x, dy = found.x[found.mask], found.dy[found.mask]
        assert first.rows[place] == x.shape[0] < found.x.shape[0]  # some of it is padding
        for choice in first.choices:
            scores = layer_scores(choice.scores, x, dy)

            def variance(winners, choice=choice, x=x, dy=dy, scores=scores) -> float:
                return float(make("wta_crs", budget=choice.budget, winners=winners).variance(x, dy, scores=scores))

            k = int(choice.budget * x.shape[0])
            least = min(variance(c) for c in range(k))
            assert variance(choice.best[place]) == pytest.approx(least, rel=1e-9)
            for rule, winners in zip(result.rules, ("paper", "optimal", 0, 0.5), strict=True):
                assert choice.regrets[rule][place] == pytest.approx(variance(winners) / least, rel=6e-3)


def test_a_stopped_study_goes_on(
    study: tuple[WinnersResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, trained = module.training_states, []

    def stops_once(subject, seed, settings):
        trained.append(seed)
        if trained == [0, 1]:
            raise InputError("stopped")
        return real(subject, seed, settings)

    monkeypatch.setattr(module, "training_states", stops_once)
    arguments = {**STUDY, "seeds": 2, "runner": Runner(folder=tmp_path)}
    with pytest.raises(InputError, match="1 of 2 pieces are done and kept"):
        winners_study([Colours()], tmp_path, **arguments)
    assert winners_study([Colours()], tmp_path, **arguments) == study[0]
    assert trained == [0, 1, 1]


def test_a_training_is_shown_and_not_disturbed(tokenizer: PreTrainedTokenizerBase) -> None:
    shown: dict[int, tuple[nn.Module, nn.Module | None]] = {}

    def visit(step: int, now: nn.Module, earlier: nn.Module | None) -> None:
        torch.manual_seed(9)
        shown[step] = now, earlier

    model, alone, start = (tiny(tokenizer, dropout=0.1) for _ in range(3))
    train_through(model, tokenizer, TASK, times=[0, 1, 3, 5], age=2, visit=visit, **SETTINGS)
    earlier = train_for_capture(alone, tokenizer, TASK, steps=5, age=2, **SETTINGS)
    assert same_weights(model, alone)
    assert list(shown) == [0, 1, 3, 5]
    assert same_weights(shown[0][0], start)
    assert (shown[0][1], shown[1][1]) == (None, None)
    assert same_weights(shown[3][1], shown[1][0])
    assert same_weights(shown[5][1], shown[3][0])
    assert same_weights(shown[5][1], earlier)
    assert same_weights(shown[5][0], model)
    train_through(start, tokenizer, TASK, times=[0], age=2, visit=visit, **SETTINGS)
    assert same_weights(shown[0][0], start)


def test_one_result_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    rows = [
        f"the {w} ball lies here\tit is {w}\t{('not_', '')[i % 2]}entailment" for i, w in enumerate("abcdefghijkl")
    ]
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
    out = tmp_path / "out"
    models = ["--model", "new:gpt2", "--model", "new:t5"]
    sizes = ["--batch-size", "4", "--max-length", "12", "--min-rows", "30", "--seeds", "1"]
    times = ["--after", "0", "--after", "1", "--age", "1", "--budget", "0.3", "--fraction", "0.5"]
    task = ["--task", "rte", "--data", str(folder.parent)]
    assert main(["study", "winners", *models, *task, *times, *sizes, "--out", str(out)]) == 0
    result = load_result(out / "winners.json")
    assert isinstance(result, WinnersResult)
    assert {state.model for state in result.states} == {"small new gpt2", "small new T5"}
    told = " ".join(capsys.readouterr().out.split())
    assert "With the scores oracle: take " in told
    assert not (out / ".parts").exists()


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, named in {
        ("--after", 3, "--after", 1): "after=[3, 1]",
        ("--after", 3, "--after", 3): "after=[3, 3]",
        ("--fraction", 1): "fractions=[1.0]",
        ("--budget", 0.1, "--budget", 0.1): "budgets=[0.1, 0.1]",
        ("--budget", 2.0): "budget",
        ("--model", "new:bert", "--model", "new:bert"): "model=new:bert, new:bert",
        ("--model", "new:t5", "--model", "new:brt"): "did you mean new:bert",
        ("--model", "new:bert", "--batch-size", 10**6): "batches=1 of batch_size=1000000",
    }.items():
        assert named in refused(capsys, "study", "winners", *options, "--out", tmp_path / "out")
    with pytest.raises(InputError, match="age=0"):
        winners_study([Colours()], age=0)
    with pytest.raises(InputError, match="min_rows=100000: no layer"):
        winners_study([Colours()], **{**STUDY, "times": (0,)}, min_rows=100_000, seeds=1)


def test_defaults_depend_on_the_data() -> None:
    assert {subject.task for subject in winners_subjects()} == {"docstrings"}
    subjects = winners_subjects(data=Path("glue"))
    assert [subject.task for subject in subjects[:3]] == ["sst2", "mrpc", "rte"]
    assert len(subjects) == 18
    assert subjects[0].model is None  # the small new T5
    own = winners_subjects(["folder", "new:opt"], ["sst2"], tokenizer="vocabulary")
    assert [subject.tokenizer for subject in own] == [None, "vocabulary"]


def test_the_comparison_in_training_has_rules_of_the_study() -> None:
    path = ROOT / "integration" / "experiments" / "winners-minilm-sst2.toml"
    config = read_config(path, {"methods": ExperimentConfig})
    found = [make(one.estimator) for one in config.settings().values() if one.estimator is not None]
    assert [one.winners for one in found] == ["paper", "optimal", 0, 0.5]
    assert {one.budget for one in found} == {0.1}


def test_rules_are_told_in_words() -> None:
    assert list(map(rule_label, rule_names([0.0, 0.9]))) == [
        "the paper's rule", "the optimal rule", "|C| = 0", "|C| = 0.9 k",
    ]  # fmt: skip


def test_the_committed_result_recommends_what_is_told() -> None:
    path = ROOT / "figures" / "gallery" / "winners.json"
    result = load_result(path)
    assert isinstance(result, WinnersResult)
    assert path.stat().st_size < 500_000
    cases = winner_cases(result)
    assert (len(cases.levels("model")), cases.levels("task"), result.cases) == (6, ["sst2", "mrpc", "rte"], 7584)
    found = {kind: some.recommended for kind, some in grouped(cases, "scores")}
    assert cases.recommended.rule == found["oracle"].rule == found["stale"].rule == OPTIMAL
    assert found["row-norms"].rule == "0.25"
    assert round(cases.recommended.quantile, 2) == 1.33
    assert round(cases.summaries[PAPER].quantile, 2) == 1.72
