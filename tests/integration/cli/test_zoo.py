"""`wtacrs zoo`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import refused

from wtacrs.estimators import Published, available, lookup
from wtacrs.integration.cli import main


def test_zoo_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    assert "winner-take-all" in " ".join(capsys.readouterr().out.split())
    assert main(["zoo", "crs"]) == 0
    assert "Var Ĝ = " in capsys.readouterr().out


def test_zoo_says_whether_the_published_form_is_unbiased(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "crs"]) == main(["zoo", "fp8"]) == main(["zoo", "topk"]) == 0
    told = capsys.readouterr().out
    assert "As published: unbiased, Drineas, Kannan & Mahoney 2006. Here: unbiased." in told
    assert "As published: biased, Micikevicius et al. 2022, arXiv 2209.05433. Here: unbiased (" in told
    assert "As published: biased, Adelman et al. 2021, arXiv 1805.08079. Here: biased." in told
    assert main(["zoo"]) == 0
    listed = "".join(capsys.readouterr().out.split())
    assert "aspublished" in listed.lower()
    assert "notpublished:" in listed


@pytest.mark.parametrize("name", available())
def test_every_estimator_names_its_source(name: str) -> None:
    published = vars(lookup(name)).get("published")  # of its own: a parent's would be another method's
    assert isinstance(published, Published)
    assert published.source
    assert (published.unbiased is None) == published.source.startswith("this project")
    corrected = published.unbiased is False and lookup(name).traits.unbiased
    assert not corrected or published.note, "say what makes the form here unbiased"


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["zoo", "wta"], "did you mean wta_crs"),
        (["zoo", "--loud"], "--loud"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment.format(**places) in refused(capsys, *(text.format(**places) for text in arguments))
