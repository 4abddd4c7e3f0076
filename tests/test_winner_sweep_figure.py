"""The |C| figure shows what the sweep holds: curves, the choices of both rules, the minimum."""

from __future__ import annotations

import figure_examples as examples
import pytest
from figure_parts import legend, points, visible

from wtacrs.estimators import InputError
from wtacrs.figures import style, winner_sweep
from wtacrs.figures.summary import regret
from wtacrs.validation.results import SweepResult


@pytest.fixture(scope="module")
def sweep() -> SweepResult:
    return examples.sweep()


def test_sweep_marks_lie_on_the_curve_at_the_choices(sweep: SweepResult) -> None:
    fig = winner_sweep.build(sweep)
    panels = visible(fig)
    assert len(panels) == len(examples.LAYERS)
    for axes, layer in zip(panels, examples.LAYERS, strict=True):
        mine = [s for s in sweep.sweeps if s.layer == layer]
        paper, optimal = style.look(winner_sweep.PAPER), style.look(winner_sweep.OPTIMAL)
        assert points(axes, paper.colour, paper.marker) == {(s.paper, s.variance[s.paper] / s.crs) for s in mine}
        assert points(axes, optimal.colour, optimal.marker) == {
            (s.optimal, s.variance[s.optimal] / s.crs) for s in mine
        }
        best = {
            (float(x), float(y)) for line in axes.get_lines() if line.get_marker() == "s"
            for x, y in line.get_xydata()
        }  # fmt: skip
        assert best == {(s.best, s.variance[s.best] / s.crs) for s in mine}
        curves = [list(line.get_ydata()) for line in axes.get_lines() if len(line.get_xdata()) == examples.K]
        assert curves == [[v / s.crs for v in s.variance] for s in mine]
        assert layer.rsplit(".", 1)[1] in axes.get_title(loc="left")
        assert f"n = {examples.N}, k = {examples.K}" in axes.get_title(loc="left")
    assert {"paper's choice", "exact-variance choice", "true minimum"} <= set(legend(fig))


def test_sweep_relative_to_the_gradient_has_one_crs_line_per_scores(sweep: SweepResult) -> None:
    axes = visible(winner_sweep.build(sweep, relative_to="gradient", layers=[examples.LAYERS[2]]))[0]
    colour = style.look("crs").colour
    levels = {line.get_ydata()[0] for line in axes.get_lines() if line.get_color() == colour}
    assert levels == {s.crs for s in sweep.sweeps if s.layer == examples.LAYERS[2]}
    assert len(levels) == 2


def test_sweep_scale_is_logarithmic_only_beyond_a_decade(sweep: SweepResult) -> None:
    assert visible(winner_sweep.build(sweep))[0].get_yscale() == "log"
    flat = [s.model_copy(update={"variance": [s.crs * (1 - c / 100) for c in range(5)]}) for s in sweep.sweeps]
    flat = [s.model_copy(update={"paper": 1, "optimal": 2, "best": 4}) for s in flat]
    assert visible(winner_sweep.build(sweep.model_copy(update={"sweeps": flat})))[0].get_yscale() == "linear"


def test_sweep_of_many_layers_shows_nine_with_both_ends_and_says_so() -> None:
    layers = tuple(f"h.{i}.fc" for i in range(20))
    one = examples.winner_sweep("h.0.fc", 0, "oracle")
    many = examples.sweep(()).model_copy(update={"sweeps": [one.model_copy(update={"layer": x}) for x in layers]})
    fig = winner_sweep.build(many)
    titles = [axes.get_title(loc="left").split("\n")[0] for axes in visible(fig)]
    assert len(titles) == winner_sweep.MAX_PANELS
    assert (titles[0], titles[-1]) == ("h.0.fc", "h.19.fc")
    assert "9 of 20 layers" in fig.get_suptitle()
    assert len(visible(winner_sweep.build(many, layers=["h.7.fc", "h.3.fc"]))) == 2


def test_sweep_marks_without_variance_sit_on_the_lower_edge() -> None:
    one = examples.winner_sweep("a", 2, "row norms")
    assert max(one.variance) > 10 * min(one.variance)
    # with all n rows as winners nothing is drawn: |C| = k is one past the end of the list
    certain = one.model_copy(update={"paper": one.k, "optimal": one.k, "best": one.k})
    fig = winner_sweep.build(examples.sweep(()).model_copy(update={"sweeps": [certain]}))
    axes = visible(fig)[0]
    paper = style.look(winner_sweep.PAPER)
    assert points(axes, paper.colour, paper.marker) == {(one.k, 0.0)}
    marks = [line for line in axes.get_lines() if line.get_marker() == paper.marker]
    style.png(fig)
    assert marks[0].get_transform().transform((0, 0))[1] == pytest.approx(axes.bbox.y0)
    assert any("variance 0" in label for label in legend(fig))
    level = certain.model_copy(update={"variance": [one.crs] * one.k})
    fig = winner_sweep.build(examples.sweep(()).model_copy(update={"sweeps": [level]}))
    assert visible(fig)[0].get_yscale() == "linear"
    assert not any("variance 0" in label for label in legend(fig))


def test_sweep_refuses_what_it_cannot_show(sweep: SweepResult) -> None:
    with pytest.raises(InputError, match="kind 'comparison'"):
        winner_sweep.build(examples.comparison())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"layers: 'nowhere' is not in the sweep"):
        winner_sweep.build(sweep, layers=["nowhere"])
    with pytest.raises(InputError, match="relative_to='x'"):
        winner_sweep.build(sweep, relative_to="x")  # type: ignore[arg-type]
    bad = sweep.sweeps[0].model_copy(update={"best": examples.K + 1})
    with pytest.raises(InputError, match="best=13 must be a number of winners from 0 to 12"):
        winner_sweep.build(sweep.model_copy(update={"sweeps": [bad]}))
    with pytest.raises(style.NothingToDraw, match="no layer"):
        winner_sweep.build(sweep.model_copy(update={"sweeps": []}))


def test_regret_of_the_best_is_one_and_of_others_above(sweep: SweepResult) -> None:
    for s in sweep.sweeps:
        assert regret(s, s.best) == 1.0
        assert regret(s, s.paper) == s.variance[s.paper] / min(s.variance) >= 1.0
