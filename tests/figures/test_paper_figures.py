"""Figures for papers: text that stays text, sizes and styles of the user's, axes of their own, dark pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from support import figure_examples
from support.paths import ROOT

from wtacrs.estimators import InputError
from wtacrs.figures import draw, save
from wtacrs.figures.contrast import LEGIBLE, contrast
from wtacrs.figures.dark import dark
from wtacrs.integration.cli import main
from wtacrs.validation import load_result
from wtacrs.validation.records.base import Result

EXPERIMENT = ROOT / "integration" / "experiments" / "t5-sst2.json"


@pytest.fixture(scope="module")
def result() -> Result:
    return load_result(EXPERIMENT)


def test_text_stays_text_and_bytes_are_the_same_twice(result: Result, tmp_path: Path) -> None:
    for kind, mark in ((".pdf", b"/FontFile2"), (".svg", b"<text"), (".png", b"\x89PNG")):
        once, twice = (save(draw(result), tmp_path / f"{name}{kind}").read_bytes() for name in ("one", "two"))
        assert once == twice
        assert mark in once
    with pytest.raises(InputError, match=r"must end in \.png, \.pdf, \.svg"):
        save(draw(result), tmp_path / "figure.jpg")
    assert not (tmp_path / "figure.jpg").exists()


def test_sizes_and_styles_are_the_users(result: Result) -> None:
    figure = draw(result, size=(3.25, 2.5), style={"font.size": 5.0, "axes.labelsize": 5.0})
    assert tuple(figure.get_size_inches()) == (3.25, 2.5)
    assert figure.axes[0].xaxis.label.get_fontsize() == 5.0
    assert tuple(draw(result).get_size_inches()) != (3.25, 2.5)
    with pytest.raises(InputError, match=r"size=\(0, 2\)"):
        draw(result, size=(0, 2))
    with pytest.raises(InputError, match="style='no-such-style'"):
        draw(result, style="no-such-style")


def test_words_texts_and_dark_pages_are_taken_as_on_the_command_line(result: Result, tmp_path: Path) -> None:
    for word, width in (("column", 3.25), ("page", 6.75)):
        assert draw(result, size=word).get_size_inches()[0] == width
    saved = save(draw(result, dark=True, title=False), str(tmp_path / "dark.png"))
    assert saved.read_bytes().startswith(b"\x89PNG")
    assert sum(to_rgba(draw(result, dark=True).get_facecolor())[:3]) < 0.6
    for size in ("wide", (3.25,), (None, 2.0), ("a", 2.0), 3.25):
        with pytest.raises(InputError, match=r"must be width and height in inches .* or 'column' or 'page'"):
            draw(result, size=size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dark=True: axes that are given"):
        draw(result, ax=Figure().subplots(1, 2), dark=True)


def test_errors_speak_of_arguments_and_say_what_makes_fewer_panels() -> None:
    sweep = figure_examples.sweep()
    one = Figure().subplots()
    with pytest.raises(InputError, match=r"figure has 6 panels \(layers=\[…\], names or patterns"):
        draw(sweep, ax=one)
    assert draw(sweep, ax=one, layers=["encoder.block.0.*.q"]) is one.figure
    with pytest.raises(
        InputError, match=r"^page: no option of kind 'sweep' .*winner_sweep takes budget, relative_to"
    ):
        draw(sweep, layers=["*"], page=True)
    with pytest.raises(InputError, match=r"figure 'winner_regret' .*takes none"):
        draw(sweep, "winner_regret", layers=["*"])


def test_it_draws_into_axes_that_are_there(result: Result) -> None:
    figure = Figure()
    left, right, other = figure.subplots(1, 3)
    assert draw(result, ax=[left, right]) is figure
    assert left.lines
    assert right.lines
    assert not other.lines
    assert figure.get_suptitle() == ""
    for wrong, told in (
        (other, "one is given, and the figure has 2 panels"),
        ([left, right, other], "3 axes are given"),
    ):
        with pytest.raises(InputError, match=told):
            draw(result, ax=wrong)
    for name, value in (("size", (3.25, 2.5)), ("style", "grayscale")):
        with pytest.raises(InputError, match=f"{name}=.*axes that are given"):
            draw(result, ax=[left, right], **{name: value})
    assert not other.lines


def test_names_of_methods_and_verdicts_lie_in_the_figure(result: Result) -> None:
    figure = draw(result)
    figure.canvas.draw()
    right = figure.axes[1].get_window_extent()
    assert all(text.get_window_extent().x1 <= right.x1 for text in figure.axes[1].texts)


def test_dark_pages_have_light_text(result: Result) -> None:
    figure = draw(result)
    figure.darken()
    assert sum(to_rgba(figure.get_facecolor())[:3]) < 0.6
    assert all(sum(to_rgba(label.get_color())[:3]) > 1.8 for label in figure.axes[0].get_yticklabels())
    assert dark("white")[3] == 1.0


def test_numbers_that_show_only_later_are_dark_too(result: Result) -> None:
    """The last layout may have room for more numbers than the one before."""
    figure = draw(result)
    ticks = figure.axes[0].xaxis.get_major_ticks(30)
    figure.darken()  # type: ignore[attr-defined]
    assert {to_rgba(tick.label1.get_color()) for tick in ticks} == {to_rgba(ticks[0].label1.get_color())}
    assert contrast(ticks[-1].label1.get_color(), figure.get_facecolor()) >= LEGIBLE


def test_the_command_takes_what_papers_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["draw", str(EXPERIMENT)]
    assert main([*command, "--out", str(tmp_path / "fig.pdf"), "--size", "column", "--style", "grayscale"]) == 0
    assert (tmp_path / "fig.pdf").read_bytes().startswith(b"%PDF")
    assert main([*command, "--out", str(tmp_path), "--format", "svg", "--dark"]) == 0
    assert (tmp_path / "experiment.svg").exists()
    for options in (["--no-title"], []):
        assert main([*command, "--out", str(tmp_path / "page.svg"), "--size", "page", *options]) == 0
        assert ("t5-sst2: " in (tmp_path / "page.svg").read_text(encoding="utf-8")) == (not options)
    capsys.readouterr()
    for bad in (["--size", "wide"], ["--format", "gif"], ["--style", "none-such"]):
        assert main([*command, "--out", str(tmp_path), *bad]) == 2
        assert capsys.readouterr().err.startswith("error: ")
