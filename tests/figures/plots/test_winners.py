"""The figure of the rules for |C|: quantiles and shares stand where they should, what is beyond the axis has an arrow."""

from __future__ import annotations

import numpy
import pytest
from support.figure_parts import legend, points, visible
from support.result_examples import every_kind

from wtacrs.figures import style
from wtacrs.figures.plots import winners as figure
from wtacrs.validation.records.winners import WinnersResult
from wtacrs.validation.summaries.winners import winner_cases


@pytest.fixture(scope="module")
def example() -> WinnersResult:
    found = every_kind()["winners"]
    assert isinstance(found, WinnersResult)
    return found


def test_a_panel_of_regrets_and_one_for_each_kind_of_scores(example: WinnersResult) -> None:
    fig = figure.build(example)
    regrets, *shares = visible(fig)
    assert [axes.get_title("left") for axes in shares] == [
        f"best |C| / k, {kind} scores" for kind in ("oracle", "row-norm", "stale")
    ]
    names = [label.get_text() for label in regrets.get_yticklabels()]
    assert names == ["the paper's rule", "the optimal rule", "|C| = 0"]
    assert {"step 0", "step 2"} <= set(legend(fig))
    cases = winner_cases(example)
    medians = {x for x, _ in points(regrets, *figure.KINDS["oracle"])}
    oracle = cases.where("scores", "oracle")
    assert medians == {one.median for one in oracle.summaries.values()}
    # infinite quantiles of the fixed |C| = 0
    assert len([line for line in regrets.get_lines() if line.get_marker() == ">"]) == 3
    assert any("beyond" in text for text in legend(fig))
    stale = shares[-1]
    numpy.testing.assert_allclose(
        sorted({x for colour in figure.TIMES for x, _ in points(stale, colour, "o")}),
        sorted({cases.where("scores", "stale").where("model", m).shares[1] for m in cases.levels("model")}),
    )


def test_nothing_to_draw(example: WinnersResult) -> None:
    with pytest.raises(style.NothingToDraw):
        figure.build(example.model_copy(update={"states": []}))
