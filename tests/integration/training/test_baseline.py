"""Exact steps before a run: they change nothing of it, and what they cost is what exact training costs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from support.runs import CONFIG, TASK, bert, same_weights, tiny, without_times
from torch import nn
from transformers import PreTrainedTokenizerBase

from wtacrs.estimators import InputError
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.training.baseline import measure_baseline, wants_baseline
from wtacrs.integration.training.run import finetune
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.training import StepCost, TrainingResult
from wtacrs.validation.summaries.training import cost_lines, majority_warning

SHORT = CONFIG.but(steps=6, eval_every=3, estimator="wta_crs(budget=0.3)")


@pytest.mark.parametrize("changes", [{}, {"lean": "attention"}, {"estimator": None, "lean": "neighbours"}])
def test_the_run_is_what_it_is_without_a_baseline(
    changes: dict[str, str], tokenizer: PreTrainedTokenizerBase
) -> None:
    """With dropout, so that a random number that is used up would be seen."""
    with_it, without = tiny(tokenizer, dropout=0.3), tiny(tokenizer, dropout=0.3)
    config = SHORT.but(**changes)
    found = finetune(config.but(baseline_steps=2), TASK, with_it, tokenizer)
    plain = finetune(config, TASK, without, tokenizer)
    assert same_weights(with_it, without)
    assert without_times(found) | {"step": None, "baseline": None} == without_times(plain)
    assert (plain.step, plain.baseline) == (None, None)
    assert found.step is not None
    assert found.baseline is not None
    assert len(found.step.seconds) == len(found.baseline.seconds) == len(found.time_ratios) == 2
    assert found.step.kept_bytes == found.kept_bytes
    assert found.step.peak_bytes
    assert found.baseline.peak_bytes


def test_exact_bytes_are_those_of_exact_training(tokenizer: PreTrainedTokenizerBase) -> None:
    exact = finetune(SHORT.but(estimator=None), TASK, tiny(tokenizer), tokenizer)
    found = finetune(SHORT.but(baseline_steps=1, lean="attention"), TASK, tiny(tokenizer), tokenizer)
    assert found.baseline is not None
    assert found.baseline.kept_bytes == exact.kept_bytes
    assert found.kept_bytes is not None
    assert exact.kept_bytes is not None
    assert found.kept_bytes < exact.kept_bytes


def test_buffers_and_gradients_end_as_they_were(tokenizer: PreTrainedTokenizerBase) -> None:
    model = bert(tokenizer, 2)
    model.bert.pooler = nn.Sequential(_FirstToken(), nn.BatchNorm1d(32))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    cost, train_set = measure_baseline(SHORT.but(baseline_steps=1), TASK, model, tokenizer)
    assert len(train_set) == len(TASK.train)
    assert len(cost.seconds) == 1
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(isinstance(module, ApproxLinear) for module in model.modules())


class _FirstToken(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, 0]


def test_runs_with_fewer_steps_than_are_timed(tokenizer: PreTrainedTokenizerBase) -> None:
    found = finetune(SHORT.but(steps=2, baseline_steps=3), TASK, tiny(tokenizer), tokenizer)
    assert found.time_ratios == []
    assert "too few steps" in "".join(cost_lines(found))


def test_a_resumed_run_keeps_what_was_measured(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = SHORT.but(baseline_steps=2, out=tmp_path, steps=4, save_every=1)
    first = finetune(config, TASK, tiny(tokenizer), tokenizer)
    (tmp_path / "result.json").unlink()
    again = finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer)
    assert (again.step, again.baseline) == (first.step, first.baseline)
    assert not wants_baseline(config.but(resume=True))


def test_exact_training_has_no_baseline() -> None:
    assert not wants_baseline(SHORT.but(estimator=None, baseline_steps=3))


@pytest.mark.parametrize("value", [-1, True, 1.5])
def test_unusable_numbers_of_steps(value: object) -> None:
    with pytest.raises(InputError, match="baseline_steps"):
        SHORT.but(baseline_steps=value)


EXAMPLE = TrainingResult(
    stamp=stamp(seed=0, device="cpu", inputs={}),
    task="colours", model="tiny", estimator="crs(budget=0.3)", parameters=1, converted=1, train_size=100, dev_size=100,
    metric="accuracy", majority=0.5, best=0.9, final=0.9, history=[],
)  # fmt: skip


def result(**values: object) -> TrainingResult:
    return EXAMPLE.model_copy(update=values)


def test_what_is_told_of_a_step() -> None:
    step = StepCost(seconds=[0.1, 0.3, 0.2], kept_bytes=5_000_000, peak_bytes=6_000_000)
    exact = StepCost(seconds=[0.2, 0.2, 0.2], kept_bytes=10_000_000, peak_bytes=8_000_000)
    kept, peak, time = cost_lines(result(step=step, baseline=exact, receipt=None))
    assert "5.00 of 10.0 MB, 50%" in kept
    assert "6.00 of 8.00 MB, 75%" in peak
    assert "1.00 times" in time
    assert "from 0.50 to 1.50 in 3 pairs" in time
    assert list(cost_lines(result(step=None, baseline=None))) == []
    assert "7 steps had no update" in list(cost_lines(result(step=step, baseline=exact, skipped=7)))[-1]


@pytest.mark.parametrize(
    ("metric", "final", "majority", "warned"),
    [
        ("accuracy", 0.5, 0.5, True),
        ("accuracy", 0.59, 0.5, True),  # within two standard errors of 100 answers
        ("accuracy", 0.61, 0.5, False),
        ("matthews", 0.0, 0.0, True),
        ("matthews", 0.01, 0.0, False),
        ("accuracy", 0.2, math.nan, False),
    ],
)
def test_scores_of_the_majority_are_told(metric: str, final: float, majority: float, warned: bool) -> None:
    run = result(metric=metric, final=final, majority=majority, dev_size=100)
    assert (majority_warning(run) is not None) == warned


def test_a_killed_run_names_the_command_that_goes_on(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    def stop(point: object) -> None:
        if getattr(point, "step", 0) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        finetune(SHORT.but(out=tmp_path, save_every=2), TASK, tiny(tokenizer), tokenizer, on_point=stop)
    assert stopped.value.__notes__ == [
        f"interrupted at step 3 of 6; wtacrs finetune --resume --out {tmp_path} goes on from step 2"
    ]


def test_fp16_learns_and_leaves_steps_out_that_overflow(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients are those of fp32 but for rounding; a factor that overflows skips steps, and a resumed run goes on so."""
    config = SHORT.but(precision="fp16", estimator="crs(budget=0.5)", out=tmp_path, save_every=2)
    found = finetune(config.but(steps=60, eval_every=60), TASK, bert(tokenizer, 2), tokenizer)
    assert found.skipped == 0
    assert found.history[-1].train_loss is not None
    assert found.final > 0.9

    def scaler(device: str, enabled: bool) -> torch.amp.GradScaler:
        return made(device, init_scale=2.0**40, enabled=enabled)

    made = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    whole = finetune(config.but(out=tmp_path / "whole"), TASK, bert(tokenizer, 2), tokenizer)
    assert 0 < whole.skipped <= 6
    with pytest.raises(KeyboardInterrupt):
        finetune(config.but(out=tmp_path / "part"), TASK, bert(tokenizer, 2), tokenizer, on_point=_stop_at_3)
    resumed = finetune(config.but(out=tmp_path / "part", resume=True), TASK, bert(tokenizer, 2), tokenizer)
    assert without_times(resumed) == without_times(whole)


def _stop_at_3(point: object) -> None:
    if getattr(point, "step", 0) == 3:
        raise KeyboardInterrupt


def test_trackers_are_told_what_the_metrics_are(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import tracking

    told: list[tuple[int | None, dict[str, float]]] = []

    class Notebook(tracking.GeneralTracker):
        name, requires_logging_directory = "notebook", False
        settings: dict[str, object]
        finished = 0

        def __init__(self, run_name: str, **_: object) -> None:
            super().__init__()

        @property
        def tracker(self) -> None:
            return None

        def start(self) -> None: ...

        def store_init_configuration(self, values: dict[str, object]) -> None:
            Notebook.settings = values

        def log(self, values: dict[str, float], step: int | None = None, **_: object) -> None:
            told.append((step, values))

        def finish(self) -> None:
            Notebook.finished += 1

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    config = SHORT.but(trackers=("notebook",), out=tmp_path)
    finetune(config, TASK, tiny(tokenizer), tokenizer)
    assert Notebook.finished == 1
    assert Notebook.settings["lr"] == config.lr
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(step, v["dev/accuracy"]) for step, v in told if "dev/accuracy" in v] == [
        (line["step"], line["dev"]["accuracy"]) for line in lines
    ]
    assert [step for step, values in told if "train/loss" in values] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("name", "told"), [("wanda", "'wanda' is unknown; accelerate has .*wandb"), ("aim", "pip")]
)
def test_trackers_that_cannot_be_used(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        SHORT.but(trackers=(name,))
