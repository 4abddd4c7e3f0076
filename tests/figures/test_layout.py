"""The layout of every figure of every kind of result, at the sizes of papers, on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.layout import hard_to_read, problems
from support.paths import ROOT
from support.result_examples import KINDS, example

from wtacrs.figures import style
from wtacrs.figures.kinds import Drawing, view_of
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.masks import MasksResult
from wtacrs.validation.records.results import load_result

PAGES = {"column": ((3.25, None), True), "page": ((6.75, None), False)}
"""Size in inches, and whether the page is dark: what lies behind a text does not depend on the size."""
# in place of the small examples: longer names and more marks
GALLERY = ROOT / "figures" / "gallery"
REAL = {
    "front": GALLERY / "front.json",
    "masks": GALLERY / "masks.json",
    "experiment": ROOT / "integration" / "experiments" / "t5-docstrings-lean.json",  # words on the band
}
KINDS_DRAWN = [kind for kind in KINDS if view_of(kind).drawings]


def result_of(kind: str) -> Result:
    result = load_result(REAL[kind]) if kind in REAL else example(kind)
    if isinstance(result, MasksResult):
        few = {*result.architectures[:6], "switch"}
        return result.model_copy(update={"rows": [row for row in result.rows if row.architecture in few]})
    return result


def drawings(result: Result) -> Iterator[Drawing]:
    view = view_of(result.kind)
    assert view.drawings is not None
    yield from view.drawings([result] if view.joint else result)


def told(fig: Sheet, dark: bool) -> list[str]:
    if dark:
        fig.darken()
    fig.canvas.draw()
    return [*problems(fig), *hard_to_read(fig)]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", KINDS_DRAWN)
def test_all_can_be_seen_and_read(kind: str, page: str) -> None:
    size, dark = PAGES[page]
    found = []
    for drawing in drawings(result_of(kind)):
        if drawing.name != "bench_step":  # a front
            with style.wanted(size=size):
                fig = drawing.build()
            assert fig.get_figwidth() == size[0]
            found += [f"{drawing.name}: {each}" for each in told(fig, dark)]
    assert not found


def test_what_is_wrong_with_a_layout_is_found() -> None:
    with style.figure(4.0, 3.0) as fig:
        (axes,) = fig.panels()
        axes.plot([1, 2], [1, 2], label="seen")
        axes.plot([50, 60], [1, 2], label="unseen")
        axes.set_xlim(0, 3)
        axes.set_xticks([1, 1.01], ["a long name", "another one"])
        axes.text(0.1, 1.5, "faint", color="#bbbbbb")
        fig.text(0.95, 0.95, "outside")
        axes.set_ylim(0, 3)
        fig.text(0.4, 0.5, "over the axes")
    found = "\n".join(told(fig, dark=False))
    for wrong in (
        "'a long name' and 'another one' overlap",
        "out of sight: unseen",
        "'faint' has contrast",
        "'outside' is cut",
        "lies on the axes",
    ):
        assert wrong in found
    assert "out of sight: seen" not in found
