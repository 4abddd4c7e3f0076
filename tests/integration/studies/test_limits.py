"""The limit of memory reduction: closed forms beside simulated steps, the largest batch, and one result."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused
from transformers import T5Config

from wtacrs.estimators import InputError
from wtacrs.integration.cli import main
from wtacrs.integration.studies import limits as module
from wtacrs.integration.studies.limits import largest_batch, limit_curve, limits_study, t5_step
from wtacrs.validation.records.limits import LimitsResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.theory.step_bytes import WAYS, step_bytes

FRONT = Path(__file__).parents[3] / "figures" / "gallery" / "front.json"
SHAPE = {"batch_size": 4, "length": 32, "target_length": 16}


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    T5Config(
        d_model=64, d_ff=256, num_layers=2, num_heads=2, d_kv=32, vocab_size=500, decoder_start_token_id=0
    ).save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny" / "config.json")


def test_one_result_from_a_model_of_ones_own(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAYS", ("stock", "sampled"))
    out = tmp_path / "out"
    sizes = ["--batch-size", "4", "--length", "32", "--target-length", "16", "--memory", "50MB"]
    models = ["--model", tiny, "--base", tiny]
    arguments = ["study", "limits", *models, *sizes, "--times", str(FRONT), "--out", str(out)]
    assert main(arguments) == 0
    result = load_result(out / "limits.json")
    assert isinstance(result, LimitsResult)
    assert [check.way for check in result.checks] == ["stock", "sampled"]
    for check in result.checks:
        assert check.kept_ratio == pytest.approx(1.0, abs=0.01)
        assert check.peak_ratio == pytest.approx(1.0, abs=0.12)  # a model so small is mostly temporary
    assert {curve.grows for curve in result.curves} == {"batch", "width", "depth", "length"}
    stock, sampled = result.batches
    assert sampled.batch > stock.batch > 0
    assert stock.throughput == 1.0
    assert sampled.throughput == pytest.approx(sampled.amortised / sampled.time)
    assert (out / "limits.png").exists()
    assert "Largest batch" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory", [2_000_000, 3_000_000, 10**8, 10**10])
def test_the_largest_batch_fits_and_one_more_does_not(way, memory: int, tiny: str) -> None:
    step = t5_step(tiny, **SHAPE)
    batch = largest_batch(step, way, memory, 0.1)

    def peak(size: int) -> float:
        return step_bytes(step.but(batch_size=size), way, rows=0.1).peak

    assert batch == 0 or peak(batch) <= memory
    assert peak(batch + 1) > memory


def test_a_curve_comes_to_its_limit(tiny: str) -> None:
    step = t5_step(tiny, **SHAPE)
    for way in WAYS[1:]:
        wide, batch = (limit_curve(step, grows, way, 0.1) for grows in ("width", "batch"))
        assert wide.limit == pytest.approx(1.0, abs=1e-3)
        assert batch.limit is not None
        assert batch.ratios[-1] == pytest.approx(batch.limit, rel=0.2)


def test_the_page_has_the_numbers_of_the_committed_result() -> None:
    root = FRONT.parents[2]
    result = load_result(root / "figures" / "gallery" / "limits.json")
    assert isinstance(result, LimitsResult)
    page = (root / "docs" / "results" / "studies.md").read_text(encoding="utf-8")
    rows = {}
    for one in result.batches:
        rows.setdefault(f"{one.model}, {one.memory // 10**9} GB", []).append(f"{one.batch:,}")
    shown = [line for line in page.splitlines() if line.startswith("| t5-")]
    assert len(shown) == 4
    for line in shown:
        name, *batches = [cell.strip() for cell in line.strip("|").split("|")]
        assert batches == rows[name]
    assert max(abs(check.peak_ratio - 1) for check in result.checks) < 0.0351
    assert max(abs(check.kept_ratio - 1) for check in result.checks) < 0.0231
    assert len(result.checks) == 7 * len({check.model for check in result.checks}) == 7 * 5
    for one in result.batches:  # and they are those of the closed form as it is
        step = t5_step(one.model, batch_size=64, length=128, target_length=128)
        assert largest_batch(step, one.way, one.memory, result.rows) == one.batch


def test_what_has_no_closed_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("bert-base", "t5-v1_1-base"):
        assert "has no closed form" in refused(capsys, "study", "limits", "--model", model, "--out", tmp_path)
    with pytest.raises(InputError, match="study front"):
        limits_study(
            tmp_path,
            models=["t5-small"],
            simulated=[],
            times=Path(__file__).parents[3] / "integration" / "experiments" / "t5-sst2.json",
        )
    assert "--memory" in refused(capsys, "study", "limits", "--memory", "much", "--out", tmp_path)
