"""`wtacrs simulate`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.simulation import SimulationResult


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["simulate", "--model", "t5-bace"], "did you mean t5-base"),
        (["simulate", "--precision", "fp8"], "precision='fp8'"),
        (["simulate", "--max-batch", "24 apples"], "--max-batch='24 apples'"),
        (["simulate", "--estimator", "wta_csr(budget=0.3)"], "did you mean wta_crs"),
        (["simulate", "--batch-size", "0"], "--batch-size"),
        (["simulate", "--model", "t5-small", "--lora-rank", "0"], "lora_rank=0 must be"),
        (["simulate", "--out", "{text}"], "is a file"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))


def test_a_config_file_gives_steps_and_the_largest_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.GPT2Config(
        n_embd=32, n_layer=1, n_head=2, vocab_size=64, bos_token_id=1, eos_token_id=1
    ).save_pretrained(tmp_path)
    arguments = [
        "--model",
        str(tmp_path / "config.json"),
        "--length",
        "8",
        "--lean",
        "head",
        "--max-batch",
        "1300KB",
    ]
    assert main(["simulate", *arguments, "--out", str(tmp_path / "out")]) == 0
    result = load_result(tmp_path / "out" / "simulation.json")
    assert isinstance(result, SimulationResult)
    assert [step.choice.lean for step in result.steps] == [None, "head"]
    for step, found in zip(result.steps, result.largest, strict=True):
        assert step.batch_size == found.batch_size > 0
        assert step.peak <= found.budget == 1_300_000
    assert (tmp_path / "out" / "simulation.png").exists()
    assert "fits" in capsys.readouterr().out
