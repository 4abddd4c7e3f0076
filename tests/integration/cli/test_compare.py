"""`wtacrs compare`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.records.results import load_result


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


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
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
        (["compare", "{captures}", "--draws", "1"], "--draws"),
        (["compare", "{text}"], "not a whole safetensors file"),
        (["compare", "{captures}", "--out", "{text}/below"], "{text}"),
        (["compare", "{captures}", "--estimator", "crs(budget=-1)"], "budget=-1 must be"),
        (["compare", "{captures}", "--estimator", "wta_crs(winers=3)"], "did you mean winners"),
        (["compare", "."], "is a folder"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
