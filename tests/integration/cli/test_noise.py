"""`wtacrs noise`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.cli import printed, refused

from wtacrs.integration import noise_study
from wtacrs.integration.cli import main
from wtacrs.integration.models.opening import Subject
from wtacrs.integration.studies import noise as noise_module
from wtacrs.validation.layers.captures import LayerCapture, opened_captures, write_captures
from wtacrs.validation.problems import make_problem
from wtacrs.validation.records.noise import NoiseResult
from wtacrs.validation.records.results import load_result


def test_noise_writes_its_result_figure_and_verdicts(
    batches: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["noise", str(batches), "--estimator", "wta_crs", "--estimator", "priority(budget=4)"]
    arguments += ["--budget", "0.2", "--budget", "6", "--draws", "5", "--seed", "3", "--min-elements", "0"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    shown = " ".join(printed(capsys).split())
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
        (["noise", "{captures}"], "`wtacrs capture --batches 8`"),
        (["noise", "missing.safetensors"], "no such file"),
        (["noise", "{batches}", "--layers", "*.nope"], "fits none of the 3 captured layers"),
        (
            ["noise", "{batches}", "--layers", "dead", "--min-elements", "0"],
            "no chosen layer has a gradient that differs",
        ),
        (["noise", "{batches}"], "min_elements=16384: all chosen layers have inputs of fewer numbers"),
        (["noise", "{batches}", "--min-elements", "-1"], "--min-elements"),
        (["noise", "{batches}", "--draws", "2"], "--draws"),
        (["noise", "{batches}", "--estimator", "wta_csr"], "did you mean wta_crs"),
        (["noise", "{batches}", "--budget", "0.0"], "budget=0.0 must be"),
        (["noise", "{batches}", "--scores", "none"], "must be one of oracle, row-norms, stale, both, all"),
        (["noise", "{batches}", "--out", "{text}/below"], "{text}"),
        (["noise", "{batches}", "--lean", "9-bit"], "'9-bit' is none of"),
        (["noise", "{batches}", "--lean", "8-bit"], "not written by `wtacrs capture`"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))


def test_layers_that_training_leaves_exact_have_no_error_in_the_model(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    layers = {}
    for batch in range(3):
        for name, n in (("large", 200), ("small", 40)):
            x, dy = make_problem("heavy_tailed", n, 100, 6, generator=generator, dtype=torch.float32)
            layers[f"{name}#{batch}"] = LayerCapture(x, dy, torch.ones(n, dtype=torch.bool))
    captures = write_captures(tmp_path / "c.safetensors", layers, {"model": "m"})
    ways = {
        least: noise_study(captures, ["crs"], [0.2], scores=["row-norms"], min_elements=least)
        for least in (0, 20_000)
    }
    every, trained = (ways[least].models[0] for least in (0, 20_000))
    assert ways[0].layers == ways[20_000].layers
    large, small = ways[0].layers
    unit = sum(large.deviations) + sum(small.deviations)
    mean = 2 / 3 / unit  # the minibatch variance has B − 1 of B = 3
    assert trained.ratio.value == pytest.approx(mean * sum(large.variances))
    assert every.ratio.value == pytest.approx(mean * (sum(large.variances) + sum(small.variances)))
    assert trained.relative == pytest.approx(sum(large.variances) / (sum(large.sizes) + sum(small.sizes)))
    assert (trained.layers, trained.exact_layers, trained.worst) == (1, 1, "large")
    assert (every.layers, every.exact_layers) == (2, 0)
    assert trained.layers_told == "one layer, 1 more exact"


def test_the_model_runs_again_on_the_batches_that_were_captured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "captures.safetensors"
    sizes = ["--batches", "3", "--batch-size", "4", "--max-length", "64", "--by-length"]
    assert main(["capture", "--model", "new:llama", *sizes, "--out", str(path)]) == 0
    captures = opened_captures(path)
    assert f"{captures.padding:.0%} of the rows are padding" in capsys.readouterr().out
    _, batches = noise_module._opened(captures, Subject(model="new:llama"))
    layer = captures.layers[0]
    for number, batch in enumerate(batches):
        torch.testing.assert_close(captures[f"{layer}#{number}"].mask, batch["attention_mask"].flatten().bool())


@pytest.mark.slow
def test_codes_beside_sampling_in_the_captured_model(tmp_path: Path) -> None:
    captured, out = tmp_path / "captures.safetensors", tmp_path / "noise"
    sizes = ["--batches", "2", "--batch-size", "4", "--max-length", "64"]
    assert main(["capture", "--model", "new:llama", *sizes, "--out", str(captured)]) == 0
    arguments = ["noise", str(captured), "--model", "new:llama", "--estimator", "wta_crs", "--budget", "0.3"]
    assert main([*arguments, "--lean", "4-bit", "--out", str(out)]) == 0
    result = load_result(out / "noise.json")
    assert isinstance(result, NoiseResult)
    ratios = {model.estimator: model.ratio.value for model in result.models if model.method == "monte carlo"}
    spec = 'wta_crs(budget=0.3, winners="paper")'
    assert ratios.keys() == {"4-bit", f"{spec} + neighbours", f"{spec} + 4-bit"}
    assert 0 < ratios["4-bit"] < 0.1 * ratios[f"{spec} + neighbours"]
