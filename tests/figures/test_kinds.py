"""Every registered kind of result has a section, and a figure or the reason why there is none; none is forgotten."""

from __future__ import annotations

import html
from base64 import b64encode
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from readme_numbers.records import NumbersResult, NumberTable
from support.result_examples import NASTY, STAMP, every_kind

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.drawing import draw_all, draw_one
from wtacrs.figures.kinds import View, register_view, view_of, views
from wtacrs.figures.report.report import write_report
from wtacrs.figures.sections.blocks import Named
from wtacrs.validation.records import base
from wtacrs.validation.records.base import Result, register_result, result_kinds
from wtacrs.validation.records.owners import OwnerBytes
from wtacrs.validation.records.receipt import Receipt
from wtacrs.validation.records.results import load_result, write_result

NUMBERS = NumbersResult(
    stamp=STAMP,
    tables=[NumberTable(name="a-table", commands=["make demo"], head=["", "one"], rows=[["x<y", "1"]])],
)
EVERY: Mapping[str, Any] = ChainMap(every_kind(), {"numbers": NUMBERS})  # type: ignore[arg-type]  # read only


def test_no_kind_is_forgotten() -> None:
    assert set(result_kinds()) == set(views()) == set(EVERY)
    for kind, view in views().items():
        assert (view.drawings is None) == bool(view.no_figure), kind


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_comes_back_from_its_file(kind: str, tmp_path: Path) -> None:
    again = load_result(write_result(tmp_path / "a.json", EVERY[kind]))
    assert again == EVERY[kind]
    assert type(again) is result_kinds()[kind]


@pytest.mark.parametrize("kind", EVERY)
def test_every_figure_stands_in_the_section_and_is_the_same_twice(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dark pages are looked at in `test_layout`; here a picture of them is a word."""
    monkeypatch.setattr(style, "dark_png", lambda fig: b"dark")
    view, path = view_of(kind), write_result(tmp_path / "a.json", EVERY[kind])
    page = write_report(path).read_text(encoding="utf-8")
    told: list[str] = []
    written = (
        draw_all([(path, EVERY[kind])], None, None, lambda *why: told.append(str(why))) if view.drawings else []
    )
    assert not told
    assert bool(written) == (view.drawings is not None)
    assert {picture.parent for picture in written} <= {tmp_path}
    assert page.count("<img") == page.count(b64encode(b"dark").decode()) == len(written)
    assert all(b64encode(picture.read_bytes()).decode() in page for picture in written)
    monkeypatch.setattr(style, "png", lambda fig: b"not drawn")
    title = html.escape(view.section([Named("a.json", EVERY[kind])]).title)
    assert page.count(f"<h2>{title}</h2>") == 1
    assert "<table" in page.partition(f"<h2>{title}")[2]
    assert page.count("<script") == 1  # sorts tables


def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every picture the words alone: they are drawn in other tests."""
    monkeypatch.setattr(style, "png", lambda fig: b"not drawn")
    monkeypatch.setattr(style, "dark_png", lambda fig: b"not drawn")


def test_all_kinds_stand_in_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _undrawn(monkeypatch)
    for kind, result in EVERY.items():
        write_result(tmp_path / f"{kind}.json", result)
        write_result(tmp_path / f"{kind} again.json", result)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    titles = [view_of(kind).section([]).title for kind in views() if kind != "pretraining"]
    assert [page.count(f"<h2>{title}</h2>") for title in titles] == [1] * len(titles)
    assert "The folder holds no" not in page
    assert page.count("enc&lt;script&gt;&amp;&#34;q&#34;") >= 8
    assert NASTY not in page


def test_a_section_says_what_the_result_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _undrawn(monkeypatch)

    def words(kind: str) -> str:
        return " ".join(str(block) for block in view_of(kind).section([Named("a", EVERY[kind])]).blocks)

    assert "no bias: 1 of 3 claims broken at 0.01, 1 undecided".capitalize() in words("layer tests")
    assert "62.5% less in linear layers" in words("memory")
    assert "2.00 by one module each, 3.00 by several together" in words("tracked memory")
    assert "AddmmBackward0" in words("tracked memory")
    assert "from 9.100 to 4.200 nats" in words("pretraining")
    assert "within noise of exact training at budget 0.3." in words("budgets")
    assert "has 2.00× the variance of the best on b.safetensors, wta_crs" in words("transfer")
    assert "a plain product reaches fp32 40 GFLOP/s, int8 200 GFLOP/s, a copy 10.0 GB/s." in words("bench")
    assert "at most 10 s (recommended) and 3.0 GiB" in words("scale")
    assert "accuracy is 0.500 at the end, and 0.600" in words("gradient norms")
    assert "Beside exact training:" in words("experiment")


def test_owners_and_receipts_stand_in_their_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    _undrawn(monkeypatch)

    def words(kind: str, result: Result) -> str:
        return " ".join(str(block) for block in view_of(kind).section([Named("a", result)]).blocks)

    memory, training = EVERY["memory"], EVERY["training"]
    owner = OwnerBytes(
        name="b.*", types=["GELU"], operations=["GeluBackward0"], alone=6_000_000, shared=0, storages=1
    )
    step = memory.steps[0].model_copy(update={"owners": [owner]})
    assert "GeluBackward0" not in words("memory", memory)
    told = words("memory", memory.model_copy(update={"steps": [step, *memory.steps[1:]]}))
    assert "Who holds what, exact" in told
    assert "GeluBackward0" in told
    receipt = Receipt(layers=3, promised=1, inputs=10**7, copies=10**6, freed=10**7, kept=10**8, exact=2 * 10**8)
    assert "receipt" not in words("training", training)
    assert "3 layers promised" in words("training", training.model_copy(update={"receipt": receipt}))


def test_a_kind_of_ones_own_is_read_and_shown_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_KINDS", dict(result_kinds()))
    path = tmp_path / "own.json"
    path.write_text(f'{{"kind": "own", "stamp": {STAMP.model_dump_json()}, "value": 3}}')
    with pytest.raises(InputError, match=r"own\.json holds a result of kind 'own', which is not known"):
        load_result(path)

    @register_result
    class Own(Result):
        kind: Literal["own"] = "own"
        value: int

    assert load_result(path) == Own(stamp=STAMP, value=3)
    with pytest.raises(InputError, match="kind 'own' has no figures and no section"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="the kind 'own' is taken by Own"):
        register_result(Own)
    assert not (tmp_path / "report.html").exists()


def test_registrations_that_would_be_lost_are_refused() -> None:
    with pytest.raises(InputError, match="has a view already"):
        register_view("sweep", view_of("sweep"))
    with pytest.raises(InputError, match="either drawings or no_figure"):
        View(view_of("sweep").section)
    with pytest.raises(InputError, match="must say its kind"):
        register_result(Result)


def test_a_result_without_anything_to_draw_is_told(tmp_path: Path) -> None:
    empty = EVERY["memory"].model_copy(update={"steps": []})
    with pytest.raises(style.NothingToDraw):
        draw_one([(tmp_path / "a.json", empty)], tmp_path / "a.png", None, {})
