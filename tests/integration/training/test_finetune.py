"""The training loop: it learns, stock transformers load what it writes, an interrupted run ends as a whole one."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import (
    CONFIG,
    NUMBERS,
    TASK,
    Interrupted,
    bert,
    check_resuming,
    interrupt_at,
    same_weights,
    tiny,
    without_times,
)
from torch import nn
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
    T5ForConditionalGeneration,
)

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.models.loading import small_t5, task_tokenizer
from wtacrs.integration.tasks.base import TaskData
from wtacrs.integration.tasks.encoding import collate, encode
from wtacrs.integration.training import checkpoints
from wtacrs.integration.training.config import _NUMBERS, DEMO
from wtacrs.integration.training.evaluation import Evaluator
from wtacrs.integration.training.loop import TrainingLoop, epoch_steps
from wtacrs.integration.training.run import finetune
from wtacrs.validation.records.receipt import Receipt
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.training import TrainingPoint


def test_a_tiny_t5_overfits(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = tiny(tokenizer)
    points: list[TrainingPoint] = []
    result = finetune(CONFIG.but(out=tmp_path / "run"), TASK, model, tokenizer, on_point=points.append)
    assert (result.best, result.final) == (1.0, 1.0)
    assert [point.step for point in result.history] == [0, 20, 40, 60]
    assert result.history == points
    assert result.history[0].train_loss is None
    losses = [point.train_loss for point in result.history[1:]]
    assert losses == sorted(losses, reverse=True)
    assert (result.task, result.estimator, result.converted, result.metric) == ("colours", "exact", 0, "accuracy")
    assert (result.train_size, result.dev_size, result.majority) == (32, 32, 0.5)
    assert result.parameters == model.num_parameters()
    assert not model.training
    assert load_result(tmp_path / "run" / "result.json") == result


def test_files_of_a_run_load_in_stock_transformers(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = tiny(tokenizer)
    finetune(CONFIG.but(out=tmp_path, estimator="wta_crs(budget=0.3)"), TASK, model, tokenizer)
    stock = T5ForConditionalGeneration.from_pretrained(tmp_path / "last").eval()
    assert same_weights(stock, model)
    assert set(stock.state_dict()) == set(tiny(tokenizer).state_dict())
    loaded = AutoTokenizer.from_pretrained(tmp_path / "best")
    best = T5ForConditionalGeneration.from_pretrained(tmp_path / "best")
    evaluate = Evaluator(TASK, loaded, text_to_text=True, max_length=24)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert evaluate(best)["accuracy"] == max(line["dev"]["accuracy"] for line in lines[1:])
    assert [line["step"] for line in lines] == [0, 20, 40, 60]
    assert all(line["examples_per_second"] > 0 for line in lines[1:])
    assert {"train_loss", "seconds", "epoch", "peak_memory_bytes"} <= set(lines[0])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("stop", [8, 12, 15])
def test_resumed_equals_uninterrupted(tokenizer: PreTrainedTokenizerBase, tmp_path: Path, stop: int) -> None:
    """With dropout, accumulation and short last batches; stopped between saves, at a save and later."""
    config = CONFIG.but(steps=21, batch_size=5, accumulation=2, eval_every=1, save_every=6)
    check_resuming(config, lambda: tiny(tokenizer, dropout=0.1), tokenizer, tmp_path, stop)


@pytest.mark.parametrize("scores", ["row-norms", "last-seen", "by-token", "learned"])
def test_resumed_equals_uninterrupted_with_an_estimator(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, scores: str
) -> None:
    """Remembered gradient norms are part of the state."""

    def model() -> T5ForConditionalGeneration:  # wide enough for its inputs to be sampled
        return small_t5(tokenizer, d_model=128, layers=1, heads=2, d_ff=64, dropout=0.1)

    config = CONFIG.but(steps=7, batch_size=16, eval_every=1, save_every=3, estimator="wta_crs(budget=0.2)")
    config = config.but(scores=scores)
    sampled = check_resuming(config, model, tokenizer, tmp_path, stop=5)
    if scores != "row-norms":
        plain = finetune(config.but(scores="row-norms"), TASK, model(), tokenizer)
        assert plain.history[-1].train_loss != sampled.history[-1].train_loss
        return
    exact = finetune(config.but(estimator=None), TASK, model(), tokenizer)
    assert exact.history[-1].train_loss != sampled.history[-1].train_loss


def test_resuming_a_finished_run_changes_nothing(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    first = finetune(CONFIG.but(steps=4, out=tmp_path), TASK, tiny(tokenizer), tokenizer)
    again = finetune(CONFIG.but(steps=4, out=tmp_path, resume=True), TASK, tiny(tokenizer), tokenizer)
    assert again == first


def test_a_state_from_before_scores_had_hyphens_goes_on(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    config = CONFIG.but(steps=2, estimator="crs(budget=0.5)", scores="last-seen", out=tmp_path)
    first = finetune(config, TASK, tiny(tokenizer), tokenizer)
    state = checkpoints.load_state(tmp_path / "state.pt")
    state["identity"]["config"]["scores"] = state["gradient_norms"]["kind"] = "last seen"
    checkpoints.save_state(tmp_path / "state.pt", state)
    assert finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer) == first
    with pytest.raises(InputError, match=r"config scores='by-token', but the run in .* had 'last-seen'"):
        finetune(config.but(scores="by-token", resume=True), TASK, tiny(tokenizer), tokenizer)


def test_a_run_without_weights_can_be_read(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """It goes on from the middle, and once it is over its result is all there is."""
    config = CONFIG.but(steps=6, save_every=2, eval_every=3, out=tmp_path / "short", keep_weights=False)
    whole = finetune(config.but(out=tmp_path / "whole", keep_weights=True), TASK, tiny(tokenizer), tokenizer)
    with pytest.raises(Interrupted):
        finetune(config, TASK, tiny(tokenizer), tokenizer, on_point=interrupt_at(3))
    result = finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer)
    assert without_times(result) == without_times(whole)
    again = finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer)
    assert again == result
    assert {path.name for path in (tmp_path / "short").iterdir()} == {"state.pt", "metrics.jsonl", "result.json"}
    sizes = [(tmp_path / name / "state.pt").stat().st_size for name in ("short", "whole")]
    assert sizes[0] < 0.2 * sizes[1]
    with pytest.raises(InputError, match="kept no weights"):
        finetune(config.but(resume=True, keep_weights=True), TASK, tiny(tokenizer), tokenizer)


def test_resume_refuses_what_does_not_fit(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = CONFIG.but(steps=2, out=tmp_path)
    with pytest.raises(InputError, match=r"state\.pt does not exist"):
        finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer)
    finetune(config, TASK, tiny(tokenizer), tokenizer)
    with pytest.raises(InputError, match=r"config lr=0\.5, but the run in .* had 0\.003"):
        finetune(config.but(resume=True, lr=0.5), TASK, tiny(tokenizer), tokenizer)
    with pytest.raises(InputError, match="task='shades', but"):
        finetune(config.but(resume=True), replace(TASK, name="shades"), tiny(tokenizer), tokenizer)
    shuffled = replace(TASK, train=TASK.train[::-1])
    with pytest.raises(InputError, match="resume: examples="):
        finetune(config.but(resume=True), shuffled, tiny(tokenizer), tokenizer)
    other = small_t5(tokenizer, d_model=16, layers=1, heads=2, d_ff=64)
    with pytest.raises(InputError, match="other layers or sizes"):
        finetune(config.but(resume=True), TASK, other, tokenizer)
    (tmp_path / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not the state of a run"):
        finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer)


def test_a_run_is_a_function_of_its_seed(tokenizer: PreTrainedTokenizerBase) -> None:
    config = CONFIG.but(steps=6, estimator="crs(budget=0.3)")
    first, second, other = (
        finetune(config.but(seed=seed), TASK, tiny(tokenizer, 0.1), tokenizer) for seed in (0, 0, 1)
    )
    assert without_times(first) == without_times(second)
    assert first.history[-1].train_loss != other.history[-1].train_loss


def test_estimator_is_used_and_taken_off_again(tokenizer: PreTrainedTokenizerBase) -> None:
    config = CONFIG.but(steps=3, batch_size=32)
    wide = {"d_model": 64, "layers": 1, "heads": 2, "d_ff": 64, "dropout": 0.0}
    exact, sampled = (small_t5(tokenizer, **wide) for _ in range(2))
    finetune(config, TASK, exact, tokenizer)
    seen: list[set[type]] = []
    result = finetune(
        config.but(estimator="wta_crs( budget = 0.1 )"),
        TASK,
        sampled,
        tokenizer,
        on_point=lambda point: seen.append({type(m) for m in sampled.modules() if isinstance(m, nn.Linear)}),
    )
    linears = [module for module in sampled.modules() if isinstance(module, nn.Linear)]
    assert result.converted == len(linears)
    assert result.estimator == 'wta_crs(budget=0.1, winners="paper")'
    assert seen[0] == {ApproxLinear}
    assert {type(module) for module in linears} == {nn.Linear}
    assert not same_weights(exact, sampled)


def test_a_run_says_what_a_step_keeps(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """What stock layers would keep is what an exact run of the same steps keeps, and depends on the first alone."""
    config = CONFIG.but(steps=2, batch_size=16, eval_every=1, save_every=1)

    def wide() -> T5ForConditionalGeneration:  # enough for its inputs to be sampled
        return small_t5(tokenizer, d_model=128, layers=1, heads=2, d_ff=64, dropout=0.1)

    told: list[Receipt] = []
    exact, sampled, short = (
        finetune(config.but(estimator=estimator, steps=steps), TASK, wide(), tokenizer, on_receipt=told.append)
        for estimator, steps in ((None, 2), ("crs(budget=0.2)", 2), ("crs(budget=0.2)", 1))
    )
    assert [exact.receipt, sampled.receipt, short.receipt] == told  # once for each run
    receipt = told[1]
    assert (receipt.kept, receipt.exact) == (sampled.kept_bytes, sampled.exact_bytes)
    assert receipt.promised == receipt.copies > 0
    assert len(receipt.holders) == 3
    assert told[0].layers == 0
    assert exact.kept_bytes == exact.exact_bytes == sampled.exact_bytes
    assert sampled.kept_bytes is not None
    assert sampled.kept_bytes < sampled.exact_bytes
    assert (short.kept_bytes, short.exact_bytes) == (sampled.kept_bytes, sampled.exact_bytes)


def test_a_state_from_before_bytes_were_measured_goes_on(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    config = CONFIG.but(steps=3, eval_every=1, save_every=1, out=tmp_path)
    with pytest.raises(Interrupted):
        finetune(config, TASK, tiny(tokenizer), tokenizer, on_point=interrupt_at(2))
    state = checkpoints.load_state(tmp_path / "state.pt")
    assert state["progress"].pop("kept_bytes") == state["progress"].pop("exact_bytes") > 0
    assert state["progress"].pop("receipt_fields")["layers"] == 0
    checkpoints.save_state(tmp_path / "state.pt", state)
    result = finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer)
    assert result.kept_bytes is not None
    assert result.kept_bytes == result.exact_bytes > 0
    assert result.receipt is not None


def test_a_receipt_is_kept_by_a_run_that_goes_on(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = CONFIG.but(steps=3, eval_every=1, save_every=1, out=tmp_path)
    told: list[Receipt] = []
    with pytest.raises(Interrupted):
        finetune(config, TASK, tiny(tokenizer), tokenizer, on_point=interrupt_at(2), on_receipt=told.append)
    result = finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer, on_receipt=told.append)
    assert told == [result.receipt]
    assert load_result(tmp_path / "result.json") == result


def test_model_is_restored_when_a_run_breaks(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny(tokenizer)
    with pytest.raises(Interrupted):
        finetune(CONFIG.but(estimator="crs(budget=0.3)"), TASK, model, tokenizer, on_point=interrupt_at(0))
    assert not [module for module in model.modules() if isinstance(module, ApproxLinear)]


@pytest.mark.parametrize(("task", "outputs"), [(TASK, 2), (NUMBERS, 1)])
def test_classification_and_regression_heads(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, task: TaskData, outputs: int
) -> None:
    model = bert(tokenizer, outputs)
    result = finetune(CONFIG.but(steps=80, eval_every=80, out=tmp_path), task, model, tokenizer)
    assert result.final > 0.9
    assert set(result.history[-1].dev) == set(task.metrics)
    assert same_weights(BertForSequenceClassification.from_pretrained(tmp_path / "best"), model)


def test_t5_writes_numbers(tokenizer: PreTrainedTokenizerBase) -> None:
    numbers = task_tokenizer(NUMBERS, 300)
    result = finetune(CONFIG.but(steps=80, eval_every=80), NUMBERS, tiny(numbers), numbers)
    assert result.final > 0.95


def test_bf16_then_fp32_in_one_process(tokenizer: PreTrainedTokenizerBase) -> None:
    model = tiny(tokenizer)
    for precision in ("bf16", "fp32"):
        result = finetune(CONFIG.but(steps=3, precision=precision), TASK, model, tokenizer)
        assert result.history[-1].train_loss is not None
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_accumulated_batches_are_one_large_batch(tokenizer: PreTrainedTokenizerBase) -> None:
    """One step over all 32 examples, whole and in four parts: targets are of one length, so means agree."""
    one, four = tiny(tokenizer), tiny(tokenizer)
    config = CONFIG.but(steps=1, batch_size=32, warmup=0.0, schedule="constant")
    finetune(config, TASK, one, tokenizer)
    finetune(config.but(batch_size=8, accumulation=4), TASK, four, tokenizer)
    for a, b in zip(one.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_loss_that_is_not_finite(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = tiny(tokenizer)
    with torch.no_grad():
        model.shared.weight[5:].fill_(float("nan"))
    with pytest.raises(InputError, match=r"lr=0\.003: the training loss is nan at step 1 .*exact, fp32"):
        finetune(CONFIG.but(out=tmp_path), TASK, model, tokenizer)


def test_an_epoch_has_every_example_once(tokenizer: PreTrainedTokenizerBase) -> None:
    data = encode(TASK.train, tokenizer, text_to_text=True, max_length=24)
    config = CONFIG.but(batch_size=3, accumulation=2)
    steps = epoch_steps(data, config, 0)
    flat = [id(example) for step in steps for batch in step for example in batch]
    assert sorted(flat) == sorted(map(id, data))
    assert len(steps) == 6  # ⌈32 / 6⌉
    assert all(len(batch) <= 3 for step in steps for batch in step)
    assert steps == epoch_steps(data, config, 0) != epoch_steps(data, config, 1)


@pytest.mark.parametrize(
    ("schedule", "falling"),
    [
        ("linear", lambda share: 1 - share),
        ("cosine", lambda share: (1 + math.cos(math.pi * share)) / 2),
        ("constant", lambda share: 1.0),
    ],
)
def test_schedules_warm_up_and_fall(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, schedule: str, falling: Callable[[float], float]
) -> None:
    config = CONFIG.but(steps=8, batch_size=32, warmup=0.25, schedule=schedule, eval_every=1, out=tmp_path)
    finetune(config, TASK, tiny(tokenizer), tokenizer)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    expected = [0.0, 0.5] + [falling(step / 6) for step in range(6)]
    assert [line["learning_rate"] for line in lines[1:]] == pytest.approx(
        [CONFIG.lr * share for share in expected]
    )
    assert lines[0]["learning_rate"] is lines[0]["gradient_norm"] is None


def test_evaluations_may_begin_late(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = CONFIG.but(steps=7, eval_every=2, eval_from=4, out=tmp_path, save_every=1)
    result = finetune(config, TASK, tiny(tokenizer), tokenizer)
    assert [point.step for point in result.history] == [4, 6, 7]
    early = CONFIG.but(steps=7, eval_every=2)
    assert [p.step for p in finetune(early, TASK, tiny(tokenizer), tokenizer).history] == [0, 2, 4, 6, 7]
    again = finetune(config.but(resume=True), TASK, tiny(tokenizer), tokenizer)
    assert again.history == result.history


def test_the_dev_loss_is_that_of_the_model(tokenizer: PreTrainedTokenizerBase) -> None:
    """One example at a time by stock transformers; over tokens where a model writes, else over examples."""
    how = {"text_to_text": False, "max_length": 24, "batch_size": 5, "with_loss": True}
    for task, outputs in ((TASK, 2), (NUMBERS, 1)):
        model = bert(tokenizer, outputs).eval()
        encoded = encode(task.dev, tokenizer, text_to_text=False, max_length=24)
        losses = [model(**collate([one], tokenizer, regression=task.regression)).loss.item() for one in encoded]
        found = Evaluator(task, tokenizer, **how)(model.train())["loss"]
        assert found == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        assert model.training
    model = tiny(tokenizer).eval()
    encoded = encode(TASK.dev, tokenizer, text_to_text=True, max_length=24)
    tokens = [len(one.target or ()) for one in encoded]
    losses = [model(**collate([one], tokenizer)).loss.item() for one in encoded]
    found = Evaluator(TASK, tokenizer, **how | {"text_to_text": True})(model)["loss"]
    assert found == pytest.approx(sum(a * b for a, b in zip(losses, tokens, strict=True)) / sum(tokens), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("adafactor", torch.optim.Adafactor)],
)
def test_optimizers_learn_and_resume(
    name: str, kind: type, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    config = CONFIG.but(steps=4, optimizer=name, lr=0.05, weight_decay=0.1, clip=None)
    loop = TrainingLoop(config, TASK, tiny(tokenizer), tokenizer)
    inner = loop.optimizer.optimizer
    assert type(inner) is kind
    assert {group["weight_decay"] for group in inner.param_groups} == {0.0, 0.1}
    if name == "sgd":
        assert {group["momentum"] for group in inner.param_groups} == {0.9}
    loop.train()
    assert loop.losses[-1] < loop.losses[0]


@pytest.mark.parametrize("clip", [0.01, None])
def test_gradients_are_clipped_before_the_optimizer_sees_them(
    tokenizer: PreTrainedTokenizerBase, clip: float | None
) -> None:
    trainer = TrainingLoop(CONFIG.but(steps=3, clip=clip, weight_decay=0.1), TASK, tiny(tokenizer), tokenizer)
    seen: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        squares = [p.grad.square().sum() for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.stack(squares).sum().sqrt().item())

    trainer.optimizer.optimizer.register_step_pre_hook(look)
    trainer.train()
    assert trainer.gradient_norm > 0.1
    assert seen[-1] == pytest.approx(trainer.gradient_norm if clip is None else clip, rel=1e-3)
    decays = {p.ndim >= 2: g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert decays == {True: 0.1, False: 0.0}


def test_evaluation_is_what_greedy_generation_writes(tokenizer: PreTrainedTokenizerBase) -> None:
    """One example at a time by stock `generate`, against the label's text; an untrained model writes no label."""
    model = tiny(tokenizer)
    evaluate = Evaluator(TASK, tokenizer, text_to_text=True, max_length=24)
    assert evaluate(model.eval())["accuracy"] == 0.0
    finetune(CONFIG.but(steps=40, eval_every=40), TASK, model, tokenizer)
    right = 0
    for example in TASK.dev:
        tokens = tokenizer(example.text, return_tensors="pt", max_length=24, truncation=True)
        written = model.generate(tokens["input_ids"], max_new_tokens=8, do_sample=False, num_beams=1)
        text = "".join(tokenizer.decode(written[0], skip_special_tokens=True).split())
        right += text == example.target
    assert evaluate(model)["accuracy"] == right / len(TASK.dev)
    assert right > 0


def test_without_tensorboard_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n.startswith("tensorboard") else find(n))
    with pytest.raises(InputError, match=r"^tensorboard=True: neither .* pip install 'wtacrs\[tensorboard\]'$"):
        CONFIG.but(out=tmp_path, tensorboard=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": float("nan")}, "lr="),
        ({"epochs": -1}, "epochs=-1"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"accumulation": 0}, "accumulation=0"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"schedule": "steep"}, "schedule='steep'"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"max_length": 0}, "max_length=0"),
        ({"eval_every": 0}, "eval_every=0"),
        ({"seed": -1}, "seed=-1: must be an integer from 0 to 4294967295"),
        ({"seed": 10**20}, "seed=100000000000000000000: must be an integer from 0 to 4294967295"),
        ({"seed": True}, "seed=True: must be an integer"),
        ({"seed": None}, "seed=None: must be an integer"),
        ({"estimator": "wta_csr(budget=0.3)"}, "wta_crs"),
        ({"estimator": "crs(budget=-0.3)"}, "budget"),
        ({"scores": "oracle"}, "scores='oracle': must be one of 'row-norms', 'last-seen'"),
        ({"scores": "last-seen"}, "scores='last-seen' need an estimator"),
        ({"resume": True}, "resume=True needs out"),
        ({"tensorboard": True}, "tensorboard=True needs out"),
        ({"schedule": "constant_with_warmup"}, "schedule="),
        ({"epoch": 3}, "epoch"),
        *(({name: True}, f"{name}=True: must be a number") for name in _NUMBERS),
        ({"layers": ()}, "layers=(): must have at least one pattern"),
        ({"layers": "classifier"}, "layers='classifier': "),
        ({"lr": [[0.1] * 99] * 9}, "lr=[[0.1, "),
    ],
)
def test_bad_settings_are_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        CONFIG.but(**changes)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"steps": 3}}, r"config={'steps': 3} must be a FinetuneConfig"),
        ({"task": "shades"}, "task='shades' must be a TaskData"),
        ({"model": "t5-small"}, "model='t5-small' must be a PreTrainedModel"),
        ({"tokenizer": None}, "tokenizer=None must be a PreTrainedTokenizerBase"),
        ({"progress": "no"}, "progress='no' must be True or False"),
        ({"on_point": 3}, "on_point=3 must be a function"),
    ],
)
def test_an_argument_of_another_type_is_named(
    unchecked: None, tokenizer: PreTrainedTokenizerBase, changes: dict[str, Any], message: str
) -> None:
    usual = {"config": CONFIG, "task": TASK, "model": tiny(tokenizer), "tokenizer": tokenizer}
    with pytest.raises(InputError, match=message):
        finetune(**(usual | changes))


def test_demo_settings() -> None:
    assert DEMO.but(seed=3, out=Path("x")).identity() == DEMO.identity() | {"seed": 3}


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(tokenizer)
    checkpoints.save_checkpoint(tmp_path / "best", model, tokenizer)
    before = {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}

    def break_down(*args: Any, **kwargs: Any) -> None:
        raise Interrupted

    monkeypatch.setattr(type(tokenizer), "save_pretrained", break_down)
    with torch.no_grad():
        model.shared.weight.zero_()
    with pytest.raises(Interrupted):
        checkpoints.save_checkpoint(tmp_path / "best", model, tokenizer)
    assert {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def is_mask(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 2


@pytest.mark.filterwarnings("ignore:rows that a mask calls padding")
def test_masks_that_mislead_are_in_the_result_and_in_the_state(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "wtacrs.integration.context.forward_context.mask_sources",
        lambda _, arguments: [(mask, mask == 0) for mask in [arguments.get("attention_mask")] if is_mask(mask)],
    )
    config = CONFIG.but(steps=4, batch_size=32, eval_every=2, estimator="wta_crs(budget=0.3)", out=tmp_path)
    result = finetune(config, TASK, tiny(tokenizer), tokenizer)
    assert result.masked_gradient
    assert load_result(tmp_path / "result.json") == result
    state = checkpoints.load_state(tmp_path / "state.pt")
    assert state["random"]["sampling"][""]["misled"] == result.masked_gradient
    with pytest.raises(InputError, match="masked_gradient='raise': rows that a mask calls padding carry gradient"):
        finetune(config.but(out=None, masked_gradient="raise"), TASK, tiny(tokenizer), tokenizer)


def test_right_masks_are_told_of_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    config = CONFIG.but(steps=2, batch_size=32, estimator="wta_crs(budget=0.3)", masked_gradient="raise")
    assert finetune(config, TASK, tiny(tokenizer), tokenizer).masked_gradient == {}
