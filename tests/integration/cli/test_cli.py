"""The command line as a stranger meets it: help, results on disk, one line and exit code 2 for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer

from wtacrs.integration.cli import main
from wtacrs.integration.cli.app import _GO_ON, app
from wtacrs.integration.studies.sweep import capture_names
from wtacrs.validation.layers.captures import LayerCapture, StoredCapture, load_captures, write_captures
from wtacrs.validation.problems import make_problem
from wtacrs.validation.records.check import CheckResult
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.records.noise import NoiseResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.records.theory import Claim, TheoryResult
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.records.transfer import TransferResult
from wtacrs.validation.theory.claims import CLAIMS

COMMANDS = (
    "demo",
    "zoo",
    "capture",
    "compare",
    "sweep",
    "noise",
    "test",
    "check",
    "theory",
    "finetune",
    "layers",
    "memory",
    "study",
    "experiment",
    "pretrain",
    "draw",
)


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for name in ("block.0.wi#0", "block.0.wo#0", "block.1.wi#0"):
        problem = make_problem("heavy_tailed", 40, 6, 5, generator=generator, dtype=torch.float32)
        mask = torch.arange(40) < 36
        layers[name] = LayerCapture(problem.x, problem.dy * mask.unsqueeze(1), mask)
    zero = LayerCapture(torch.ones(4, 2), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
    return write_captures(
        tmp_path_factory.mktemp("cli") / "c.safetensors", {**layers, "dead#0": zero}, {"model": "m"}
    )


def in_memory(stored: StoredCapture) -> LayerCapture:
    return LayerCapture(stored.x, stored.dy, stored.mask)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run what must be refused; its one line."""
    code = main([str(argument) for argument in arguments])
    streams = capsys.readouterr()
    assert code == 2, streams
    assert streams.err.startswith("error: ")
    assert streams.err.count("\n") == 1
    assert "Traceback" not in streams.out + streams.err
    return streams.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") > 5
    assert "Usage" in text


@pytest.mark.parametrize("command", ["norms", "budgets", "transfer"])
def test_every_study_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", command, "--help"]) == 0
    assert f"study {command} [OPTIONS]" in " ".join(capsys.readouterr().out.split())


def test_study_transfer_of_two_files(captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(captures.read_bytes())
    arguments = ["study", "transfer", captures, other, "--estimator", "crs", "--estimator", "uniform"]
    assert main([str(a) for a in [*arguments, "--budget", "0.2", "--out", tmp_path / "out"]]) == 0
    result = load_result(tmp_path / "out" / "transfer.json")
    assert isinstance(result, TransferResult)
    assert {(pair.tau, pair.regret) for pair in result.pairs} == {(1.0, 1.0)}
    shown = capsys.readouterr().out
    assert "transfer.png" in shown
    assert "skipped" in shown


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_without_arguments_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "finetune" in capsys.readouterr().out


def test_zoo_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    assert "winner-take-all" in " ".join(capsys.readouterr().out.split())
    assert main(["zoo", "crs"]) == 0
    assert "Var Ĝ = " in capsys.readouterr().out


def test_compare_writes_its_result_and_figures(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    specs = ["--estimator", "crs", "--estimator", "wta_crs(budget=0.5)", "--budget", "0.2", "--budget", "8"]
    assert main(["compare", str(captures), *specs, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "skipped" in shown
    assert "dead#0" in shown
    result = load_result(out / "comparison.json")
    assert isinstance(result, ComparisonResult)
    assert {row.estimator for row in result.rows} == {
        "crs(budget=0.2)",
        "crs(budget=8)",
        'wta_crs(budget=0.5, winners="paper")',
    }
    assert len(result.rows) == 3 * 3 * 2
    for name in ("variance_budget.png", "variance_bytes.png", "variance_macs.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again"
    assert main(["compare", str(captures), *specs, "--out", str(again)]) == 0
    assert (again / "comparison.json").read_bytes() == (out / "comparison.json").read_bytes()


def test_sweep_writes_its_result_and_figure(captures: Path, tmp_path: Path) -> None:
    assert main(["sweep", str(captures), "--layers", "*.wi", "--scores", "both", "--out", str(tmp_path)]) == 0
    result = load_result(tmp_path / "sweep.json")
    assert isinstance(result, SweepResult)
    assert [(s.captures, s.layer, s.scores, s.budget) for s in result.sweeps] == [
        ("m", layer, scores, budget)
        for layer in ("block.0.wi#0", "block.1.wi#0")
        for scores in ("oracle", "row-norms")
        for budget in (0.1, 0.3, 0.5)
    ]
    assert (tmp_path / "winner_sweep.png").exists()
    assert (tmp_path / "winner_regret.png").exists()


def test_sweep_of_several_files_and_budgets_answers_which(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = load_captures(captures)
    later = tmp_path / "later.safetensors"
    write_captures(later, {e: in_memory(stored[e]) for e in stored}, {"model": "/home/of/m", "step": 200})
    arguments = ["sweep", str(captures), str(later), "--budget", "0.2", "--budget", "7", "--out", str(tmp_path)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Which |C|, oracle? That of the" in shown
    result = load_result(tmp_path / "sweep.json")
    assert isinstance(result, SweepResult)
    assert list(dict.fromkeys(s.captures for s in result.sweeps)) == ["m", "of/m, step 200"]
    assert [s.budget for s in result.sweeps] == [0.2, 7] * 6
    assert set(result.stamp.inputs) == {"budget", "m", "of/m, step 200"}
    assert main([*arguments, "--no-products"]) == 0
    assert "Which |C|, oracle? Not known" in capsys.readouterr().out
    assert not (tmp_path / "winner_regret.png").exists()
    bounds = load_result(tmp_path / "sweep.json")
    assert isinstance(bounds, SweepResult)
    assert {(s.products, s.best) for s in bounds.sweeps} == {(False, None)}


def test_a_pattern_of_a_sweep_must_fit_some_file(
    captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Architectures name their layers differently."""
    stored = load_captures(captures)
    other = write_captures(
        tmp_path / "o.safetensors", {"h.0.fc1#0": in_memory(stored["block.0.wi#0"])}, {"model": "o"}
    )
    out = tmp_path / "out"
    common = ["sweep", str(captures), str(other), "--budget", "0.2", "--out", str(out)]

    def swept(*patterns: str) -> list[tuple[str, str]]:
        assert main([*common, *(part for pattern in patterns for part in ("--layers", pattern))]) == 0
        result = load_result(out / "sweep.json")
        assert isinstance(result, SweepResult)
        return [(s.captures, s.layer) for s in result.sweeps]

    assert swept("*fc1") == [("o", "h.0.fc1#0")]
    assert swept("*fc1", "*.wo") == [("m", "block.0.wo#0"), ("o", "h.0.fc1#0")]
    capsys.readouterr()
    message = refused(capsys, *common, "--layers", "*fc1", "--layers", "*.nope")
    assert "layers='*.nope' fits none of the 5 captured layers: c.safetensors: " in message
    assert "; o.safetensors: h.0.fc1" in message


@pytest.mark.parametrize(("command", "kept"), [("sweep", True), ("theory", False)])
def test_ctrl_c_says_what_has_become_of_the_work(
    command: str,
    kept: bool,
    captures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"wtacrs.integration.{command}_study.{command}_study", stop)
    files = [str(captures)] if command == "sweep" else []
    assert main([command, *files, "--out", str(tmp_path)]) == 130
    goes_on = "; what is done is kept: the same command goes on" if kept else ""
    assert capsys.readouterr().err == f"interrupted{goes_on}\n"


def test_what_runs_piece_by_piece_goes_on_after_ctrl_c() -> None:
    commands = typer.main.get_command(app).commands
    in_pieces = {name for name, command in commands.items() if "jobs" in {p.name for p in command.params}}
    assert in_pieces == set(_GO_ON) - {"study", "experiment"}  # these go on by states of training


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers on three batches, one of them called twice, and one that never has a gradient."""
    generator = torch.Generator().manual_seed(1)
    layers = {}
    for b in range(3):
        for name in (f"wi#{b}", f"wo#{b}", f"wo@1#{b}"):
            problem = make_problem("heavy_tailed", 20, 4, 3, generator=generator, dtype=torch.float32)
            layers[name] = LayerCapture(problem.x, problem.dy, torch.ones(20, dtype=torch.bool))
        layers[f"dead#{b}"] = LayerCapture(torch.ones(4, 2), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
    return write_captures(tmp_path_factory.mktemp("noise") / "b.safetensors", layers, {"model": "m"})


def test_noise_writes_its_result_figure_and_verdicts(
    batches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["noise", str(batches), "--estimator", "wta_crs", "--estimator", "priority(budget=4)"]
    arguments += ["--budget", "0.2", "--budget", "6", "--draws", "5", "--seed", "3"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "skipped layer 'dead': the gradient is zero in all 3 batches" in shown
    assert shown.count("to the gradient noise you already have; equivalent to") == 6
    result = load_result(tmp_path / "a" / "noise.json")
    assert isinstance(result, NoiseResult)
    assert [(m.estimator, m.scores, m.method) for m in result.models] == [
        (spec, scores, method)
        for spec, method in (
            ('wta_crs(budget=0.2, winners="paper")', "closed form"),
            ('wta_crs(budget=6, winners="paper")', "closed form"),
            ("priority(budget=4)", "monte carlo"),
        )
        for scores in ("oracle", "row-norms")
    ]
    assert {(m.layers, m.batches) for m in result.models} == {(2, 3)}
    assert [m.row_fraction for m in result.models] == [0.2, 0.2, 0.3, 0.3, 0.2, 0.2]
    assert {row.layer for row in result.layers} == {"wi", "wo"}
    assert (tmp_path / "a" / "noise.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--layers", "w[io]", "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "noise.json").read_bytes() == (tmp_path / "a" / "noise.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--layers", "*.nope"], "fits none of the 3 captured layers"),
        (["--layers", "dead"], "no chosen layer has a gradient that differs"),
        (["--draws", "2"], "--draws"),
        (["--estimator", "wta_csr"], "did you mean wta_crs"),
        (["--budget", "0.0"], "budget=0.0 must be"),
        (["--scores", "none"], "must be one of oracle, row-norms, stale, both, all"),
        (["--out", "{text}/below"], "{text}"),
    ],
)
def test_bad_input_of_noise_is_one_line(
    arguments: list[str], fragment: str, batches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a file")
    told = refused(capsys, "noise", batches, "--out", tmp_path / "o", *(a.format(text=text) for a in arguments))
    assert fragment.format(text=text) in told


def test_files_of_one_model_are_told_apart_by_name(captures: Path, tmp_path: Path) -> None:
    stored = load_captures(captures)
    copies = [tmp_path / "a" / "c.safetensors", tmp_path / "b" / "c.safetensors", tmp_path / "a" / "d.safetensors"]
    for path in copies:
        write_captures(path, {"x#0": in_memory(stored["block.0.wi#0"])}, {"model": "m"})
    names = capture_names([load_captures(path) for path in copies])
    assert len(set(names)) == 3
    assert names[2] == "m (d.safetensors)"


@pytest.mark.usefixtures("unchecked")
def test_check_judges(captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "check",
        "crs(budget=0.3)",
        "--captures",
        str(captures),
        "--layers",
        "*.wi",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    result = load_result(tmp_path / "check-crs.json")
    assert isinstance(result, CheckResult)
    assert result.passed
    assert [v.status for v in result.verdicts if v.name.startswith("mean on")] == ["pass", "pass"]
    assert "pass" in capsys.readouterr().out


@pytest.mark.usefixtures("unchecked")
def test_check_of_a_broken_estimator_exits_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from wtacrs.estimators.rows.crs import CRS

    honest = CRS.plan
    monkeypatch.setattr(
        CRS, "plan", lambda self, s, u: honest(self, s, u)._replace(weights=2 * s.new_ones(len(u)))
    )
    assert main(["check", "crs(budget=0.3)"]) == 1


@pytest.mark.usefixtures("unchecked")
def test_theory_writes_its_result_and_a_figure_per_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = {name: CLAIMS[name] for name in ("poisson", "topk")}
    monkeypatch.setattr("wtacrs.validation.theory.claims.CLAIMS", cheap)
    assert main(["theory", "--out", str(tmp_path), "--seed", "3"]) == 0
    result = load_result(tmp_path / "theory.json")
    assert isinstance(result, TheoryResult)
    assert (result.stamp.seed, [claim.name for claim in result.claims]) == (3, list(cheap))
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["theory_poisson.png", "theory_topk.png"]
    shown = capsys.readouterr().out
    assert shown.count("false, by counter-example") == 2
    assert "theory_topk.png" in shown


@pytest.mark.usefixtures("unchecked")
def test_theory_exits_with_one_if_a_claim_is_not_borne_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overturned(generator: torch.Generator) -> Claim:
        claim = CLAIMS["poisson"](generator)
        return claim.model_copy(update={"series": [s.model_copy(update={"y": s.y[::-1]}) for s in claim.series]})

    monkeypatch.setattr("wtacrs.validation.theory.claims.CLAIMS", {"poisson": overturned})
    assert main(["theory", "--out", str(tmp_path)]) == 1
    assert "not borne out" in capsys.readouterr().out


def test_finetune_trains_refuses_to_overwrite_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "SST-2"
    task.mkdir()
    rows = [f"{'good' if i % 2 else 'bad'} film number {i}\t{i % 2}" for i in range(24)]
    for name in ("train", "dev"):
        (task / f"{name}.tsv").write_text("\n".join(["sentence1\tlabel", *rows]) + "\n")
    out = tmp_path / "run"
    arguments = ["finetune", "--task", "sst2", "--data", tmp_path, "--out", out, "--steps", 3, "--batch-size", 8]
    assert main([str(a) for a in arguments]) == 0
    result = load_result(out / "result.json")
    assert isinstance(result, TrainingResult)
    assert result.estimator == 'wta_crs(budget=0.3, winners="paper")'
    assert (result.train_size, result.dev_size, result.majority) == (24, 24, 0.5)
    assert result.history[-1].step == 3
    assert len((out / "metrics.jsonl").read_text().splitlines()) == len(result.history)
    assert json.loads((out / "best" / "config.json").read_text())["architectures"] == [
        "T5ForConditionalGeneration"
    ]
    capsys.readouterr()
    assert "holds a run already" in refused(capsys, *arguments)
    assert load_result(out / "result.json") == result
    assert "batch_size" in refused(capsys, *arguments[:-1], 4, "--resume")
    assert main([str(a) for a in [*arguments, "--overwrite"]]) == 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["bogus"], "No such command 'bogus'"),
        (["zoo", "wta"], "did you mean wta_crs"),
        (["zoo", "--loud"], "--loud"),
        (["compare"], "CAPTURES"),
        (["compare", "missing.safetensors"], "no such file"),
        (["compare", "{captures}", "--budget", "most"], "'most' must be a fraction"),
        (["compare", "{captures}", "--budget", "1.5"], "budget=1.5 must be"),
        (["compare", "{captures}", "--budget", "0"], "budget=0 must be"),
        (["compare", "{captures}", "--estimator", "wta_csr"], "did you mean wta_crs"),
        (["compare", "{captures}", "--layers", "*.nope"], "fits none of the 4 captured layers"),
        (["compare", "{captures}", "--layers", "dead"], "no chosen layer has a product other than zero"),
        (["compare", "{captures}", "--scores", "best"], "must be one of oracle, row-norms, stale, both, all"),
        (["compare", "{captures}", "--scores", "all"], "layer 'block.0.wi#0': scores='stale' need"),
        (["sweep", "{captures}", "--scores", "stale"], "--after STEPS --age A"),
        (["capture", "--age", "3"], "needs --after"),
        (["capture", "--after", "2", "--age", "3"], "from 1 to after=2"),
        (["capture", "--model", "new:gpt"], "new:bert"),
        (["compare", "{captures}", "--draws", "1"], "--draws"),
        (["compare", "{text}"], "not a whole safetensors file"),
        (["compare", "{captures}", "--out", "{text}/below"], "{text}"),
        (["sweep", "{captures}", "--budget", "nan"], "budget=nan must be"),
        (["sweep", "missing.safetensors"], "no such file"),
        (["sweep", "{captures}", "missing.safetensors"], "no such file"),
        (["sweep", "{captures}", "{captures}"], "is named 2 times"),
        (["sweep"], "CAPTURES"),
        (["noise", "{captures}"], "`wtacrs capture --batches 8`"),
        (["noise", "missing.safetensors"], "no such file"),
        (["sweep", "{captures}", "--budget", "0.1", "--budget", "2.5"], "budget=2.5 must be"),
        (["sweep", "{captures}", "--layers", "dead"], "zero in every chosen layer"),
        (["check", "crs"], "crs needs budget"),
        (["check", "crs(budget=0.3)", "--layers", "x"], "needs --captures"),
        (["compare", "{captures}", "--estimator", "crs(budget=-1)"], "budget=-1 must be"),
        (["compare", "{captures}", "--estimator", "wta_crs(winers=3)"], "did you mean winners"),
        (["compare", "."], "is a folder"),
        (["capture", "--out", "."], "is a folder"),
        (["finetune", "--out", "{text}"], "is a file"),
        (["finetune", "--resume", "--overwrite"], "contradict"),
        (["finetune", "--model", ".", "--tokenizer", "."], "--tokenizer is for the small new T5"),
        (["check", "crs(budget=0.3)", "--level", "2"], "level"),
        (["check", "crs(budget=0.3)", "--captures", "missing"], "no such file"),
        (["capture", "--task", "ssst2"], "sst2"),
        (["capture", "--task", "sst2", "--data", "missing"], "missing"),
        (["capture", "--model", "./missing"], "./missing"),
        (["capture", "--batches", "0"], "--batches"),
        (["capture", "--batches", "100000"], "need 3200000 examples"),
        (["capture", "--layers", "nothing.*", "--batch-size", "2"], "fits none of the 23 linear layers"),
        (["finetune", "--estimator", "crs(budget=7.5)"], "budget=7.5 must be"),
        (["finetune", "--lr", "-1"], "lr=-1.0"),
        (["finetune", "--precision", "fp8"], "precision='fp8'"),
        (["finetune", "--schedule", "steep"], "schedule='steep'"),
        (["finetune", "--clip", "-1"], "clip=-1.0"),
        (["finetune", "--weight-decay", "1"], "weight_decay=1.0"),
        (["finetune", "--task", "imdb"], "imdb"),
        (["finetune", "--model", "./missing"], "./missing"),
        (["finetune", "--model", "t5-small", "--task", "docstrings"], "t5-small"),
        (["finetune", "--task", "sst2"], "--data DIR"),
        (["finetune", "--tokenizer", "./missing"], "./missing"),
        (["finetune", "--resume", "--out", "{tmp}/nothing"], "nothing"),
        (["memory", "--precision", "fp8"], "--precision 'fp8' must be fp32 or bf16"),
        (["memory", "--estimator", "wta_csr(budget=0.3)"], "did you mean wta_crs"),
        (["memory", "--out", "{text}"], "is a file"),
        (["memory", "--batch-size", "0"], "--batch-size"),
        (["memory", "--model", "new:gpt"], "new:bert"),
        (["memory", "--device", "abacus"], "--device 'abacus' cannot be used"),
        (["study", "best"], "No such command 'best'"),
        (["study", "transfer", "{captures}"], "at least two files"),
        (["study", "transfer", "{captures}", "missing.safetensors"], "no such file"),
        (["study", "transfer", "{captures}", "{captures}"], "another file is called 'c'"),
        (["study", "transfer", "{captures}", "{text}", "--scores", "best"], "--scores 'best' must be"),
        (["study", "norms", "--estimator", "exact"], "a spec such as"),
        (["study", "norms", "--layer", "x", "--train-limit", "9"], "layer='x' is no linear layer"),
        (["study", "norms", "--lr", "0"], "lr=0.0"),
        (["study", "norms", "--model", "new:gpt"], "new:bert"),
        (["study", "budgets", "--budget", "most"], "'most' must be a fraction"),
        (["study", "budgets", "--estimator", "crs(budget=3)"], "leave the budget out"),
        (["study", "budgets", "--seeds", "0"], "--seeds"),
        (["study", "budgets", "--out", "{text}"], "is a file"),
        (["test", "missing.safetensors"], "no such file"),
        (["test", "{captures}", "--draws", "3"], "--draws"),
        (["test", "{captures}", "--level", "0"], "level=0.0"),
        (["test", "{captures}", "--quantity", "bias"], "must be variance or mse"),
        (["test", "{captures}", "--against", "wta_csr"], "did you mean wta_crs"),
        (["test", "{captures}", "--layers", "dead"], "zero in every chosen layer"),
        (["test", "{captures}", "--out", "{text}/below"], "{text}"),
        (["theory", "--out", "{text}/below"], "{text}"),
        (["theory", "--seed", "-1", "--out", "{tmp}/t"], "seed=-1 must be"),
        (["theory", "--seed", "9223372036854775808", "--out", "{tmp}/t"], "seed=9223372036854775808 must be"),
        (["demo", "--seed", "x"], "--seed"),
        (["demo", "--out", "{text}/below"], "{text}"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    fragment: str,
    captures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("no tensors here")
    places = {"captures": captures, "text": text, "tmp": tmp_path}
    message = refused(capsys, *(argument.format(**places) for argument in arguments))
    assert fragment.format(**places) in message
