"""The figure that plots fill, at the sizes that are wanted."""

from __future__ import annotations

import matplotlib
import pytest
from matplotlib.colors import to_hex

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.contrast import LEGIBLE, contrast, ink_on, legible
from wtacrs.figures.sheet import Sheet

LONG = "A title that goes on and on about the weight gradient and what it costs to estimate it"


def built(size: tuple[float, float | None] | None, columns: int = 3, title: bool = True) -> Sheet:
    with style.wanted(size=size, title=title), style.figure(10.0, 4.0) as fig:
        for axes in fig.panels(1, columns, sharey=True):
            (line,) = axes.plot([1, 2], [1, 2], label="a label that is not short at all")
            axes.set_xlabel("an axis with a long name, in units that are named too")
        fig.heading(LONG)
        fig.key([line] * 4, ncols=4)
    return fig


def test_panels_are_set_below_each_other_where_they_would_be_too_narrow() -> None:
    def columns(fig: Sheet) -> int:
        return len({round(axes.get_position().x0, 2) for axes in fig.axes})

    assert [columns(built(size)) for size in (None, (6.75, None), (4.5, None), (3.25, None))] == [3, 3, 2, 1]
    assert built((3.25, None)).get_figheight() > 2 * built((6.75, None)).get_figheight()
    assert tuple(built((6.75, 3.0)).get_size_inches()) == (6.75, 3.0)


def test_titles_and_legends_are_broken_where_they_are_too_wide() -> None:
    assert "\n" not in built(None).get_suptitle()
    narrow = built((3.25, None))
    assert narrow.get_suptitle().count("\n") >= 1
    assert " ".join(narrow.get_suptitle().split()) == LONG
    assert narrow.legends[0]._ncols == 1  # type: ignore[attr-defined]
    assert built(None).legends[0]._ncols > 1  # type: ignore[attr-defined]


def test_letters_shrink_to_three_quarters_at_most_and_never_in_a_style_of_the_users() -> None:
    sizes = [built(size).axes[0].xaxis.label.get_fontsize() for size in (None, (9.0, None), (3.25, None))]
    assert sizes == pytest.approx([9.0, 8.1, 6.75])
    with style.wanted(size=(3.25, None), style={"axes.labelsize": 9.0}), style.figure(10.0, 4.0) as fig:
        fig.panels()[0].set_xlabel("x")
    assert fig.axes[0].xaxis.label.get_fontsize() == 9.0


def test_a_size_without_room_is_refused() -> None:
    with pytest.raises(InputError, match=r"size=3x0\.5 leaves no room for the panels"):
        built((3.0, 0.5))


def test_a_title_can_be_left_out() -> None:
    assert built(None, title=False).get_suptitle() == ""
    assert built((3.25, None), title=False).get_figheight() < built((3.25, None)).get_figheight()


def test_settings_hold_whoever_draws_and_dark_ones_too() -> None:
    fig = built(None)
    fig.darken()
    with matplotlib.rc_context({"xtick.color": "red", "font.size": 30.0}):
        fig.axes[0].set_xlim(0, 1000)  # new ticks
        fig.canvas.draw()
    label = fig.axes[0].get_xticklabels()[0]
    assert label.get_fontsize() == 8.0
    assert contrast(label.get_color(), fig.get_facecolor()) > LEGIBLE


@pytest.mark.parametrize("colour", ["#fde725", "#21918c", "#440154", "#7c7b78", "#8a8a8a", "#e69f00", "#009e73"])
def test_ink_is_legible_on_any_colour_and_any_colour_can_be_made_so(colour: str) -> None:
    assert contrast(ink_on(colour), colour) >= LEGIBLE
    assert contrast(legible(colour), "white") >= LEGIBLE
    assert contrast(legible(colour, "#171717"), "#171717") >= LEGIBLE
    assert legible(colour, ink_on(colour)) == to_hex(colour)
