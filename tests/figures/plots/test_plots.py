"""The pictures show what the results hold: every series, every mark in its place, the same bytes each time."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from statistics import median

import matplotlib
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.image import imread
from support import figure_examples as examples
from support.figure_parts import legend, points, visible

from wtacrs.estimators import InputError, available, make
from wtacrs.estimators.core.sizing import SIZES
from wtacrs.figures import style
from wtacrs.figures.plots import comparison as comparison_figure
from wtacrs.figures.plots import training as training_figure
from wtacrs.figures.plots import winner_regret, winner_sweep
from wtacrs.validation.records.compare import ComparisonResult, ComparisonRow
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.summaries.compare import layer_medians
from wtacrs.validation.summaries.series import series


@pytest.fixture(scope="module")
def comparison() -> ComparisonResult:
    return examples.comparison()


@pytest.fixture(scope="module")
def sweep() -> SweepResult:
    return examples.sweep()


@pytest.fixture(scope="module")
def runs() -> list[TrainingResult]:
    return [examples.training(text) for text in examples.RUNS]


# style


def test_series_is_the_spec_without_its_budget_wherever_it_stands() -> None:
    assert series("wta_crs(budget=0.3)") == series('wta_crs(winners="paper", budget=64)')
    assert series("wta_crs(budget=0.3, winners=5)") == "wta_crs(winners=5)"
    assert series('outer(bits=4, rows=inner(budget=0.3, kind="a"))') == 'outer(bits=4, rows=inner(kind="a"))'
    assert series("inner(budget=0.3)") == "inner"
    assert series("file.py:function") == "file.py:function"


@pytest.mark.parametrize(
    "spellings",
    [
        ("systematic", "systematic(budget=0.3)", 'systematic(budget=32, order="random")'),
        ("wta_crs", 'wta_crs(winners="paper")', "wta_crs(budget=0.1)"),
        (
            'control_variate(base="mean", rows=systematic)',
            'control_variate(rows=systematic(order="random", budget=0.3), rank=8, base="mean")',
        ),
    ],
)
def test_one_estimator_has_one_name_and_look_however_it_is_spelt(spellings: tuple[str, ...]) -> None:
    assert [series(text) for text in spellings] == [spellings[0]] * len(spellings)
    assert list(style.looks(spellings)) == [spellings[0]]


def test_a_rank_is_part_of_the_name_where_budgets_are_compared() -> None:
    assert series("prac(rank=16)") == "prac(rank=16)"
    assert series("prac(rank=16)", SIZES) == "prac"


def test_registered_estimators_have_looks_of_their_own_and_exact_is_grey() -> None:
    looks = style.looks([*(n for n in available() if n != "wta_crs"), *examples.SPECS])
    assert len(set(looks.values())) == len(looks)
    assert len({look.colour for name, look in looks.items() if name in examples.SPECS}) == len(examples.SPECS)
    assert style.look("exact").colour == style.INK


def test_unknown_looks_are_stable_in_any_order_and_distinct() -> None:
    specs = [f"other_{i}(budget=0.3)" for i in range(30)]
    forwards, backwards = style.looks(specs), style.looks(specs[::-1])
    assert forwards == backwards
    assert len(set(forwards.values())) == 30
    assert style.look("other_3") == style.look("other_3(budget=9)")
    reserved = {style.look(text).colour for text in examples.SPECS}
    assert reserved.isdisjoint(look.colour for look in forwards.values())


def test_unknown_looks_are_the_same_in_another_process() -> None:
    code = "from wtacrs.figures import style; print(style.look('third_party').colour, style.look('mine').marker)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [style.look("third_party").colour, style.look("mine").marker]


def test_short_names_stay_distinct() -> None:
    names = ["model.layers.0.q", "layers.0.q", "encoder.layer.1.o"]
    short = style.short_names(names)
    assert len(set(short.values())) == 3
    assert style.short_names(["bert.encoder.layer.1.o"]) == {"bert.encoder.layer.1.o": "bert.encoder.1.o"}
    long = [f"{'stem.' * 20}{i}.{'leaf.' * 20}" for i in range(3)]
    assert len(set(style.short_names(long).values())) == 3


def test_drawing_leaves_matplotlib_as_it_was(comparison: ComparisonResult, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    comparison_figure.draw(comparison, tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before


def test_the_users_settings_do_not_change_the_picture(comparison: ComparisonResult) -> None:
    plain = style.png(comparison_figure.build(comparison, against="budget"))
    with matplotlib.rc_context({"font.size": 22.0, "axes.facecolor": "black", "savefig.dpi": 30}):
        assert style.png(comparison_figure.build(comparison, against="budget")) == plain


def test_save_refuses_other_names_and_leaves_no_partial_file(tmp_path: Path) -> None:
    with style.figure(2, 2) as fig:
        fig.panels()
    with pytest.raises(InputError, match=r"must end in \.png, \.pdf, \.svg"):
        style.save(fig, tmp_path / "a.jpg")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(InputError, match=r"taken\.png"):
        style.save(fig, tmp_path / "taken.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="picture file"):
        style.save(fig, tmp_path / "file" / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.png"]


def test_importing_the_storey_does_not_import_matplotlib() -> None:
    code = "import sys, wtacrs.figures; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# all figures


def test_pngs_are_valid_and_name_no_version(
    comparison: ComparisonResult, sweep: SweepResult, runs: list[TrainingResult], tmp_path: Path
) -> None:
    draws = {
        "sweep": lambda path: winner_sweep.draw(sweep, path),
        "regret": lambda path: winner_regret.draw(sweep, path),
        "comparison": lambda path: comparison_figure.draw(comparison, path),
        "training": lambda path: training_figure.draw(runs, path),
    }
    for name, draw in draws.items():
        path = draw(tmp_path / "new" / f"{name}.png")
        height, width, _ = imread(path).shape
        assert 800 < width < 1800
        assert 500 < height < 1800
        pixels = imread(path)[..., :3]
        assert 0.001 < (pixels.min(axis=2) < 0.6).mean() < 0.3  # neither empty nor covered
        assert b"matplotlib" not in path.read_bytes().lower()
    assert len(list((tmp_path / "new").iterdir())) == len(draws)


def test_legends_do_not_cover_axes_or_their_labels(
    comparison: ComparisonResult, sweep: SweepResult, runs: list[TrainingResult]
) -> None:
    figures = (
        winner_sweep.build(sweep),
        winner_regret.build(sweep),
        comparison_figure.build(comparison, against="budget"),
        training_figure.build(runs),
    )
    for fig in figures:
        style.png(fig)
        box = fig.legends[0].get_window_extent()
        canvas = fig.bbox
        assert canvas.x0 <= box.x0
        assert box.x1 <= canvas.x1
        for axes in visible(fig):
            tight = axes.get_tightbbox()
            assert tight is not None
            assert not box.overlaps(tight)


# error against budget and bytes


def of(result: ComparisonResult, name: str) -> list[ComparisonRow]:
    return [r for r in result.rows if series(r.estimator) == name]


def mse(rows: list[ComparisonRow], budget: float, kind: str) -> list[float]:
    return [r.mse for r in rows if (r.budget, r.scores) == (budget, kind)]


@pytest.mark.parametrize("against", ["budget", "bytes", "macs"])
def test_error_lines_are_the_medians_over_layers(comparison: ComparisonResult, against: str) -> None:
    fig = comparison_figure.build(comparison, against=against)  # type: ignore[arg-type]
    assert [axes.get_title(loc="left")[:3] for axes in fig.axes] == ["row", "ora"]
    assert {(axes.get_xscale(), axes.get_yscale()) for axes in fig.axes} == {("log", "log")}
    for name in examples.SPECS[1:]:
        look, rows = style.look(name), of(comparison, name)
        for axes, kind in zip(fig.axes, ("row-norms", "oracle"), strict=True):
            found = sorted(points(axes, look.colour, look.marker))
            assert [y for _, y in found] == [median(mse(rows, b, kind)) for b in examples.BUDGETS]
            if against in ("budget", "macs"):  # a row design multiplies what it keeps
                assert [x for x, _ in found] == list(examples.BUDGETS)
            else:
                assert [x for x, _ in found] == sorted({r.saved_bytes / r.exact_bytes for r in rows})
    for name in (*examples.SPECS, "shrunk"):
        assert any(label.split("  ")[0] == name for label in legend(fig))


def test_what_is_mostly_bias_is_dashed_and_named(comparison: ComparisonResult) -> None:
    fig = comparison_figure.build(comparison, against="budget")
    assert "topk  (mostly bias²)" in legend(fig)
    assert "exact  (error 0, not on a log axis)" in legend(fig)
    styles = {
        line.get_color(): line.get_linestyle()
        for line in fig.axes[0].get_lines()
        if line.get_marker() not in ("", "None")
    }
    assert styles[style.look("topk").colour] == "--"
    assert styles[style.look("crs").colour] == "-"


def test_error_bars_are_two_median_standard_errors(comparison: ComparisonResult) -> None:
    fig = comparison_figure.build(comparison, against="budget")
    bars = [c for c in fig.axes[0].containers if isinstance(c, ErrorbarContainer)]
    assert len(bars) == 1
    assert not fig.axes[1].containers
    segments = bars[0].lines[2][0].get_segments()
    for budget, (low, high) in zip(examples.BUDGETS, segments, strict=True):
        rows = [r for r in comparison.rows if r.method == "monte carlo" and r.budget == budget]
        wanted = median(r.variance_error or math.nan for r in rows)
        assert low[0] == high[0] == budget
        assert high[1] - low[1] == pytest.approx(4 * wanted)
    assert any("standard errors" in label for label in legend(fig))


def test_quartiles_and_fractions_of_the_medians(comparison: ComparisonResult) -> None:
    rows = [r for r in comparison.rows if r.scores == "oracle" and r.estimator.startswith("crs(budget=0.3")]
    (entry,) = layer_medians(rows)
    assert entry.layers == len(examples.LAYERS) == 6
    ordered = sorted(r.mse for r in rows)
    assert entry.low == pytest.approx(ordered[1] + 0.25 * (ordered[2] - ordered[1]))
    assert entry.high == pytest.approx(ordered[3] + 0.75 * (ordered[4] - ordered[3]))
    assert entry.row_fraction == 0.3
    assert entry.error is None


def test_budgets_in_rows_are_placed_at_their_fraction(comparison: ComparisonResult) -> None:
    one, four = (
        examples.comparison_row("a", 0, examples.configured("crs", k), float(k), "row-norms") for k in (1, 4)
    )
    fig = comparison_figure.build(comparison.model_copy(update={"rows": [one, four]}), against="budget")
    look = style.look("crs")
    assert points(fig.axes[0], look.colour, look.marker) == {(1 / 40, one.mse), (4 / 40, four.mse)}


def test_an_estimator_without_budget_is_a_level_line(comparison: ComparisonResult) -> None:
    rounding = [
        r.model_copy(update={"estimator": "rounding(bits=8)", "budget": None}) for r in comparison.rows
        if r.estimator == "crs(budget=0.5)"
    ]  # fmt: skip
    fig = comparison_figure.build(
        comparison.model_copy(update={"rows": [*comparison.rows, *rounding]}), against="budget"
    )
    colour = style.look("rounding(bits=8)").colour
    levels = [line for line in fig.axes[0].get_lines() if line.get_color() == colour]
    assert [list(line.get_xdata()) for line in levels] == [[0, 1]]  # from edge to edge
    assert levels[0].get_ydata()[0] == median(mse(of(comparison, "crs"), 0.5, "row-norms"))


def test_an_estimator_that_does_not_state_its_macs_is_named(comparison: ComparisonResult) -> None:
    fig = comparison_figure.build(comparison, against="macs")
    assert "shrunk  (MACs not stated)" in legend(fig)
    assert style.look("shrunk").colour not in {line.get_color() for line in fig.axes[0].get_lines()}
    only = [row for row in comparison.rows if row.macs is None]
    with pytest.raises(style.NothingToDraw):
        comparison_figure.build(comparison.model_copy(update={"rows": only}), against="macs")


def test_more_macs_than_exact_lie_beyond_the_mark(comparison: ComparisonResult) -> None:
    rows = [
        examples.comparison_row("a", 0, make(f"gaussian_sketch(budget={k})"), float(k), "row-norms")
        for k in (4, 20)
    ]
    fig = comparison_figure.build(comparison.model_copy(update={"rows": rows}), against="macs")
    look = style.look("gaussian_sketch")
    shares = [(k * 40 * 11 + k * 30) / 1200 for k in (4, 20)]
    assert points(fig.axes[0], look.colour, look.marker) == {(x, r.mse) for x, r in zip(shares, rows, strict=True)}
    assert [line.get_xdata()[0] for line in fig.axes[0].get_lines() if line.get_color() == style.GREY] == [1.0]


@pytest.mark.parametrize("kinds", [("row-norms", "oracle"), ("oracle",)])
def test_long_names_stay_inside_the_figure(comparison: ComparisonResult, kinds: tuple[str, ...]) -> None:
    name = 'control_variate(rows=quantized_rows(rows=crs(budget=0.3), bits=2), base="mean+lowrank", rank=8)'
    unstated = [
        row.model_copy(update={"estimator": name, "macs": None}) if row.estimator == "crs(budget=0.3)" else row
        for row in comparison.rows
        if row.scores in kinds
    ]
    for rows in (unstated, [row for row in unstated if row.estimator != name]):
        fig = comparison_figure.build(comparison.model_copy(update={"rows": rows}), against="macs")
        fig.draw_without_rendering()
        (legend,) = fig.legends
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= fig.bbox.width
        assert box.y0 >= 0


def test_one_kind_of_scores_and_one_budget_make_one_panel(comparison: ComparisonResult) -> None:
    rows = [r for r in comparison.rows if r.scores == "oracle" and r.budget == 0.3]
    fig = comparison_figure.build(comparison.model_copy(update={"rows": rows}), against="budget")
    assert len(fig.axes) == 1
    left, right = fig.axes[0].get_xlim()
    assert left < 0.3 < right


def test_values_that_are_not_finite_are_named(comparison: ComparisonResult) -> None:
    rows = [
        r.model_copy(update={"mse": math.inf, "variance": math.inf}) if r.estimator == "crs(budget=0.1)" else r
        for r in comparison.rows
    ]
    assert "crs  (not finite at budget 0.1)" in legend(
        comparison_figure.build(comparison.model_copy(update={"rows": rows}), against="budget")
    )


def test_comparison_refuses_what_it_cannot_show(comparison: ComparisonResult, sweep: SweepResult) -> None:
    with pytest.raises(InputError, match="kind 'sweep'"):
        comparison_figure.build(sweep)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="against='x'"):
        comparison_figure.build(comparison, against="x")  # type: ignore[arg-type]
    exact = [r for r in comparison.rows if r.estimator == "exact"]
    with pytest.raises(style.NothingToDraw, match="no row with a positive"):
        comparison_figure.build(comparison.model_copy(update={"rows": exact}), against="budget")
