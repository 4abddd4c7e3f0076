"""The pictures of the theory: every series of a claim in its colour, the verdict in the title, nothing cut off."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.image import imread
from support import figure_examples as examples

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.plots import theory as theory_figures
from wtacrs.figures.report.report import write_report
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.theory import Claim, TheoryResult
from wtacrs.validation.summaries.series import series as series_of
from wtacrs.validation.theory.claims import CLAIMS


@pytest.fixture(scope="module")
def result() -> TheoryResult:
    return examples.theory()


def of(result: TheoryResult, name: str) -> Claim:
    return next(c for c in result.claims if c.name == name)


def overturned(claim: Claim) -> Claim:
    """The same claim with numbers that do not bear it out."""
    return claim.model_copy(update={"series": [s.model_copy(update={"y": s.y[::-1]}) for s in claim.series]})


@pytest.mark.parametrize("name", CLAIMS)
def test_every_series_is_drawn_at_its_points_in_its_colour(name: str, result: TheoryResult) -> None:
    claim = of(result, name)
    fig = theory_figures.build(claim)
    lines = [line for axes in fig.axes for line in axes.get_lines()]
    for series in claim.series:
        found = [line for line in lines if line.get_label() == series.label]
        assert found
        colour = style.GREY if series.estimator is None else style.look(series.estimator).colour
        assert {line.get_color() for line in found} == {colour}
        if len(series.y) > 1 and len(set(series.y)) == 1:
            assert {line.get_ydata()[0] for line in found} == {series.y[0]}
            continue
        logarithmic = fig.axes[0].get_yscale() == "log"
        wanted = [p for p in zip(series.x, series.y, strict=True) if p[1] > 0 or not logarithmic]
        assert [(float(x), float(y)) for x, y in found[0].get_xydata()] == wanted
    assert {text.get_text() for text in fig.legends[0].get_texts()} == {s.label for s in claim.series}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claim_is_told_in_words_and_nothing_is_cut_off_or_covered(name: str, result: TheoryResult) -> None:
    claim = of(result, name)
    fig = theory_figures.build(claim)
    style.png(fig)
    statement = fig.texts[-1]
    assert " ".join(statement.get_text().split()) == " ".join(claim.statement.split())
    assert " ".join((fig.get_suptitle()).split()) == f"{theory_figures.heading(claim)}: {claim.title}"
    assert fig.axes[0].get_ylabel() == claim.y_name
    assert claim.x_name in [axes.get_xlabel() for axes in fig.axes]
    boxes = [statement.get_window_extent(), fig.legends[0].get_window_extent()]
    title = next(text for text in fig.texts if text is not statement)
    for box in (*boxes, *(axes.get_tightbbox() for axes in fig.axes)):
        assert box is not None
        assert fig.bbox.x0 <= box.x0 <= box.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= box.y0 <= box.y1 <= fig.bbox.y1
    assert title.get_window_extent().x1 <= fig.bbox.x1
    for axes in fig.axes:
        tight = axes.get_tightbbox()
        assert tight is not None
        assert not any(box.overlaps(tight) for box in boxes)


def test_the_title_says_whether_the_claim_is_true(result: TheoryResult) -> None:
    assert theory_figures.build(of(result, "take-all")).get_suptitle().startswith("True: ")
    poisson = of(result, "poisson")
    assert theory_figures.build(poisson).get_suptitle().startswith("Looks true, is false: ")
    assert theory_figures.build(overturned(poisson)).get_suptitle().startswith("Not borne out: ")


def test_clouds_have_no_line_and_a_panel_each_where_they_would_hide_each_other(result: TheoryResult) -> None:
    fig = theory_figures.build(of(result, "without-replacement"))
    assert len(fig.axes) == 3
    for axes in fig.axes:
        level, cloud = axes.get_lines()
        assert level.get_label() == "WTA-CRS"
        assert cloud.get_linestyle() == "None"
    assert len(theory_figures.build(of(result, "wta-condition")).axes) == 1


def test_series_of_one_estimator_differ_in_their_dashes(result: TheoryResult) -> None:
    lines = theory_figures.build(of(result, "any-scores")).axes[0].get_lines()
    assert lines[0].get_color() == lines[1].get_color()
    assert lines[0].is_dashed() != lines[1].is_dashed()


def test_the_designs_of_the_theory_have_one_colour_each(result: TheoryResult) -> None:
    """Within each figure: there are more designs in all figures together than colours that can be told apart."""
    for claim in result.claims:
        names = {series_of(s.estimator) for s in claim.series if s.estimator is not None}
        assert len({style.look(name).colour for name in names}) == len(names), claim.name
    assert len({series_of(s.estimator) for c in result.claims for s in c.series if s.estimator is not None}) >= 9


def test_pngs_are_valid_named_after_their_claim_and_the_same_bytes_twice(
    result: TheoryResult, tmp_path: Path
) -> None:
    few = result.model_copy(update={"claims": [of(result, "topk"), of(result, "without-replacement")]})
    first, second = theory_figures.draw(few, tmp_path / "a"), theory_figures.draw(few, tmp_path / "b")
    assert [p.name for p in first] == ["theory_topk.png", "theory_without-replacement.png"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    for path in first:
        height, width, _ = imread(path).shape
        assert (width, height) == (1260, 750)
        assert 0.001 < (imread(path)[..., :3].min(axis=2) < 0.6).mean() < 0.3


def test_claims_of_others_are_drawn_on_plain_axes(result: TheoryResult) -> None:
    other = of(result, "topk").model_copy(update={"name": "mine"})
    fig = theory_figures.build(other)
    assert (fig.axes[0].get_xscale(), fig.axes[0].get_yscale()) == ("linear", "linear")


def test_what_cannot_be_shown_is_refused(result: TheoryResult) -> None:
    with pytest.raises(InputError, match="kind 'check'"):
        theory_figures.draw(examples.check(), Path("nowhere"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="claim must be one of the claims"):
        theory_figures.build(result)  # type: ignore[arg-type]
    topk = of(result, "topk")
    lost = [s.model_copy(update={"y": [math.nan] * len(s.y)}) for s in topk.series]
    with pytest.raises(style.NothingToDraw, match="claim topk: no point"):
        theory_figures.build(topk.model_copy(update={"series": lost}))


# the report


def test_the_report_holds_every_claim_with_its_verdict_and_figure(result: TheoryResult, tmp_path: Path) -> None:
    few = [of(result, "take-all"), overturned(of(result, "poisson"))]
    whole = result.model_copy(update={"claims": few})
    write_result(tmp_path / "theory.json", whole)
    theory_figures.draw(whole, tmp_path)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<h2>What is true, and what only looks true</h2>") == 1
    assert page.count("<img") == 2  # the PNG files of the folder are these figures
    assert '<span class="good">holds</span>' in page
    assert '<span class="bad">not borne out</span>' in page
    assert "CRS is exact for equal rows" in page
    assert 'alt="True: The paper&#39;s |C| rule' in page


def test_a_folder_without_a_theory_has_no_such_section(tmp_path: Path) -> None:
    write_result(tmp_path / "check.json", examples.check())
    assert "only looks true" not in write_report(tmp_path).read_text(encoding="utf-8")
