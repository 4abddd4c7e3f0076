"""`wtacrs theory`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.cli import refused

from wtacrs.integration.cli import main
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.theory import Claim, TheoryResult
from wtacrs.validation.theory.claims import CLAIMS


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


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["theory", "--out", "{text}/below"], "{text}"),
        (["theory", "--seed", "-1", "--out", "{tmp}/t"], "--seed=-1 must be an integer from 0 to 4294967295"),
        (["theory", "--seed", "9223372036854775808", "--out", "{tmp}/t"], "seed=9223372036854775808 must be"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
