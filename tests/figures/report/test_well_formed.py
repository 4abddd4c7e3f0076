"""Reports of every result in the repository: balanced, ids once, anchors that lead somewhere, texts and scopes.

What figures look like does not matter here: their pixels are left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from support import figure_examples as examples
from support.paths import ROOT
from support.result_examples import every_kind

from wtacrs.figures import style
from wtacrs.figures.kinds import view_of, views
from wtacrs.figures.report.report import write_report
from wtacrs.figures.sections.blocks import Named, Picture
from wtacrs.validation.records.results import write_result

RESULTS = sorted(
    path
    for folder in ("figures/gallery", "integration/experiments")
    for path in (ROOT / folder).glob("*.json")
    if json.loads(path.read_bytes())["kind"] != "numbers"
)
VOID = {"meta", "source", "img", "br", "wbr", "hr", "link", "input"}
BLOCKS = {"p", "table", "dl", "figure", "section", "details", "ul", "h1", "h2", "h3", "div"}


class Page(HTMLParser):
    """A page as it is read, with complaints about it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.anchors: list[str] = []
        self.complaints: list[str] = []
        self.tables = self.images = 0
        self.feed(page)
        self.complaints += [f"<{tag}> stays open" for tag in self.open]
        self.complaints += [f"id {name} is there {many} times" for name, many in self.ids.items() if many > 1]
        self.complaints += [f"#{name} leads nowhere" for name in self.anchors if name not in self.ids]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.complaints += [
            f"<{tag}> has {name} twice" for name, many in Counter(n for n, _ in attrs).items() if many > 1
        ]
        if tag in BLOCKS and "p" in self.open:
            self.complaints.append(f"<{tag}> within <p>")
        if tag not in VOID:
            self.open.append(tag)
        if given.get("id") is not None:
            self.ids[given["id"] or ""] += 1
        if tag == "a":
            self.anchors.append((given.get("href") or "").removeprefix("#"))
        if tag == "img":
            self.images += 1
            if not (given.get("alt") or "").strip():
                self.complaints.append("a picture without a text")
        if tag == "table":
            self.tables += 1
        if tag == "th" and given.get("scope") not in ("row", "col", "colgroup"):
            self.complaints.append("a head of a table without its scope")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.complaints.append(f"</{tag}> closes something else")


@pytest.fixture(scope="module", autouse=True)
def _without_pixels() -> Iterator[None]:
    """One small picture in the place of all."""
    with style.figure(1, 1) as fig:
        small = style.png(fig)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "png", lambda fig: small)
        patch.setattr(style, "dark_png", lambda fig: small)
        yield


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All results of the repository, and an example of every kind, on one page."""
    folder = tmp_path_factory.mktemp("all")
    for name, result in every_kind().items():
        write_result(folder / f"{name.replace(' ', '-')}.json", result)
    return write_report([folder, *RESULTS], folder / "page.html").read_text(encoding="utf-8")


def test_there_are_results() -> None:
    assert len(RESULTS) > 15


def test_the_page_of_every_result_is_well_formed(page: str) -> None:
    found = Page(page)
    assert found.complaints == []
    assert found.tables > 30
    assert found.images > 20
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert len(titles) == len(set(titles))
    assert "/model" not in " ".join(re.findall(r"<p>.*?</p>", page))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("<p><table></table></p>", "<table> within <p>"),
        ("<div><p></div>", "</div> closes something else"),
        ('<a href="#b" id="a"></a>', "#b leads nowhere"),
        ('<p id="a"></p><p id="a"></p>', "id a is there 2 times"),
        ('<img alt=" ">', "a picture without a text"),
        ("<table><tr><th>x</th></tr></table>", "a head of a table without its scope"),
    ],
)
def test_what_is_not_well_formed_is_found(broken: str, complaint: str) -> None:
    assert complaint in Page(broken).complaints


@pytest.mark.parametrize("kind", [kind for kind, view in views().items() if view.drawings is not None])
def test_the_text_of_a_figure_tells_its_finding(kind: str) -> None:
    """Behind the title, and with a number of the data; a figure of other data has another one."""
    pictures = [
        b for b in view_of(kind).section([Named("a", every_kind()[kind])]).blocks if isinstance(b, Picture)
    ]
    assert pictures
    for picture in pictures:
        _, _, finding = picture.alternative.partition(": ")
        assert re.search(r"\d", finding), picture.alternative
        assert len(finding) > 12, picture.alternative
    assert len({picture.alternative for picture in pictures}) == len(pictures)


def test_a_figure_of_other_data_has_another_text() -> None:
    def text(final: float) -> str:
        run = examples.training("exact").model_copy(update={"final": final})
        return next(
            b.alternative for b in view_of("training").section([Named("a", run)]).blocks if isinstance(b, Picture)
        )

    assert text(0.25) != text(0.75)
    assert "exact ends at 0.250" in text(0.25)
