"""`wtacrs plan`, and training by what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.integration.layers.planned import load_plan

SMALL = ("--max-length", "16", "--batch-size", "4", "--captured", "2", "--estimator", "wta_crs(budget=0.3)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plan")
    arguments = [
        "plan",
        "--memory",
        "1GB",
        "--lean",
        "neighbours",
        *SMALL,
        "--model",
        "new:bert",
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    return out


def test_it_writes_a_plan_and_its_front(folder: Path) -> None:
    plan = load_plan(folder / "plan.json")
    assert (folder / "plan.png").exists()
    assert [block.name for block in plan.blocks] == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert plan.peak <= plan.memory == 10**9
    assert plan.noise_ceiling == 1.0
    assert plan.costs is not None
    assert len(plan.costs.blocks[0].options) == 6
    assert [point.memory for point in plan.front] == sorted(point.memory for point in plan.front)


def test_its_costs_are_used_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = load_plan(folder / "plan.json")
    least = first.front[0].memory
    told = ["plan", "--costs", str(folder / "plan.json"), "--memory", f"{least}B", "--out", str(tmp_path)]
    assert main([*told, "--noise-ceiling", "1.0"]) == 0
    assert load_plan(tmp_path / "plan.json").peak <= least
    printed = capsys.readouterr().out
    assert "the peak is reached in" in printed
    assert "whole step" in printed
    message = refused(
        capsys, "plan", "--costs", str(folder / "plan.json"), "--memory", "1MB", "--out", str(tmp_path)
    )
    assert "no plan needs less than" in message


def test_budgets_alone_at_the_bytes_of_equal_ones(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lean and checkpointed choices of the earlier plan are left out, and no more is kept than alike."""
    told = ["plan", "--costs", str(folder / "plan.json"), "--memory", "1GB", "--time-ceiling", "10"]
    ways = ["--estimators-only", "--kept-as", "wta_crs(budget=0.3)", "--out", str(tmp_path)]
    assert main([*told, *ways]) == 0
    plan = load_plan(tmp_path / "plan.json")
    assert plan.beside is not None
    assert plan.kept_as == plan.beside.estimator == 'wta_crs(budget=0.3, winners="paper")'
    assert plan.kept <= plan.beside.kept
    assert plan.noise <= plan.beside.noise
    assert {(block.choice.lean, block.choice.checkpointed) for block in plan.blocks} == {(None, False)}
    assert [len(block.options) for block in plan.costs.blocks] == [2, 2]
    printed = " ".join(capsys.readouterr().out.split())
    assert "in all of them would keep" in printed
    assert "kept by all blocks" in printed
    refusal = refused(capsys, *told, "--kept-as", "crs(budget=0.3)", "--out", str(tmp_path))
    assert "kept_as='crs(budget=0.3)' is none of the estimators: wta_crs(budget=0.3" in refusal
    refusal = refused(capsys, *told, "--estimators-only", "--lean", "neighbours", "--out", str(tmp_path))
    assert "--estimators-only, --lean neighbours: nothing is lean then" in refusal


def test_only_estimators_are_measured_where_nothing_else_is_chosen(tmp_path: Path) -> None:
    told = ["plan", "--memory", "1GB", "--estimators-only", *SMALL, "--model", "new:bert", "--out", str(tmp_path)]
    assert main(told) == 0
    plan = load_plan(tmp_path / "plan.json")
    assert [str(option.choice) for option in plan.costs.blocks[0].options] == [
        "exact",
        'wta_crs(budget=0.3, winners="paper")',
    ]
    assert len(plan.costs.rest) == 1
    assert [one.estimator for one in plan.alike] == ['wta_crs(budget=0.3, winners="paper")']


def test_finetune_trains_by_it(folder: Path, tmp_path: Path) -> None:
    run = [
        "finetune",
        "--plan",
        str(folder / "plan.json"),
        "--model",
        "new:bert",
        "--steps",
        "1",
        "--train-limit",
        "8",
    ]
    sizes = ["--dev-limit", "4", "--max-length", "16", "--batch-size", "4", "--out", str(tmp_path / "run")]
    assert main([*run, *sizes]) == 0
    told = (tmp_path / "run" / "result.json").read_text()
    assert load_plan(folder / "plan.json").does.digest in told


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 512}
    config = transformers.BertConfig(**sizes, num_hidden_layers=2, architectures=["BertForSequenceClassification"])
    config.save_pretrained(folder := tmp_path_factory.mktemp("config"))
    return folder


def test_a_plan_without_a_step(tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [
        "plan",
        "--simulate",
        "--memory",
        "1GB",
        "--model",
        str(tiny_config),
        "--batch-size",
        "8",
        "--length",
        "64",
    ]
    ways = ["--lean", "neighbours", "--estimator", "wta_crs(budget=0.3)"]
    rates = ["--flops-per-second", "1e12", "--bytes-per-second", "1e11"]
    assert main([*told, *ways, *rates, "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no step was taken: bytes are simulated, and times are modelled" in printed
    assert "1000 GFLOP/s of matrix products and 100 GB/s of all others, as given" in printed
    plan = load_plan(tmp_path / "plan.json")
    assert plan.costs is not None
    assert (plan.costs.by, plan.precision, plan.tokens) == ("simulated", "fp32", 64)
    assert [block.name for block in plan.blocks] == [f"bert.encoder.layer.{i}" for i in range(2)]


def test_a_measured_plan_of_adapters(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    told = ["plan", "--memory", "1GB", "--lean", "neighbours", *SMALL, "--model", "new:bert", "--lora-rank", "2"]
    assert main([*told, "--captured", "0", "--precision", "bf16", "--out", str(tmp_path)]) == 0
    plan = load_plan(tmp_path / "plan.json")
    assert plan.costs is not None
    assert (plan.precision, plan.lora_rank) == ("bf16", 2)
    assert plan.costs.fixed["optimizer states"] < plan.costs.fixed["parameters"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["plan"], "--memory"),
        (["plan", "--memory", "8 apples"], "--memory='8 apples' must be a number of bytes"),
        (["plan", "--memory", "1GB", "--estimator", "wta_csr(budget=0.3)"], "did you mean wta_crs"),
        (["plan", "--memory", "1GB", "--lean", "head"], "the output layer is no block"),
        (["plan", "--memory", "1GB", "--captured", "1"], "captured=1 must be 0 or at least 2"),
        (["plan", "--memory", "1GB", "--noise-ceiling", "1", "--time-ceiling", "1"], "one of them must be given"),
        (["plan", "--memory", "1GB", "--out", "{text}"], "is a file"),
        (["plan", "--memory", "1GB", "--costs", "nowhere.json"], "result file nowhere.json: No such file"),
        (["plan", "--memory", "1GB", "--simulate"], "--simulate needs --model"),
        (["plan", "--memory", "1GB", "--simulate", "--model", "t5-bace"], "did you mean t5-base"),
        (["plan", "--memory", "1GB", "--length", "8"], "--length is for --simulate alone"),
        (["plan", "--memory", "1GB", "--simulate", "--model", "t5-base", "--costs", "x"], "one of them says"),
        (
            ["plan", "--memory", "1GB", "--simulate", "--model", "t5-base", "--flops-per-second", "1"],
            "give both, or none",
        ),
        (["plan", "--memory", "1GB", "--lora-rank", "2"], "captured=4 with lora_rank=2 must be 0"),
        (["plan", "--memory", "1GB", "--precision", "fp8"], "precision='fp8' must be"),
        (["finetune", "--plan", "nowhere.json"], "result file nowhere.json: No such file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment in refused(capsys, *(text.format(**places) for text in arguments))
