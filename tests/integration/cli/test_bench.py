"""`wtacrs bench`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import printed, refused

from wtacrs.integration.cli import main
from wtacrs.integration.studies import bench as study
from wtacrs.validation.benchmarks.roofline import measure_roofs
from wtacrs.validation.records.bench import BenchResult
from wtacrs.validation.records.results import load_result


@pytest.fixture(autouse=True)
def _small_roofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        study, "measure_roofs", lambda names, device: measure_roofs(names, device, rounds=1, side=32, copied=4096)
    )


@pytest.mark.parametrize("source", [["--sizes", "64x32x16"], ["--captures", "{captures}"]])
def test_it_measures_and_says_where(
    source: list[str], places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = places["tmp"] / "out"
    given = [text.format(**places) for text in source]
    estimators = ["--estimator", "exact", "--estimator", "crs at 0.5"]
    assert main(["bench", *given, *estimators, "--rounds", "2", "--dtype", "bf16", "--out", str(out)]) == 0
    told = printed(capsys)
    assert "crs at 0.5" in told
    assert "a plain product reaches" in told
    assert f"wrote {out / 'bench.json'}" in told
    result = load_result(out / "bench.json")
    assert isinstance(result, BenchResult)
    assert result.precision == "bf16"
    assert {row.requested for row in result.rows} == {"exact", "crs at 0.5"}
    if "--captures" in source:
        assert "skipped" in told
        assert {row.layer for row in result.rows} == {"block.0.wi#0", "block.0.wo#0", "block.1.wi#0"}
    assert main(["draw", str(out / "bench.json"), str(out / "again.png")]) == 0
    assert (out / "again.png").read_bytes() == (out / "bench.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--sizes", "64x8"], "must be N x D x M"),
        (["--estimator", "wta_csr(budget=0.3)"], "did you mean wta_crs"),
        (["--estimator", "recommended"], "is made for a share of the bytes"),
        (["--estimator", "crs at lot"], "must be a share such as 0.3"),
        (["--all", "--estimator", "exact"], "--all names every estimator already"),
        (["--scores", "oracle"], "is for --estimator or --all"),
        (["--scores", "both"], "--scores 'both' must be one of oracle, row-norms, stale"),
        (["--scores", "stale", "--estimator", "crs(budget=0.3)"], "scores='stale'"),
        (["--dtype", "int4"], "precision='int4' must be one of"),
        (["--dtype", "fp16", "--step"], "is measured in fp32 or bf16"),
        (["--lean", "attention"], "is for --step"),
        (
            ["--estimator", "crs at 0.001", "--sizes", "8x4x4", "--out", "{tmp}/out"],
            "none could be measured on any problem",
        ),
        (["--min-rows", "9"], "is for --step"),
        (["--lean", "attention,attention-again", "--step"], "asks for two kinds of attention"),
        (["--device", "abacus"], "--device 'abacus' cannot be used"),
        (["--captures", "{text}"], "not a whole safetensors file"),
        (["--layers", "*.wi"], "name a captured file"),
        (["--captures", "{captures}", "--layers", "*.q"], "captured layer"),
        (["--out", "{text}"], "is a file"),
        (["--rounds", "0"], "--rounds"),
        (["--draws", "2"], "--draws"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [text.format(**places) for text in arguments]
    assert fragment in refused(capsys, "bench", *given)


def test_what_is_not_measured_is_named(places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = places["tmp"] / "out"
    given = ["--estimator", "exact", "--estimator", "crs at 0.001", "--estimator", "velora(groups=8)"]
    assert main(["bench", *given, "--sizes", "64x4x4", "--rounds", "1", "--out", str(out)]) == 0
    told = " ".join(printed(capsys).split())
    assert "skipped crs at 0.001 on 64 x 4 x 4: even its smallest size keeps more bytes" in told
    assert "on 64 x 4 x 4: velora: groups=8 must be at most the 4 features of x" in told
