"""Tests on captured layers: what is exact, what is sampled, one level for all, the file, the table and the figure."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from support.false_alarms import share
from support.figure_parts import legend, points, visible

from wtacrs.estimators import CRS, InputError, make
from wtacrs.estimators.core import registry
from wtacrs.figures import style
from wtacrs.figures.plots import layer_tests as figure
from wtacrs.integration.cli import main
from wtacrs.integration.studies import layer_tests as layer_test_studies
from wtacrs.integration.studies.layer_tests import layer_test_study
from wtacrs.integration.tables.layer_tests import layer_test_tables
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.layers import layer_tests
from wtacrs.validation.layers.captures import LayerCapture, load_captures, write_captures
from wtacrs.validation.layers.layer_tests import adjusted_for_families, examine_entry, examine_layer
from wtacrs.validation.problems import make_problem
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.layer_tests import (
    BiasFinding,
    LayerTest,
    LayerTestResult,
    RatioFinding,
    VarianceFinding,
)
from wtacrs.validation.records.results import load_result
from wtacrs.validation.runner import Runner
from wtacrs.validation.summaries.layer_tests import draws_needed, layer_test_summary, percent, ruled_out
from wtacrs.validation.summaries.series import series

pytestmark = pytest.mark.usefixtures("unchecked_module")  # many thousand draws

LEVEL = share("layer tests", 4)
# a large bias is ruled out in few stages
QUICK = ("--bias", 0.6, "--limit", 600)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def shrunk(monkeypatch):
    """The defect under its name, for as long as a test takes."""
    monkeypatch.setitem(registry._REGISTRY, Shrunk.name, Shrunk)


class Shrunk(CRS):
    """CRS times 0.7, which still says that it is unbiased; its own closed form is that of CRS."""

    name = "shrunk"

    def contract(self, saved, dy):
        return super().contract(saved, dy) * 0.7


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = {}
    for name in ("block.0.wi#0", "block.1.wi#0"):
        problem = make_problem("gaussian", 60, 6, 5, generator=seeded(len(layers)), dtype=torch.float32)
        mask = torch.arange(60) < 50
        layers[name] = LayerCapture(problem.x, problem.dy * mask.unsqueeze(1), mask)
    small = make_problem("gaussian", 5, 3, 2, generator=seeded(7), dtype=torch.float32)
    layers["head#0"] = LayerCapture(small.x, small.dy, torch.ones(5, dtype=torch.bool))
    layers["dead#0"] = LayerCapture(torch.ones(4, 2), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
    return write_captures(tmp_path_factory.mktemp("layers") / "c.safetensors", layers, {"model": "m"})


def examined(captures: Path, entry: str, estimator: str, against: str | None = None, **options) -> LayerTest:
    arguments = {"scores": "row-norms", "draws": 300, "level": LEVEL, "seed": 1} | options
    baseline = None if against is None else make(against)
    (found,) = examine_entry(captures, entry, make(estimator), baseline, **arguments).records
    return found


def test_a_sampled_layer(captures):
    found = examined(captures, "block.0.wi#0", "crs(budget=0.3)", "wta_crs(budget=0.3)")
    layer = load_captures(captures)["block.0.wi#0"]
    assert (found.n, found.d, found.m, found.first_draws, found.unbiased) == (60, 6, 5, 300, True)
    assert (found.bias.method, found.bias.verdict) == ("sampling", "holds")
    assert found.draws == 300 << (found.bias.looks - 1)
    assert found.bias.detectable is not None
    assert 0 < found.bias.detectable_along < found.bias.detectable
    assert found.bias.detectable_along <= found.bias.asked == 0.1
    unit = float((layer.dy.double().T @ layer.x.double()).square().sum())
    scores = torch.where(layer.mask, layer.x.double().norm(dim=1), 0.0)
    specs = ("crs(budget=0.3)", "wta_crs(budget=0.3)")
    own, other = (float(make(each).variance(layer.x, layer.dy, scores=scores)) for each in specs)
    assert found.variance is not None
    assert found.variance.stated == pytest.approx(own / unit)
    assert found.variance.measured == pytest.approx(own / unit, rel=0.4)
    assert found.variance.verdict == "accepted"
    assert found.ratio is not None
    assert found.ratio.ratio == pytest.approx(own / other)
    assert (found.ratio.method, found.ratio.p_value) == ("closed form", None)


@pytest.mark.usefixtures("shrunk")
def test_a_small_layer_is_enumerated(captures):
    found = examined(captures, "head#0", "crs(budget=2)", "priority(budget=2)")
    layer = load_captures(captures)["head#0"]
    exact = enumerate_moments(make("crs(budget=2)"), layer.x.double(), layer.dy.double())
    unit = float((layer.dy.double().T @ layer.x.double()).square().sum())
    assert (found.bias.method, found.draws, found.bias.p_value) == ("enumeration", 0, None)
    assert found.bias.bias < found.bias.rounding
    assert found.variance is not None
    assert found.variance.measured == pytest.approx(exact.variance / unit)
    assert found.variance.verdict == "accepted"
    broken = examined(captures, "head#0", "shrunk(budget=2)")
    assert broken.bias.verdict == "broken"
    assert broken.bias.bias == pytest.approx(0.3)
    assert broken.bias.along == pytest.approx(-0.3)
    assert broken.variance is not None
    assert broken.variance.verdict == "rejected"


def test_a_deterministic_estimator_is_exact_at_every_size(captures):
    found = examined(captures, "block.0.wi#0", "topk(budget=0.3)", "wta_crs(budget=0.3)", quantity="mse")
    assert (found.bias.method, found.bias.verdict) == ("enumeration", "biased, as declared")
    layer = load_captures(captures)["block.0.wi#0"]
    exact = layer.dy.double().T @ layer.x.double()
    scores = torch.where(layer.mask, layer.x.double().norm(dim=1), 0.0)
    error = make("topk(budget=0.3)").expectation(layer.x, layer.dy, scores=scores) - exact
    assert found.bias.bias == pytest.approx(float(error.norm() / exact.norm()))
    assert found.ratio is not None
    variance = float(make("wta_crs(budget=0.3)").variance(layer.x, layer.dy, scores=scores))
    assert found.ratio.ratio == pytest.approx(float(error.square().sum()) / variance)
    assert examined(captures, "block.0.wi#0", "exact", "topk(budget=0.3)").ratio is None


@pytest.mark.parametrize("quantity", ["variance", "mse"])
def test_ratios_by_sampling_hold_the_truth(captures, quantity):
    """A against B and B against A, where one of them has no closed form: reciprocal within the intervals."""
    options = {"quantity": quantity, "level": 0.01}
    over = examined(captures, "block.0.wi#0", "priority(budget=0.3)", "crs(budget=0.3)", **options).ratio
    under = examined(captures, "block.0.wi#0", "crs(budget=0.3)", "priority(budget=0.3)", **options).ratio
    assert over is not None
    assert under is not None
    assert over.method == under.method == "monte carlo"
    assert over.low < 1 / under.ratio < over.high
    assert over.verdict == "lower"
    assert under.verdict == "higher"


@pytest.mark.usefixtures("shrunk")
def test_planted_bias_is_rejected_and_named(captures):
    found = examined(captures, "block.1.wi#0", "shrunk(budget=0.5)", draws=600, level=1e-3)
    assert found.bias.verdict == "broken"
    assert found.bias.along == pytest.approx(-0.3, abs=0.1)
    assert found.variance is not None
    assert found.variance.verdict == "rejected"


def test_results_depend_on_the_arguments_alone(captures):
    """Whatever was examined before, and after a trip through pickle, as by a runner with processes."""
    estimators = (make("pivotal(budget=0.3)"), make("crs(budget=0.3)"))
    arguments = (captures, "block.0.wi#0", *estimators, "row-norms", 20, 0.01, 5)
    first = examine_entry(*arguments)
    examined(captures, "block.1.wi#0", "crs(budget=0.3)", draws=20)
    function, again = pickle.loads(pickle.dumps((examine_entry, arguments)))
    assert function(*again) == first
    assert examine_entry(*arguments[:-1], 6) != first


def test_a_layer_without_a_product_is_skipped(captures):
    idle = examine_entry(captures, "dead#0", make("crs(budget=2)"), None, "row-norms", 50, LEVEL, 0)
    assert idle.records == ()
    assert "dead#0" in idle.skipped
    with pytest.raises(InputError, match="draws=3"):
        examined(captures, "head#0", "crs(budget=2)", draws=3)


def layer_test(layer: str, bias_p: float | None, variance_p: float | None, *, unbiased: bool = True) -> LayerTest:
    bias = BiasFinding(
        method="sampling" if bias_p is not None else "enumeration", bias_squared=0.01, along=0.0, rounding=0.0,
        p_value=bias_p, verdict="holds", detectable_along=None if bias_p is None else 0.2 * bias_p + 0.05,
    )  # fmt: skip
    variance = VarianceFinding(method="sampling", measured=1.0, stated=1.0, p_value=variance_p, verdict="accepted")
    ratio = RatioFinding(
        against="crs(budget=2)", quantity="variance", ratio=0.5, low=0.4, high=0.6, method="monte carlo",
        p_value=variance_p, verdict="no difference",
    )  # fmt: skip
    return LayerTest(
        layer=layer, estimator="crs(budget=3)", unbiased=unbiased, scores="row-norms", n=4, d=3, m=2, draws=10,
        bias=bias, variance=variance, ratio=ratio,
    )  # fmt: skip


def test_each_family_has_one_level():
    """Holm by hand; exact answers are in no family; what is declared biased is not a broken claim."""
    tests = [
        layer_test("a", 0.01, 0.04), layer_test("b", 0.02, 0.001), layer_test("c", 0.02, 0.5, unbiased=False),
        layer_test("d", None, 0.5),
    ]  # fmt: skip
    found = adjusted_for_families(tests, 0.05)
    assert [t.bias.adjusted for t in found] == [
        pytest.approx(0.03),
        pytest.approx(0.04),
        pytest.approx(0.04),
        None,
    ]
    assert [t.bias.verdict for t in found] == ["broken", "broken", "biased, as declared", "holds"]
    assert [t.variance.adjusted for t in found if t.variance] == pytest.approx([0.12, 0.004, 1.0, 1.0])
    assert [t.variance.verdict for t in found if t.variance] == ["accepted", "rejected", "accepted", "accepted"]
    assert [t.ratio.verdict for t in found if t.ratio] == ["no difference", "lower", *["no difference"] * 2]
    result = LayerTestResult(stamp=stamp(seed=0), level=0.05, tests=found)
    assert [t.layer for t in result.broken] == ["a", "b"]
    assert layer_test_summary(result)[0].startswith("no bias: 2 of 3 claims broken")


@pytest.fixture(scope="module")
def result(captures, tmp_path_factory) -> LayerTestResult:
    out = tmp_path_factory.mktemp("out")
    arguments = ["test", captures, "--estimator", "pivotal", "--estimator", "wta_crs", "--estimator", "topk"]
    code = main(
        [str(a) for a in [*arguments, "--draws", 60, "--level", LEVEL, "--out", out, "--scores", "both", *QUICK]]
    )
    assert code == 0
    assert (out / "layer_tests.png").read_bytes().startswith(b"\x89PNG")
    found = load_result(out / "layer_tests.json")
    assert isinstance(found, LayerTestResult)
    return found


def test_the_command_tests_every_layer_and_estimator(result):
    assert len(result.tests) == 3 * 3 * 2
    assert {t.layer for t in result.tests} == {"block.0.wi#0", "block.1.wi#0", "head#0"}
    assert {t.ratio.against for t in result.tests if t.ratio} == {'wta_crs(budget=0.3, winners="paper")'}
    assert result.broken == []
    assert {t.bias.verdict for t in result.tests if t.estimator.startswith("topk")} == {"biased, as declared"}


@pytest.mark.usefixtures("shrunk")
def test_the_command_fails_on_a_broken_claim(captures, tmp_path, capsys):
    arguments = [
        "test",
        captures,
        "--estimator",
        "shrunk",
        "--budget",
        0.5,
        "--against",
        "none",
        "--draws",
    ]
    assert main([str(a) for a in [*arguments, 600, "--layers", "block.*", "--out", tmp_path]]) == 1
    shown = capsys.readouterr().out
    assert "no bias: 2 of 2 claims broken at 0.01" in shown
    assert "off by" not in shown
    found = load_result(tmp_path / "layer_tests.json")
    assert isinstance(found, LayerTestResult)
    assert all(t.ratio is None for t in found.tests)
    assert found.stamp.inputs["against"] == "None"


def test_same_seed_same_file(captures, tmp_path):
    for name in ("a", "b"):
        arguments = ["test", captures, "--estimator", "pivotal", "--draws", 30, "--out", tmp_path / name, *QUICK]
        assert main([str(a) for a in arguments]) == 0
    assert (tmp_path / "a" / "layer_tests.json").read_bytes() == (tmp_path / "b" / "layer_tests.json").read_bytes()


def test_tables_have_a_row_per_layer_and_a_line_that_says_it_all(result):
    tables = layer_test_tables(result)
    assert [t.row_count for t in tables] == [3] * 6
    lines = layer_test_summary(result)
    worst = max(t.bias.detectable_along or 0.0 for t in result.tests)
    anywhere = max(t.bias.detectable or 0.0 for t in result.tests)
    assert lines[0].startswith("no bias: 0 of 12 claims broken")
    assert f"biases above {percent(worst)} of ‖G‖ along G ruled out where it holds" in lines[0]
    assert f"above {percent(anywhere)} in any direction" in lines[0]
    cells = {column.header: list(column.cells) for column in tables[0].columns}
    group = (result.tests[0].estimator, result.tests[0].scores)
    mine = [t.bias for t in result.tests if (t.estimator, t.scores) == group]
    assert cells["mean"] == ["[green]holds[/green]"] * 3
    assert cells["ruled out"] == [
        "exact" if b.detectable_along is None else f"> {percent(b.detectable_along)}" for b in mine
    ]
    assert "ruled out with 99 % power" in str(tables[0].caption)
    assert any(line.startswith("closed form of the variance: 0 of ") for line in lines)
    assert any("pivotal" in line and "lower on" in line for line in lines)


def test_figure_shows_what_the_result_holds(result, tmp_path):
    fig = figure.build(result)
    left, right = visible(fig)
    mine = [t for t in result.tests if t.estimator.startswith("pivotal")]
    look = style.looks(t.estimator for t in result.tests)[series(mine[0].estimator)]
    assert {x for x, _ in points(left, look.colour, look.marker)} == {t.bias.along for t in mine}
    assert {x for x, _ in points(right, look.colour, look.marker)} == {t.bias.bias for t in mine}
    bars = {x for x, _ in points(right, look.colour, "|")}
    assert bars == {t.bias.detectable for t in mine if t.bias.detectable}
    assert "0 of 12 claims of no bias broken" in fig.get_suptitle()
    assert "would have been seen with 99 % power" in legend(fig)
    assert {"holds", "bias", "bias along G to rule out: 60 %"} <= set(legend(fig))
    asked = {x for line in left.get_lines() if line.get_linestyle() == ":" for x in line.get_xdata()}
    assert asked == {-0.6, 0.6}
    assert figure.draw(result, tmp_path / "o.png").read_bytes() == style.png(figure.build(result))
    many = [t.model_copy(update={"layer": f"h.{i}"}) for i, t in enumerate(result.tests * 3)]
    shown = figure.build(result.model_copy(update={"tests": many}))
    assert "40 of 54 layers shown" in shown.get_suptitle()
    with pytest.raises(style.NothingToDraw):
        figure.build(result.model_copy(update={"tests": []}))


def test_figure_shows_undecided_means_apart(result):
    first = next(t for t in result.tests if t.bias.method == "sampling")
    undecided = first.model_copy(update={"bias": first.bias.model_copy(update={"verdict": "undecided"})})
    faces = []
    for test in (first, undecided):
        fig = figure.build(result.model_copy(update={"tests": [test]}))
        look = style.looks([test.estimator])[series(test.estimator)]
        left = visible(fig)[0]
        (mark,) = [line for line in left.get_lines() if line.get_marker() == look.marker]
        bar = next(line for line in left.get_lines() if line.get_marker() == "None" and len(line.get_xdata()) == 2)
        faces.append((mark.get_fillstyle(), bar.get_linestyle()))
        assert test.bias.verdict in legend(fig)
    assert faces[0] == ("full", "-")
    assert faces[1] == ("left", "--")
    assert "1 undecided" in fig.get_suptitle()


def test_figure_of_exact_answers_and_of_biases_beyond_its_axes(result):
    exact = [t for t in result.tests if t.bias.method == "enumeration"]
    style.png(figure.build(result.model_copy(update={"tests": exact})))
    far = result.tests[0]
    far = far.model_copy(update={"bias": far.bias.model_copy(update={"along": -9.0, "bias_squared": 81.0})})
    fig = figure.build(result.model_copy(update={"tests": [far]}))
    assert [a.get_text() for axes in visible(fig) for a in axes.texts] == ["-9", "9"]


def test_enumeration_gives_way_to_sampling_where_outcomes_are_many(monkeypatch):
    problem = make_problem("gaussian", 5, 3, 2, generator=seeded(7))
    monkeypatch.setattr(layer_tests, "_OUTCOMES", 3)
    found = examine_layer("a", *problem, CRS(budget=2), draws=50, level=LEVEL, generator=seeded(1))
    assert found.bias.method == "sampling"
    assert found.first_draws == 50


def test_few_draws_leave_a_mean_undecided(captures, tmp_path, capsys):
    """Not rejected, and nothing ruled out: no pass. As many draws as the summary says decide it."""
    arguments = [
        "test",
        captures,
        "--estimator",
        "crs",
        "--budget",
        0.3,
        "--layers",
        "block.*",
        "--against",
        "none",
    ]
    few = [*arguments, "--draws", 40, "--limit", 1e-6, "--level", LEVEL, "--out", tmp_path]
    assert main([str(a) for a in few]) == 3
    shown = capsys.readouterr().out
    assert "no bias: 0 of 2 claims broken" in shown
    assert "2 undecided" in shown
    found = load_result(tmp_path / "layer_tests.json")
    assert isinstance(found, LayerTestResult)
    assert (found.outcome, len(found.undecided)) == ("undecided", 2)
    assert all(t.bias.verdict == "undecided" and t.bias.detectable_along > t.bias.asked for t in found.tests)
    (table,) = layer_test_tables(found)
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["mean"] == ["[bold yellow]undecided[/bold yellow]"] * 2
    assert all(cell.startswith("~") for cell in cells["ruled out"])
    assert all("could be missed at 99 % power" in ruled_out(t) for t in found.tests)
    needed = max(draws_needed(t) or 0 for t in found.tests)
    assert f"about {needed:,} draws would rule out 10 % along G" in shown
    enough = [*arguments, "--draws", int(1.3 * needed), "--limit", 1e-6, "--level", LEVEL, "--out", tmp_path / "b"]
    assert main([str(a) for a in enough]) == 0


@pytest.mark.usefixtures("shrunk")
def test_a_bias_too_small_for_the_first_stage_is_found_in_a_later_one(captures):
    options = {"draws": 60, "level": 1e-9}
    short = examined(captures, "block.0.wi#0", "shrunk(budget=0.1)", limit=1e-6, **options)
    assert (short.bias.verdict, short.draws) == ("undecided", 60)
    long = examined(captures, "block.0.wi#0", "shrunk(budget=0.1)", limit=600.0, **options)
    assert long.bias.verdict == "broken"
    assert long.bias.looks > 1
    assert long.variance is not None
    assert short.variance is not None
    assert long.variance.measured == short.variance.measured
    assert "off by" in ruled_out(long)


def test_what_is_asked_for_holds_after_the_correction(captures):
    """With a family of 20 tests it takes more draws, and is ruled out at a twentieth of the level."""
    alone = examined(captures, "block.0.wi#0", "crs(budget=0.3)", draws=200)
    among = examined(captures, "block.0.wi#0", "crs(budget=0.3)", draws=200, family=20)
    if among.draws == alone.draws:
        assert among.bias.detectable_along > alone.bias.detectable_along
    else:
        assert among.draws > alone.draws
    others = [layer_test(str(i), 1.0, None) for i in range(19)]
    (first, *_) = adjusted_for_families([among, *others], LEVEL)
    assert first.bias.verdict == "holds"
    edge = among.bias.model_copy(update={"p_value": LEVEL / 20})
    (first, *_) = adjusted_for_families([among.model_copy(update={"bias": edge}), *others], LEVEL)
    assert first.bias.verdict == "broken"


def test_a_study_that_was_interrupted_ends_as_one_that_was_not(captures, tmp_path, monkeypatch):
    def study(out: Path) -> bytes:
        runner = Runner(folder=out)
        options = {"layers": ["block.*", "head"], "draws": 40, "bias": 0.6, "limit": 600.0, "runner": runner}
        layer_test_study(load_captures(captures), ["crs", "pivotal"], [0.3], out, **options)
        return (out / "layer_tests.json").read_bytes()

    whole = study(tmp_path / "a")
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return examine_entry(*arguments)

    monkeypatch.setattr(layer_test_studies, "examine_entry", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "b")
    assert study(tmp_path / "b") == whole
    assert len(calls) == 4 + 3


def test_a_row_says_what_was_ruled_out():
    held = layer_test("a", 0.5, None)
    found = held.bias.model_copy(update={"detectable_along": 0.012, "along": -0.068, "along_error": 0.009})

    def told(**changes: object) -> str:
        return ruled_out(held.model_copy(update={"bias": found.model_copy(update=changes)}))

    assert told() == "biases above 1.2 % of ‖G‖ along G ruled out with 99 % power"
    assert told(power=0.95).endswith("with 95 % power")
    undecided = {"verdict": "undecided", "detectable_along": 0.4}
    assert told(**undecided) == "biases up to 40 % of ‖G‖ along G could be missed at 99 % power"
    assert told(**undecided, rounding=0.2) == "rounding alone may be 20 % of ‖G‖"
    assert told(verdict="undecided", detectable_along=math.inf) == "all draws are alike: too few to tell"
    assert told(verdict="broken", bias_squared=1.44) == "off by -6.8 ± 0.9 % of ‖G‖ along G, by 120 % in norm"
    assert told(method="enumeration", detectable_along=None) == "exact: no bias"
    assert draws_needed(held.model_copy(update={"bias": found})) is None
    wide = found.model_copy(update=undecided)
    assert draws_needed(held.model_copy(update={"bias": wide, "draws": 1001})) == 17_000  # 4² times as many
    assert draws_needed(held.model_copy(update={"bias": wide.model_copy(update={"rounding": 0.2})})) is None


def test_older_files_are_read_in_todays_words():
    sampled = {"method": "sampling", "bias_squared": 0.0, "along": 0.0, "rounding": 0.0}
    exact = sampled | {"method": "enumeration"}

    def read(verdict: str, **changes: object) -> str:
        return BiasFinding.model_validate(sampled | {"verdict": verdict} | changes).verdict

    assert read("accepted", detectable_along=0.05) == "holds"
    assert read("accepted", detectable_along=0.2) == "undecided"
    assert read("accepted") == "accepted"
    assert read("accepted", **exact) == "holds"
    assert read("rejected", detectable_along=0.2) == "broken"
    assert read("biased, as declared") == "biased, as declared"


EXTERNAL = """
import torch

def sampled(x, dy, k):
    weights = x.norm(dim=1) * dy.norm(dim=1)
    rows = torch.multinomial(weights, k, replacement=True)
    factors = weights.sum() / (k * weights[rows])
    return (factors[:, None] * dy[rows]).T @ x[rows]

def unweighted(x, dy, k):
    rows = torch.randperm(len(x))[:k]
    return dy[rows].T @ x[rows]

class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        kept = 2.0 * (torch.rand(len(x), 1) < 0.5).to(x.dtype)
        return dy @ weight, (dy * kept).T @ x, dy.sum(0)

def fails(x, dy):
    if len(x) == 60:
        raise ValueError("sixty rows")
    return dy.T @ x
"""


@pytest.fixture
def external(tmp_path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(EXTERNAL)
    return path


def test_products_and_layers_of_others_are_tested_beside_a_baseline(captures, external, tmp_path, capsys):
    def run(name: str, *more: object) -> int:
        arguments = ["test", captures, "--estimator", f"{external}:{name}", "--layers", "block.0*", *more]
        return main([str(a) for a in [*arguments, "--out", tmp_path, "--draws", 60, *QUICK]])

    assert run("sampled", "--budget", 0.5, "--level", LEVEL) == 0
    found = load_result(tmp_path / "layer_tests.json")
    assert isinstance(found, LayerTestResult)
    (sound,) = found.tests
    assert (sound.estimator, sound.variance) == ("theirs.py:sampled(budget=0.5)", None)
    assert sound.ratio is not None
    assert sound.ratio.against.startswith("wta_crs(budget=0.5")
    assert run("unweighted", "--budget", 0.3) == 1
    assert run("Halved", "--against", "crs(budget=0.5)", "--level", LEVEL) == 0
    found = load_result(tmp_path / "layer_tests.json")
    assert isinstance(found, LayerTestResult)
    assert [(t.estimator, t.unbiased, t.bias.verdict) for t in found.tests] == [
        ("theirs.py:Halved", True, "holds")
    ]
    capsys.readouterr()
    assert run("fails") == 2
    assert "sixty rows" in capsys.readouterr().err
