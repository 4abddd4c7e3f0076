"""The noise figure shows what the result holds: lines of the whole model, dots of layers, intervals, two marks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from support import figure_examples as examples
from support.figure_parts import legend, points, visible

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.plots import noise as noise_figure
from wtacrs.figures.report.report import write_report
from wtacrs.validation.records.noise import NoiseRatio, NoiseResult
from wtacrs.validation.records.results import load_result, write_result
from wtacrs.validation.summaries.series import series


@pytest.fixture(scope="module")
def result() -> NoiseResult:
    return examples.noise()


def test_a_panel_per_estimator_with_lines_dots_and_intervals(result: NoiseResult) -> None:
    fig = noise_figure.build(result)
    panels = {axes.get_title(loc="left").split("\n")[0]: axes for axes in visible(fig)}
    assert list(panels) == ["topk", "crs", "wta_crs", "priority"]  # exact adds nothing
    for name, axes in panels.items():
        look = style.looks(m.estimator for m in result.models if m.ratio.value > 0)[name]
        models = [m for m in result.models if series(m.estimator) == name]
        found = points(axes, look.colour, look.marker)
        assert {round(y, 12) for _, y in found} >= {round(m.ratio.value, 12) for m in models}
        layers = [n for n in result.layers if series(n.estimator) == name]
        dots = points(axes, look.colour, "o")
        assert {round(y, 12) for _, y in dots} >= {round(n.ratio.value, 12) for n in layers}
        bars = {tuple(y for _, y in segment) for lines in axes.collections for segment in lines.get_segments()}
        assert bars == {(m.ratio.low, m.ratio.high) for m in models}
        levels = {line.get_ydata()[0] for line in axes.get_lines() if len(set(line.get_ydata())) == 1}
        assert {1.0, 0.1} <= levels
        assert axes.get_ylim()[0] <= min(m.ratio.value for m in result.models if m.ratio.value > 0)
    assert "mostly bias²" in visible(fig)[0].get_title(loc="left")
    assert "2 layers together, 5 microbatches" in fig.get_suptitle()
    assert {"95% interval", "1: as much again", "0.1: a tenth"} <= set(legend(fig))


def test_layers_far_below_every_line_are_counted_not_drawn(result: NoiseResult) -> None:
    tiny = NoiseRatio(value=1e-9, low=None, high=None)
    layers = [n.model_copy(update={"ratio": tiny}) for n in result.layers[:3]]
    fig = noise_figure.build(result.model_copy(update={"layers": [*layers, *result.layers]}))
    hidden = sum(n.ratio.value > 0 for n in layers)
    assert any("below the axis" in label for label in legend(fig)) == (hidden > 0)
    assert visible(fig)[0].get_ylim()[0] > 1e-6


def test_pngs_are_the_same_twice_and_nothing_overlaps(result: NoiseResult, tmp_path: Path) -> None:
    first = noise_figure.draw(result, tmp_path / "a.png").read_bytes()
    assert first == noise_figure.draw(result, tmp_path / "b.png").read_bytes()
    fig = noise_figure.build(result)
    style.png(fig)
    box = fig.legends[0].get_window_extent()
    assert fig.bbox.x0 <= box.x0
    assert box.x1 <= fig.bbox.x1
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in visible(fig))


def test_what_cannot_be_shown_is_refused(result: NoiseResult, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind 'comparison'"):
        noise_figure.build(examples.comparison())  # type: ignore[arg-type]
    exact = [m for m in result.models if m.estimator == "exact"]
    with pytest.raises(style.NothingToDraw, match="no ratio"):
        noise_figure.build(result.model_copy(update={"models": exact}))


def test_the_result_comes_back_and_the_report_says_its_verdicts(result: NoiseResult, tmp_path: Path) -> None:
    endless = result.models[0].model_copy(update={"ratio": NoiseRatio(value=0.5, low=0.0, high=math.inf)})
    whole = result.model_copy(update={"models": [*result.models, endless]})
    assert load_result(write_result(tmp_path / "noise.json", whole)) == whole
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Against the noise that is there anyway" in page
    assert page.count("to the gradient noise you already have; equivalent to") == sum(
        m.bias_ratio == 0 < m.ratio.value for m in whole.models
    )
