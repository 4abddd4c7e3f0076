"""The training figure shows the histories of the runs, each once."""

from __future__ import annotations

import pytest
from support import figure_examples as examples
from support.figure_parts import legend

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.plots import training as training_figure
from wtacrs.figures.plots import winner_sweep
from wtacrs.validation.records.training import TrainingResult


@pytest.fixture(scope="module")
def runs() -> list[TrainingResult]:
    return [examples.training(text) for text in examples.RUNS]


@pytest.mark.parametrize("against", ["step", "seconds"])
def test_training_lines_are_the_histories(runs: list[TrainingResult], against: str) -> None:
    fig = training_figure.build(runs, against=against)  # type: ignore[arg-type]
    dev, loss = fig.axes
    assert len(dev.get_lines()) == len(runs) + 1
    for run, metric, losses in zip(runs, dev.get_lines(), loss.get_lines(), strict=False):
        assert list(metric.get_ydata()) == [p.dev["accuracy"] for p in run.history]
        assert list(losses.get_ydata()) == [p.train_loss for p in run.history]
        assert list(metric.get_xdata()) == [getattr(p, against) for p in run.history]
        assert f"{run.estimator}: final {run.final:.3f}" in legend(fig)
    assert dev.get_lines()[-1].get_ydata()[0] == runs[0].majority
    assert f"majority class: {runs[0].majority:.3f}" in legend(fig)


def test_runs_of_one_estimator_share_the_colour_and_differ_in_dashes(runs: list[TrainingResult]) -> None:
    lines = training_figure.build(runs).axes[0].get_lines()
    assert lines[1].get_color() == lines[2].get_color() == style.look(winner_sweep.PAPER).colour
    assert lines[1].is_dashed() != lines[2].is_dashed()
    seeds = [examples.training("crs(budget=0.3)", seed) for seed in (3, 4)]
    labels = legend(training_figure.build(seeds))
    assert [label.split(":")[0] for label in labels[:2]] == ["crs(budget=0.3), seed 3", "crs(budget=0.3), seed 4"]


def test_a_point_without_training_loss_is_left_out_of_the_loss_alone(runs: list[TrainingResult]) -> None:
    first = runs[0].history[0].model_copy(update={"train_loss": None, "step": 0})
    run = runs[0].model_copy(update={"history": [first, *runs[0].history]})
    dev, loss = training_figure.build([run]).axes
    assert len(dev.get_lines()[0].get_xdata()) == len(loss.get_lines()[0].get_xdata()) + 1


def test_training_refuses_what_it_cannot_show(runs: list[TrainingResult]) -> None:
    with pytest.raises(InputError, match="results is empty"):
        training_figure.build([])
    with pytest.raises(InputError, match="kind 'sweep'"):
        training_figure.build([examples.sweep()])  # type: ignore[list-item]
    with pytest.raises(InputError, match="one task, got planes, other"):
        training_figure.build([runs[0], examples.training("exact", task="other")])
    with pytest.raises(InputError, match="no dev metric 'f1', only accuracy"):
        training_figure.build([runs[0].model_copy(update={"metric": "f1"})])
    with pytest.raises(style.NothingToDraw, match="history is empty"):
        training_figure.build([runs[0].model_copy(update={"history": []})])
