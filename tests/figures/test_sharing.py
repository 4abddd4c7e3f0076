"""Panels that share their scales: which do, and where the numbers stand."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support import figure_examples as examples

from wtacrs.estimators import InputError
from wtacrs.figures import draw
from wtacrs.figures.sharing import share
from wtacrs.validation.records.sweep import SweepResult


def grid(rows: int, columns: int) -> list[Axes]:
    return list(Figure().subplots(rows, columns, squeeze=False).ravel())


def numbers(panels: list[Axes], axis: str) -> list[bool]:
    side = "labelbottom" if axis == "x" else "labelleft"
    return [bool(getattr(axes, f"{axis}axis").get_tick_params()[side]) for axes in panels]


def test_a_row_shares_its_own_scale_alone() -> None:
    panels = grid(2, 3)
    share(panels, 3, sharex=False, sharey="row")
    panels[0].plot([0, 1], [0, 5])
    panels[5].plot([0, 1], [0, 700])
    assert {axes.get_ylim() for axes in panels[:3]} == {panels[0].get_ylim()}
    assert {axes.get_ylim() for axes in panels[3:]} == {panels[5].get_ylim()}
    assert panels[0].get_ylim()[1] < 10 < panels[5].get_ylim()[1]
    assert numbers(panels, "y") == [True, False, False, True, False, False]
    assert panels[1].get_xlim() != panels[0].get_xlim()


def test_a_column_shares_x_and_all_share_both() -> None:
    panels = grid(2, 2)
    share(panels, 2, sharex="col", sharey=False)
    panels[0].plot([0, 9], [0, 1])
    assert panels[2].get_xlim() == panels[0].get_xlim() != panels[1].get_xlim()
    assert numbers(panels, "x") == [False, False, True, True]
    panels = grid(2, 2)
    share(panels, 2, sharex=True, sharey=True)
    panels[3].plot([0, 9], [0, 4])
    assert {(axes.get_xlim(), axes.get_ylim()) for axes in panels} == {
        (panels[3].get_xlim(), panels[3].get_ylim())
    }


def test_numbers_stay_where_no_neighbour_says_them() -> None:
    """Two panels that are counted as a row, and lie below each other."""
    panels = grid(2, 1)
    share(panels, 2, sharex=False, sharey="row")
    assert numbers(panels, "y") == [True, True]


def test_numbers_stay_where_another_panel_lies_between() -> None:
    panels = grid(4, 1)
    share(panels, 2, sharex="col", sharey=False)
    assert numbers(panels, "x") == [True] * 4
    panels = grid(4, 1)
    share(panels, 1, sharex="col", sharey=False)
    assert numbers(panels, "x") == [False, False, False, True]


def test_axes_that_share_with_others_are_refused() -> None:
    one, other, third = grid(1, 3)
    other.sharey(third)
    with pytest.raises(InputError, match="share their y axis"):
        share([one, other], 2, sharex=False, sharey=True)
    share([other, third], 2, sharex=False, sharey=True)


@pytest.fixture(scope="module")
def sweeps() -> SweepResult:
    found = [
        examples.winner_sweep(layer, seed, kind, captures)
        for seed, (layer, captures) in enumerate((("a", "m"), ("b", "o")))
        for kind in ("oracle", "row-norms")
    ]
    return examples.sweep(()).model_copy(update={"sweeps": found})


def test_a_figure_in_given_axes_has_the_scales_of_its_own(sweeps: SweepResult) -> None:
    mine = Figure()
    panels = list(mine.subplots(2, 2).ravel())
    draw(sweeps, "winner_regret", ax=panels)
    own = draw(sweeps, "winner_regret").axes
    for got, wanted in zip(panels, own, strict=True):
        assert got.get_ylim() == pytest.approx(wanted.get_ylim())
        assert got.get_xlim() == pytest.approx(wanted.get_xlim())
        assert [list(line.get_xdata()) for line in got.lines] == [list(line.get_xdata()) for line in wanted.lines]
    assert panels[0].get_ylim() == panels[1].get_ylim() != panels[2].get_ylim()
    assert numbers(panels, "x") == [False, False, True, True]
    with pytest.raises(InputError, match="3 axes are given, and the figure has 4 panels"):
        draw(sweeps, "winner_regret", ax=panels[:3])
    with pytest.raises(InputError, match="5 axes are given, and the figure has 4 panels"):
        draw(sweeps, "winner_regret", ax=[*panels, Figure().subplots()])
