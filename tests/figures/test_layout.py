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

SIZES = {"column": (3.25, None), "page": (6.75, None)}
# longer names and more marks than the small examples have
GALLERY = ROOT / "figures" / "gallery"
REAL = {"a front of many ways": GALLERY / "front.json", "masks of some architectures": GALLERY / "masks.json"}
EXAMPLES = [kind for kind in KINDS if view_of(kind).drawings] + list(REAL)


def result_of(name: str) -> Result:
    result = load_result(REAL[name]) if name in REAL else example(name)
    if name in REAL and isinstance(result, MasksResult):
        few = {*result.architectures[:6], "switch"}
        return result.model_copy(update={"rows": [row for row in result.rows if row.architecture in few]})
    return result


def drawings(result: Result) -> Iterator[Drawing]:
    view = view_of(result.kind)
    assert view.drawings is not None
    yield from view.drawings([result] if view.joint else result)


def told(fig: Sheet) -> list[str]:
    fig.canvas.draw()
    found = list(problems(fig))
    found += [f"light: {each}" for each in hard_to_read(fig)]
    fig.darken()
    return [*found, *(f"dark: {each}" for each in hard_to_read(fig))]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_all_can_be_seen_and_read(name: str, size: str) -> None:
    found = []
    for drawing in drawings(result_of(name)):
        with style.wanted(size=SIZES[size]):
            fig = drawing.build()
        assert fig.get_figwidth() == SIZES[size][0]
        found += [f"{drawing.name}: {each}" for each in told(fig)]
    assert not found
