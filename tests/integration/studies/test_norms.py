"""Gradient norms over training: what is recorded is what autograd and the closed forms say; a stopped study goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.figure_parts import legend
from support.models import bert_batch, tiny_bert, tiny_t5
from support.runs import Interrupted
from support.runs_study import Colours
from torch import nn

from wtacrs.estimators import InputError, make
from wtacrs.figures import style
from wtacrs.figures.plots import norms as norms_figure
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.studies.norms import NormRecorder, check_layer, default_layer, norms_study
from wtacrs.integration.tables.norms import norms_table
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.validation.enumeration.exact_moments import enumerate_moments
from wtacrs.validation.layers.scores import layer_scores
from wtacrs.validation.records.norms import NormsResult
from wtacrs.validation.records.results import load_result
from wtacrs.validation.summaries.norms import running_median

LAYER = "encoder.block.0.layer.1.DenseReluDense.wi"


CONFIG = FinetuneConfig(
    steps=5, batch_size=8, lr=3e-3, max_length=24, eval_every=5, save_every=2, estimator="crs(budget=0.3)"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[NormsResult, Path]:
    out = tmp_path_factory.mktemp("norms")
    return norms_study(Colours(), CONFIG, out), out


@pytest.mark.parametrize("spec", ["crs(budget=2)", "wta_crs(budget=2)", "topk(budget=2)"])
def test_what_is_expected_is_the_root_of_the_mean_square(spec: str, tmp_path: Path) -> None:
    """Of all outcomes, by enumeration; of top-k, which is biased, too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), ApproxLinear(4, 3, estimator=spec)).double()
    recorder = NormRecorder("1", tmp_path / "norms.json")
    recorder.started(model, 0)
    x = torch.randn(5, 4, dtype=torch.float64)
    output = model(x)
    weights = torch.randn(5, 3, dtype=torch.float64)
    (output * weights).sum().backward()
    recorder.gradients(1)
    hidden = model[0](x).detach()
    moments = enumerate_moments(make(spec), hidden, weights)
    (point,) = recorder.points
    assert point.step == 1
    assert point.used == pytest.approx(float(model[1].weight.grad.norm()))
    assert point.exact == pytest.approx(float((weights.T @ hidden).norm()))
    assert point.expected == pytest.approx((float(moments.mean.square().sum()) + moments.variance) ** 0.5)


def test_the_scores_in_use_leave_out_padding(tmp_path: Path) -> None:
    model = tiny_bert()
    name = default_layer(model)
    entry = capture(tiny_bert(), [bert_batch()], tmp_path / "c.safetensors")[f"{name}#0"]
    approximate_(model, "crs(budget=0.3)", filter_fn=lambda _, each: each == name, mask_floor=1e-9)
    recorder = NormRecorder(name, tmp_path / "norms.json")
    recorder.started(model, 0)
    model(**bert_batch()).loss.backward()
    recorder.gradients(1)
    size = float((entry.dy.double().T @ entry.x.double()).square().sum())

    def expected(mask: torch.Tensor | None) -> float:
        scores = layer_scores("row-norms", entry.x, entry.dy, mask)
        return (size + float(make("crs(budget=0.3)").variance(entry.x, entry.dy, scores=scores))) ** 0.5

    assert recorder.points[0].expected == pytest.approx(expected(entry.mask), rel=1e-4)
    assert recorder.points[0].expected != pytest.approx(expected(None), rel=1e-2)


def test_accumulated_batches_add_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ApproxLinear(4, 3, estimator="crs(budget=2)"))
    recorder = NormRecorder("0", tmp_path / "norms.json")
    recorder.started(model, 0)
    batches = [torch.randn(6, 4) for _ in range(2)]
    for x in batches:
        model(x).sum().backward()
    with torch.no_grad():
        model(batches[0])  # an evaluation in between is none of a step's business
    recorder.gradients(1)
    ones = torch.ones(6, 3)
    exact = sum(ones.T @ x for x in batches)
    variance = sum(float(make("crs(budget=2)").variance(x, ones)) for x in batches)
    assert recorder.points[0].exact == pytest.approx(float(exact.norm()), rel=1e-5)
    assert recorder.points[0].expected == pytest.approx((float(exact.square().sum()) + variance) ** 0.5, rel=1e-5)


def test_a_study_records_every_step_of_both_runs(study: tuple[NormsResult, Path]) -> None:
    result, out = study
    assert load_result(out / "gradient_norms.json") == result
    assert (result.layer, result.estimator, result.unbiased) == (LAYER, "crs(budget=0.3)", True)
    assert [p.step for p in result.estimated] == [p.step for p in result.exact] == [1, 2, 3, 4, 5]
    for point in result.exact:
        assert point.used == pytest.approx(point.exact, rel=1e-4)
        assert point.expected == point.exact
    for point in result.estimated:
        assert point.expected > point.exact
        assert point.used != pytest.approx(point.exact, rel=1e-3)
    assert {path.name for path in out.iterdir()} >= {"exact", "estimated", "gradient_norms.png"}
    table = norms_table(result)
    assert table.row_count == 5
    assert f"{result.final:.3f} with the estimator, {result.final_exact:.3f} exact" in str(table.caption)


def test_a_stopped_study_ends_as_a_whole_one(
    study: tuple[NormsResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second run at its third step, one after the saved state."""
    honest, seen = NormRecorder.gradients, []

    def stopping(self: NormRecorder, step: int) -> None:
        seen.append(step)
        if len(seen) == CONFIG.steps + 4:
            raise Interrupted
        honest(self, step)

    monkeypatch.setattr(NormRecorder, "gradients", stopping)
    with pytest.raises(Interrupted):
        norms_study(Colours(), CONFIG, tmp_path)
    assert not (tmp_path / "gradient_norms.json").exists()
    torch.manual_seed(99)
    resumed = norms_study(Colours(), CONFIG, tmp_path)
    assert seen[-3:] == [3, 4, 5]
    assert len(seen) == CONFIG.steps + 4 + 3
    assert resumed == study[0]
    (tmp_path / "estimated" / "norms.json").write_text("[]")
    with pytest.raises(InputError, match="holds 0 of 5 steps"):
        norms_study(Colours(), CONFIG, tmp_path)
    assert norms_study(Colours(), CONFIG, tmp_path, overwrite=True) == study[0]
    with pytest.raises(InputError, match="config lr="):
        norms_study(Colours(), CONFIG.but(lr=1e-3), tmp_path)


def test_layers_that_cannot_be_watched(tmp_path: Path) -> None:
    model = tiny_t5()
    assert default_layer(model) == "encoder.block.1.layer.1.DenseReluDense.wi"
    with pytest.raises(InputError, match=r"layer='nothing' is no linear layer"):
        check_layer(model, "nothing")
    with pytest.raises(InputError, match=r"layer='shared' is no linear layer"):
        check_layer(model, "shared")
    with pytest.raises(InputError, match="layer='lm_head' shares its weight with 'shared'"):
        check_layer(model, "lm_head")
    with pytest.raises(InputError, match="none of the known names"):
        default_layer(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(InputError, match="estimator='exact'"):
        norms_study(Colours(), CONFIG.but(estimator=None), tmp_path)


def test_the_figure_shows_the_three_curves_and_the_ratio(study: tuple[NormsResult, Path]) -> None:
    result = study[0]
    fig = norms_figure.build(result)
    norms, ratios = fig.axes
    shown = [list(line.get_ydata()) for line in norms.get_lines()]
    for values in (
        [p.used for p in result.estimated],
        [p.exact for p in result.estimated],
        [p.expected for p in result.estimated],
        [p.exact for p in result.exact],
    ):
        assert values in shown
    assert [p.used / p.exact for p in result.estimated] in [list(line.get_ydata()) for line in ratios.get_lines()]
    assert len(legend(fig)) == 4
    assert any("√(‖G‖² + Var)" in label for label in legend(fig))
    unknown = result.model_copy(
        update={"estimated": [p.model_copy(update={"expected": None}) for p in result.estimated]}
    )
    assert len(legend(norms_figure.build(unknown))) == 3
    still = [p.model_copy(update={"used": 0.0, "exact": 0.0}) for p in result.estimated]
    with pytest.raises(style.NothingToDraw, match="positive, finite"):
        norms_figure.build(result.model_copy(update={"estimated": still}))


def test_long_runs_are_drawn_as_running_medians(study: tuple[NormsResult, Path]) -> None:
    first = study[0].estimated[0]
    points = [first.model_copy(update={"step": i, "used": 1.0 + i % 7}) for i in range(1, 201)]
    norms = norms_figure.build(study[0].model_copy(update={"estimated": points})).axes[0]
    smooth = running_median([p.used for p in points], 10)
    assert smooth in [list(line.get_ydata()) for line in norms.get_lines()]
