"""The |C| figure shows what the sweep holds: curves, the choices of both rules, the minimum."""

from __future__ import annotations

import pytest
from support import figure_examples as examples
from support.figure_parts import legend, points, visible

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.plots import winner_regret, winner_sweep
from wtacrs.validation.records.sweep import SweepResult, WinnerSweep
from wtacrs.validation.summaries.sweep import choice_summaries, regret, which_winners


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
    assert {"paper's rule", "optimal rule", "true minimum"} <= set(legend(fig))


def test_sweep_relative_to_the_gradient_has_one_crs_line_per_scores(sweep: SweepResult) -> None:
    axes = visible(winner_sweep.build(sweep, relative_to="gradient", layers=[examples.LAYERS[2]]))[0]
    colour = style.look("crs").colour
    levels = {line.get_ydata()[0] for line in axes.get_lines() if line.get_color() == colour}
    assert levels == {s.crs for s in sweep.sweeps if s.layer == examples.LAYERS[2]}
    assert len(levels) == 2


def test_sweep_scale_is_logarithmic_only_beyond_a_decade(sweep: SweepResult) -> None:
    assert visible(winner_sweep.build(sweep))[0].get_yscale() == "log"
    flat = [s.model_copy(update={"variance": [s.crs * (1 - c / 100) for c in range(5)]}) for s in sweep.sweeps]
    flat = [s.model_copy(update={"winners": list(range(5)), "paper": 1, "optimal": 2, "best": 4}) for s in flat]
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


def test_sweep_of_several_files_shows_as_many_layers_of_each_and_names_them() -> None:
    one = examples.winner_sweep("h.0.fc", 0, "oracle")
    many = [
        one.model_copy(update={"captures": name, "layer": f"h.{i}.fc"})
        for name in ("first", "second")
        for i in range(7)
    ]
    fig = winner_sweep.build(examples.sweep(()).model_copy(update={"sweeps": many}))
    titles = [axes.get_title(loc="left").split("\n")[:2] for axes in visible(fig)]
    assert titles == [[name, f"h.{i}.fc"] for name in ("first", "second") for i in (0, 2, 4, 6)]
    assert "8 of 14 layers" in fig.get_suptitle()


def test_sweep_shows_one_budget_the_middle_one_unless_told() -> None:
    one = examples.winner_sweep("a", 0, "oracle")
    result = examples.sweep(()).model_copy(
        update={"sweeps": [one.model_copy(update={"budget": b}) for b in (1, 0.5, 0.1, 1.0)]}
    )
    assert "(budget 1;" in winner_sweep.build(result).get_suptitle()
    assert "(1 rows;" in winner_sweep.build(result, budget=1).get_suptitle()
    fig = winner_sweep.build(result, budget=0.1)
    assert "(budget 0.1;" in fig.get_suptitle()
    assert len([line for line in visible(fig)[0].get_lines() if len(line.get_xdata()) == examples.K]) == 1
    with pytest.raises(InputError, match=r"budget=0\.2 is not in the sweep; it has: 0\.1, 0\.5, 1\.0, 1"):
        winner_sweep.build(result, budget=0.2)


def test_sweep_without_products_has_no_true_minimum() -> None:
    one = examples.winner_sweep("a", 0, "oracle").model_copy(update={"products": False, "best": None})
    fig = winner_sweep.build(examples.sweep(()).model_copy(update={"sweeps": [one]}))
    assert "true minimum" not in legend(fig)
    assert "without ‖G_T‖²" in fig.get_supylabel()
    assert not [line for line in visible(fig)[0].get_lines() if line.get_marker() == "s"]


def test_sweep_marks_without_variance_sit_on_the_lower_edge() -> None:
    one = examples.winner_sweep("a", 2, "row-norms")
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
    with pytest.raises(InputError, match=r"layers='nowhere' fits none of the 6 layers of the sweep"):
        winner_sweep.build(sweep, layers=["nowhere"])
    with pytest.raises(InputError, match="relative_to='x'"):
        winner_sweep.build(sweep, relative_to="x")  # type: ignore[arg-type]
    bad = sweep.sweeps[0].model_copy(update={"best": examples.K + 1})
    with pytest.raises(InputError, match="best=13 must be one of its numbers of winners, or k=12"):
        winner_sweep.build(sweep.model_copy(update={"sweeps": [bad]}))
    with pytest.raises(style.NothingToDraw, match="no layer"):
        winner_sweep.build(sweep.model_copy(update={"sweeps": []}))


def test_regret_of_the_best_is_one_and_of_others_above(sweep: SweepResult) -> None:
    for s in sweep.sweeps:
        assert regret(s, s.best) == 1.0
        assert regret(s, s.paper) == s.variance[s.paper] / min(s.variance) >= 1.0
        assert regret(s.model_copy(update={"best": None}), s.paper) is None


def test_a_thinned_curve_is_read_by_its_numbers_of_winners() -> None:
    s = examples.winner_sweep("a", 0, "oracle")
    kept = sorted({0, s.paper, s.optimal, s.best, s.k - 1})
    thin = s.model_copy(update={"winners": kept, "variance": [s.variance[c] for c in kept]})
    assert regret(thin, thin.paper) == regret(s, s.paper)
    axes = visible(winner_sweep.build(examples.sweep(()).model_copy(update={"sweeps": [thin]})))[0]
    (curve,) = [line for line in axes.get_lines() if len(line.get_xdata()) == len(kept)]
    assert list(curve.get_xdata()) == kept


def _regrets(*cases: tuple[str, float, float, float]) -> list[WinnerSweep]:
    """Sweeps of two points: the paper keeps none, the optimal rule one, with the given regrets, at a budget."""
    found = []
    for i, (captures, budget, paper, optimal) in enumerate(cases):
        found.append(
            examples.winner_sweep(f"layer{i}#0", 0, "oracle", captures).model_copy(
                update={
                    "winners": [0, 1, 2], "variance": [float(paper), float(optimal), 1.0], "budget": budget,
                    "crs": float(paper), "k": 4, "paper": 0, "optimal": 1, "best": 2,
                }
            )
        )  # fmt: skip
    return found


CASES = (
    ("m, step 1", 0.1, 2.0, 1.5),
    ("m, step 2", 0.1, 4.0, 1.0),
    ("m, step 1", 0.5, 3.0, 1.25),
    ("o", 0.5, 8, 2),
)


def test_summaries_are_medians_and_worst_by_file_and_budget() -> None:
    found = choice_summaries(_regrets(*CASES, ("m, step 1", 0.1, 3.0, 1.0)))
    assert [(e.captures, e.budget, e.cases) for e in found] == [
        ("m, step 1", 0.1, 2), ("m, step 1", 0.5, 1), ("m, step 2", 0.1, 1), ("o", 0.5, 1),
    ]  # fmt: skip
    assert found[0].paper_regrets == (2.0, 3.0)
    assert found[0].optimal_regrets == (1.5, 1.0)
    assert (found[0].paper_fraction, found[0].optimal_fraction, found[0].best_fraction) == (0.0, 0.25, 0.5)


def test_which_winners_names_the_better_rule_and_its_worst_case() -> None:
    (told,) = which_winners(_regrets(*CASES))
    assert told.startswith(
        "Which |C|, oracle? That of the optimal rule: variance over that of the best |C| 1.375 in"
    )
    assert "at worst 2 in layer3#0 at budget 0.5; the paper's rule: 3.500 in the median, at worst 8 in" in told
    (turned,) = which_winners(_regrets(*((c, b, o, p) for c, b, p, o in CASES)))
    assert turned.startswith("Which |C|, oracle? That of the paper's rule")
    (unknown,) = which_winners([s.model_copy(update={"best": None}) for s in _regrets(*CASES)])
    assert "Not known" in unknown


def test_regret_figure_pools_steps_in_one_panel_per_architecture() -> None:
    result = examples.sweep(()).model_copy(update={"sweeps": _regrets(*CASES)})
    fig = winner_regret.build(result)
    panels = visible(fig)
    assert [axes.get_title(loc="left").split("\n")[0] for axes in panels] == ["m", "o"]
    paper, optimal = style.look(winner_regret.PAPER), style.look(winner_regret.OPTIMAL)
    assert points(panels[0], paper.colour, paper.marker) == {(0.1, 3.0), (0.5, 3.0)}
    assert points(panels[0], optimal.colour, optimal.marker) == {(0.1, 1.25), (0.5, 1.25)}
    assert points(panels[0], paper.colour, "_") == {(0.1, 4.0), (0.5, 3.0)}
    assert points(panels[1], paper.colour, paper.marker) == {(0.5, 8.0)}
    assert panels[0].get_yscale() == "linear"
    assert winner_regret.fraction(result.sweeps[0].model_copy(update={"budget": 10})) == 10 / examples.N


def test_regret_figure_refuses_what_it_cannot_show() -> None:
    with pytest.raises(InputError, match="kind 'comparison'"):
        winner_regret.build(examples.comparison())  # type: ignore[arg-type]
    unknown = [s.model_copy(update={"best": None}) for s in _regrets(*CASES)]
    with pytest.raises(style.NothingToDraw, match="no layer"):
        winner_regret.build(examples.sweep(()).model_copy(update={"sweeps": unknown}))


def test_an_infinite_regret_stands_at_the_upper_edge_and_the_other_rule_is_drawn() -> None:
    found = _regrets(("m", 0.1, 2.0, 0.0), ("m", 0.1, 3.0, 0.0))
    exact = [s.model_copy(update={"variance": [s.variance[0], 0.0, 0.0]}) for s in found]
    finite = _regrets(("m", 0.5, 3.0, 1.25))
    fig = winner_regret.build(examples.sweep(()).model_copy(update={"sweeps": [*exact, *finite]}))
    (axes,) = visible(fig)
    paper, optimal = style.look(winner_regret.PAPER), style.look(winner_regret.OPTIMAL)
    assert (0.1, 1.0) in points(axes, optimal.colour, optimal.marker)
    edge = [line for line in axes.get_lines() if line.get_transform() == axes.get_xaxis_transform()]
    assert {(line.get_color(), line.get_marker(), tuple(line.get_xdata())) for line in edge} >= {
        (paper.colour, paper.marker, (0.1,)), (paper.colour, winner_regret.INFINITE, (0.1,)),
    }  # fmt: skip
    style.png(fig)
    assert edge[0].get_transform().transform((0.1, 1.0))[1] == pytest.approx(axes.bbox.y1)
    assert any(label.startswith("infinite, at the upper edge: 2 ×") for label in legend(fig))
    unknown = finite[0].model_copy(update={"best": None, "layer": "z"})
    fig = winner_regret.build(examples.sweep(()).model_copy(update={"sweeps": [*finite, unknown]}))
    assert any(label.startswith("1 × not drawn") for label in legend(fig))
