"""Trainer with one line more: stock checkpoints, the same optimizer, resumed bit by bit, and what it logs."""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
import re
import signal
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.models import VOCABULARY, tiny_bert
from support.runs import same_weights
from torch import nn
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from wtacrs.estimators.core.errors import InputError, WtacrsWarning
from wtacrs.estimators.core.mask_floor import MASK_FLOOR
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.training import callback as module
from wtacrs.integration.training.callback import WtacrsCallback
from wtacrs.integration.training.conversion import LayerConversion
from wtacrs.validation.records.receipt import receipt_lines

SPEC = 'wta_crs(budget=0.3, winners="paper")'


def examples(count: int = 12) -> list[dict[str, torch.Tensor]]:
    """Ragged inputs, already padded, and three tokens to write."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(count):
        tokens = torch.randint(2, VOCABULARY, (12,), generator=generator)
        mask = torch.arange(12) < torch.randint(4, 13, (1,), generator=generator)
        labels = torch.randint(2, VOCABULARY, (3,), generator=generator)
        found.append({"input_ids": tokens * mask, "attention_mask": mask.long(), "labels": labels})
    return found


def small_t5(dropout: float = 0.0) -> T5ForConditionalGeneration:
    """17 linear layers."""
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": VOCABULARY}
    return T5ForConditionalGeneration(T5Config(**sizes, dropout_rate=dropout, decoder_start_token_id=0))


def arguments(out: Path, **changes: Any) -> Seq2SeqTrainingArguments:
    settings: dict[str, Any] = {
        "max_steps": 5,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "seed": 5,
    }
    return Seq2SeqTrainingArguments(str(out), **(settings | changes))


def trainer(
    out: Path, *callbacks: TrainerCallback, model: nn.Module | None = None, **changes: Any
) -> Seq2SeqTrainer:
    data = examples()
    return Seq2SeqTrainer(
        model=small_t5(0.1) if model is None else model,
        args=arguments(out, **changes),
        train_dataset=data,
        eval_dataset=data[:6],
        callbacks=list(callbacks),
    )


def opposite_masks(_: bool, arguments: dict[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    mask = arguments.get("attention_mask")
    return [(mask, mask == 0)] if isinstance(mask, torch.Tensor) and mask.ndim == 2 else []


def wtacrs(spec: str | None = SPEC, **changes: Any) -> WtacrsCallback:
    return WtacrsCallback(spec, **({"min_elements": 0, "measure_every": 3} | changes))


SAVED = {"save_strategy": "steps"}


class Look(TrainerCallback):
    """Notes the classes of the linear layers where Trainer evaluates, saves, and before its optimizer steps."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}
        self.optimized: set[int] = set()

    def _note(self, event: str, model: nn.Module) -> None:
        kinds = {type(m).__name__ for m in model.modules() if isinstance(m, nn.Linear)}
        self.seen.setdefault(event, set()).update(kinds)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._note("step", kwargs["model"])
        groups = kwargs["optimizer"].param_groups
        self.optimized = {id(p) for group in groups for p in group["params"]}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._note("save", kwargs["model"])

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._note("evaluate", kwargs["model"])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return T5ForConditionalGeneration.from_pretrained(folder).state_dict()


def test_the_example_of_the_module_runs(tmp_path: Path) -> None:
    found = re.search(r"\n\n((?:    .*\n|\n)+)", module.__doc__ or "")
    assert found is not None
    code = "\n".join(line[4:] for line in found[1].splitlines())
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    cpu = 'num_train_epochs=1, use_cpu=True, report_to="none", disable_tqdm=True'
    code = code.replace('"runs/t5"', repr(str(tmp_path))).replace("num_train_epochs=3", cpu)
    model = small_t5()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exec(compile(code, "docstring", "exec"), {"model": model, "train": examples()})
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_converted_in_steps_and_stock_everywhere_else(tmp_path: Path) -> None:
    model, look, ours = small_t5(), Look(), wtacrs()
    before = {name: id(p) for name, p in model.named_parameters()}
    run = trainer(tmp_path, ours, look, model=model, eval_strategy="steps", eval_steps=3, **SAVED)
    run.train()
    assert look.seen == {"step": {"ApproxLinear"}, "save": {"Linear"}, "evaluate": {"Linear"}}
    assert {name: id(p) for name, p in model.named_parameters()} == before
    assert look.optimized == set(before.values())
    assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert ForwardContext.of(model) is None
    assert len(ours.conversion) == 17
    assert set(weights(tmp_path / "checkpoint-4")) == set(model.state_dict())


def test_best_checkpoints_are_stock_too(tmp_path: Path) -> None:
    look = Look()
    best = {"save_strategy": "best", "metric_for_best_model": "eval_loss", "load_best_model_at_end": True}
    run = trainer(tmp_path, wtacrs(), look, eval_strategy="steps", eval_steps=2, **best)
    run.train()
    assert look.seen["save"] == look.seen["evaluate"] == {"Linear"}


def test_the_estimator_is_what_trains(tmp_path: Path) -> None:
    """All rows kept is exact training; a third of them is not; no callback is stock training."""
    runs = {"stock": (), "all": (wtacrs("exact"),), "third": (wtacrs(),)}
    trained = {}
    for name, callbacks in runs.items():
        # without dropout: a converted model takes one number for its own draws from torch's generator in every pass
        run = trainer(tmp_path / name, *callbacks, model=small_t5(0.0))
        run.train()
        trained[name] = run.model
    assert same_weights(trained["stock"], trained["all"])
    assert not same_weights(trained["stock"], trained["third"])


def test_the_plain_trainer_with_a_classifier(tmp_path: Path) -> None:
    data = [{**example, "labels": torch.tensor(i % 2)} for i, example in enumerate(examples())]
    settings = {"max_steps": 4, "learning_rate": 1e-2, "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
    saved = {"save_strategy": "steps", "save_steps": 2}
    runs, ours = [], wtacrs(layers=["*.layer.*"])
    for resume in (None, str(tmp_path / "checkpoint-2")):
        args = TrainingArguments(str(tmp_path), per_device_train_batch_size=4, **settings, **saved)
        runs.append(Trainer(tiny_bert(), args, train_dataset=data, callbacks=[ours]))
        runs[-1].train(resume_from_checkpoint=resume)
    assert same_weights(runs[0].model, runs[1].model)
    assert len(ours.conversion) == 6


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"bf16": True, "activation_checkpointing": True}, (3,)),
        ({"restore_callback_states_from_checkpoint": True}, (2,)),
        (
            {"eval_strategy": "steps", "eval_steps": 3, "predict_with_generate": True, "generation_max_length": 4},
            (2,),
        ),
    ],
    ids=["bf16 and checkpointing", "restored callbacks", "generation"],
)
def test_resumed_equals_uninterrupted(tmp_path: Path, changes: dict[str, Any], steps: Any) -> None:
    whole = trainer(tmp_path, wtacrs(), **SAVED, **changes)
    whole.train()
    for step in steps:
        torch.manual_seed(77)
        run = trainer(tmp_path / "again", wtacrs(measure_every=None), **changes)
        run.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert same_weights(whole.model, run.model)
        assert losses(whole) == losses(run)


def test_a_generator_that_is_not_put_back_is_found(
    whole: Seq2SeqTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path, wtacrs())
    monkeypatch.setattr(Seq2SeqTrainer, "_load_rng_state", lambda self, checkpoint: None)
    run.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert not same_weights(whole.model, run.model)


def losses(run: Seq2SeqTrainer) -> list[tuple[int, float]]:
    return [(entry["step"], entry["loss"]) for entry in run.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Seq2SeqTrainer:
    """A run of two and a half epochs that was not interrupted."""
    run = trainer(tmp_path_factory.mktemp("whole"), wtacrs(), **SAVED)
    run.train()
    return run


@pytest.mark.parametrize("step", [1, 2, 3])
def test_resumed_within_epochs_and_between(whole: Seq2SeqTrainer, tmp_path: Path, step: int) -> None:
    torch.manual_seed(77)
    run = trainer(tmp_path, wtacrs(measure_every=None))
    run.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{step}")
    assert same_weights(whole.model, run.model)
    assert losses(whole) == losses(run)


class Kill(TrainerCallback):
    """Ends the process without a farewell."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked, to be killed")
def test_killed_and_resumed_equals_uninterrupted(whole: Seq2SeqTrainer, tmp_path: Path) -> None:
    work = trainer(tmp_path, wtacrs(), Kill(4), **SAVED).train
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    resumed = trainer(tmp_path, wtacrs(), **SAVED)
    resumed.train(resume_from_checkpoint=True)
    assert same_weights(whole.model, resumed.model)
    assert losses(whole) == losses(resumed)
    folders = (Path(run.args.output_dir) / "checkpoint-5" for run in (whole, resumed))
    one, two = (json.loads((folder / "trainer_state.json").read_text()) for folder in folders)
    assert one["stateful_callbacks"] == two["stateful_callbacks"]


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    runs = []
    for every in (1, None):
        runs.append(trainer(tmp_path, wtacrs(measure_every=every)))
        runs[-1].train()
    assert same_weights(runs[0].model, runs[1].model)
    assert not [entry for entry in runs[1].state.log_history if "wtacrs_layers" in entry]


def test_what_is_logged_is_what_is_kept(tmp_path: Path) -> None:
    """Steps 1 and 4: bytes of one forward pass, beside what stock training logs of the same step."""
    ours, stock = wtacrs(), wtacrs("exact")
    logs = []
    for callback in (ours, stock):
        run = trainer(tmp_path, callback, model=small_t5(0.1))
        run.train()
        logs.append([entry for entry in run.state.log_history if "wtacrs_layers" in entry])
    assert [[entry["step"] for entry in log] for log in logs] == [[1, 4], [1, 4]]
    rows, width = 4 * 12, 32
    wi = ours.measured["encoder.block.0.layer.1.DenseReluDense.wi"]
    assert wi.freed == rows * width * 4
    budget = 14  # 0.3 · 48 rows, with their indices and weights
    assert budget * width * 4 < wi.kept <= budget * (width * 4 + 16)
    attention = [ours.measured[f"encoder.block.0.layer.0.SelfAttention.{name}"] for name in "qkv"]
    assert [entry.freed for entry in attention] == [rows * width * 4, 0, 0]
    assert ours.measured["encoder.block.0.layer.1.DenseReluDense.wo"].freed == rows * 64 * 4  # dropout after ReLU
    last, beside = logs[0][-1], logs[1][-1]
    assert (last["wtacrs_layers"], beside["wtacrs_layers"]) == (len(ours.measured), 0) == (17, 0)
    assert last["wtacrs_exact_bytes"] == beside["wtacrs_exact_bytes"] == beside["wtacrs_kept_bytes"]
    saved = sum(entry.freed - entry.kept for entry in ours.measured.values())
    assert last["wtacrs_kept_bytes"] == last["wtacrs_exact_bytes"] - saved
    assert last["wtacrs_kept_share"] == last["wtacrs_kept_bytes"] / last["wtacrs_exact_bytes"] < 1


def test_the_first_measurement_leaves_a_receipt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = wtacrs(measure_every=1)
    assert ours.receipt is None
    with caplog.at_level("INFO", logger="wtacrs"):
        trainer(tmp_path, ours, model=small_t5(0.1)).train()
    receipt = ours.receipt
    assert receipt is not None
    assert (receipt.layers, receipt.promised) == (17, receipt.copies)
    told = [
        line for line in caplog.messages if line.startswith("wtacrs: ") and ("receipt" in line or "held" in line)
    ]
    assert told == [f"wtacrs: {line}" for line in receipt_lines(receipt)]


def test_what_cannot_be_measured_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = wtacrs(measure_every=1)
    with torch.autograd.graph.save_on_cpu():
        run = trainer(tmp_path, ours)
        run.train()
    assert not [entry for entry in run.state.log_history if "wtacrs_kept_bytes" in entry]
    (told,) = [line for line in caplog.messages if "not measured" in line]
    assert "save_on_cpu" in told


def test_layers_of_which_none_trains_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = small_t5()
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer is not model.lm_head:
            layer.weight.requires_grad_(False)
    ours = wtacrs(layers=["*.layer.*"], measure_every=1)
    run = trainer(tmp_path, ours, model=model, max_steps=1)
    run.train()
    assert "16 layers are converted, and none has a weight that trains" in caplog.text
    (entry,) = [entry for entry in run.state.log_history if "wtacrs_layers" in entry]
    assert (entry["wtacrs_layers"], entry["wtacrs_kept_share"]) == (0, 1.0)


def test_a_model_converted_by_hand_keeps_its_estimators(tmp_path: Path) -> None:
    model = small_t5()
    approximate_(model, "crs(budget=0.5)", filter_fn=lambda _, name: "encoder" in name, min_elements=0)
    approximate_(model, SPEC, filter_fn=lambda _, name: "decoder" in name, min_elements=9, min_rows=2)
    ours = wtacrs(None)
    trainer(tmp_path, ours, model=model).train()
    assert len(ours.conversion) == 16
    for half, expected in (("encoder", ("crs(budget=0.5)", 0)), ("decoder", (SPEC, 9, MASK_FLOOR, True, 2))):
        found = {entry for name, entry in ours.conversion.items() if half in name}
        assert found == {LayerConversion(*expected)}
    assert not [m for m in model.modules() if type(m) is ApproxLinear]


def test_a_conversion_that_saves_nothing_is_told_once(tmp_path: Path) -> None:
    """Every checkpoint takes the conversion off and puts it on again."""
    model = small_t5()
    model.encoder.block.requires_grad_(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, wtacrs(layers=["encoder.*"]), model=model, **SAVED).train()
    told = [str(entry.message) for entry in caught if issubclass(entry.category, WtacrsWarning)]
    assert told == ["6 layers converted, none of them trains: nothing is saved"]


def test_resuming_refuses_what_was_trained_otherwise(tmp_path: Path) -> None:
    trainer(tmp_path / "a", wtacrs(), max_steps=1, **SAVED).train()
    trainer(tmp_path / "b", max_steps=1, **SAVED).train()
    for name, ours, told in (
        ("a", wtacrs("crs(budget=0.3)"), "was trained by wta_crs.*and is now to be trained by crs"),
        ("a", wtacrs(layers=["encoder.*"]), "layer 'decoder.*and is now to be trained exactly"),
        ("b", wtacrs(), "up to step 1 was trained without WtacrsCallback"),
    ):
        with pytest.raises(InputError, match=told):
            trainer(tmp_path / name, ours).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"estimator": "wta_csr(budget=0.3)"}, "did you mean wta_crs"),
        ({"measure_every": 0}, "measure_every=0"),
        ({"estimator": None, "layers": ["x"]}, "layers: need an estimator"),
    ],
)
def test_bad_settings_are_told_at_once(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        WtacrsCallback(**({"estimator": SPEC} | changes))


def test_the_callback_takes_every_option_of_approximate() -> None:
    """With the same defaults; what differs is named here: patterns for a filter, a plan of its own, a stated default."""
    ours, theirs = (
        {p.name: p.default for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY}
        for f in (WtacrsCallback.__init__, approximate_)
    )
    assert ours.pop("layers") is theirs.pop("filter_fn") is None
    assert (ours.pop("masked_gradient"), theirs.pop("masked_gradient")) == ("warn", None)
    assert ours.pop("plan") is None
    assert ours.pop("measure_every") == 500
    assert ours == theirs
    assert set(theirs) - {"lean", "seed"} < set(wtacrs()._options())


def test_scores_are_learned_and_last_over_checkpoints(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The conversion is taken off at every checkpoint; the memory goes on. A run that is resumed begins it anew."""
    ours = wtacrs(scores="learned", budget_of="live-rows", share_inputs=False)
    trainer(tmp_path, ours, max_steps=3, **SAVED).train()
    memory = ours._memory
    assert memory is not None
    assert len(memory.state_dict()["layers"]) > 8
    assert {entry[2:] for entry in ours.conversion.values()} == {(MASK_FLOOR, False, 0, "live-rows")}
    again = wtacrs(scores="learned", budget_of="live-rows", share_inputs=False)
    with caplog.at_level("WARNING"):
        trainer(tmp_path, again, max_steps=4, **SAVED).train(resume_from_checkpoint=True)
    assert "what scores='learned' remembered is not in the checkpoint" in caplog.text
    run = trainer(tmp_path, wtacrs(budget_of="live-rows", share_inputs=False), max_steps=5, **SAVED)
    with pytest.raises(InputError, match=r"with scores='learned', and is now to be .* scores='row-norms'"):
        run.train(resume_from_checkpoint=True)


def test_replicas_in_one_process_are_refused() -> None:
    with pytest.raises(InputError, match=r"n_gpu=2: nn\.DataParallel is not supported"):
        wtacrs().on_train_begin(SimpleNamespace(n_gpu=2), TrainerState(), TrainerControl(), model=small_t5())


def test_nothing_to_convert(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layer of the model is converted"):
        trainer(tmp_path, wtacrs(None)).train()
    with pytest.raises(InputError, match=r"layers='nothing\.\*' fits none"):
        trainer(tmp_path, wtacrs(layers=["nothing.*"])).train()


@pytest.mark.filterwarnings("ignore:rows that a mask calls padding")
def test_masks_that_mislead_are_logged_and_stay_so_over_evaluations_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks of the opposite convention: resumed bit by bit, from a checkpoint that knows the layers."""
    monkeypatch.setattr(
        "wtacrs.integration.context.forward_context.mask_sources",
        opposite_masks,
    )
    settings = {**SAVED, "eval_strategy": "steps", "eval_steps": 2}
    whole = wtacrs()
    run = trainer(tmp_path / "whole", whole, **settings)
    run.train()
    assert len(whole.misled) >= 5
    assert all(0 < share <= 1 for share in whole.misled.values())
    logged = [entry["wtacrs_misled_layers"] for entry in run.state.log_history if "loss" in entry]
    assert logged[-1] == len(whole.misled)
    saved = json.loads((tmp_path / "whole/checkpoint-2/trainer_state.json").read_text())
    attributes = saved["stateful_callbacks"]["WtacrsCallback"]["attributes"]
    assert len(attributes["_sampling"][""]["misled"]) >= 5
    assert attributes["_sampling"][""]["seed"] == 5
    again = trainer(tmp_path / "whole", wtacrs(), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    assert same_weights(run.model, again.model)


def test_draws_differ_by_the_seed_of_the_run_or_the_callback(tmp_path: Path) -> None:
    def trained(own: int | None, **changes: Any) -> nn.Module:
        run = trainer(tmp_path, wtacrs(seed=own), model=small_t5(), max_steps=1, data_seed=1, **changes)
        run.train()
        return run.model

    assert same_weights(trained(3, seed=5), trained(3, seed=6))
    assert not same_weights(trained(3), trained(4))
    assert not same_weights(trained(None, seed=5), trained(None, seed=6))


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"seed": 2**32}, f"seed={2**32} must be an integer from 0"),
        ({"mask_floor": 0.0}, "mask_floor=0.0 must be a float"),
        ({"budget_of": "rows"}, "budget_of='rows' must be one of 'all-rows', 'live-rows'"),
        ({"share_inputs": 1}, "share_inputs=1"),
        ({"scores": "x"}, "scores='x' must be one of 'row-norms'"),
        ({"scores": "learned", "spec": None}, "scores='learned': need an estimator or a plan"),
        ({"masked_gradient": "shout"}, "masked_gradient='shout' must be one of 'warn', 'raise', 'ignore'"),
        (
            {"layers": "classifier"},
            "layers='classifier' must be a list of at least one pattern, as in ['classifier']",
        ),
        ({"layers": 3}, "layers=3 must be a list of at least one pattern"),
        ({"measure_every": 0}, "measure_every=0 must be an integer from 1, or None"),
        ({"measure_every": 1.5}, "measure_every=1.5 must be an integer from 1, or None"),
        ({"measure_every": True}, "measure_every=True must be an integer from 1, or None"),
        ({"measure_every": "5"}, "measure_every='5' must be an integer from 1, or None"),
        ({"spec": "x"}, "estimator='x': unknown estimator 'x'"),
        ({"spec": {"*": SPEC}}, "spec must be a string"),
    ],
)
def test_bad_options_are_refused_at_once(unchecked: None, options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError, match=re.escape(fragment)):
        wtacrs(**options)


def test_a_misspelt_argument_is_named_with_a_near_one() -> None:
    with pytest.raises(InputError, match=r"^WtacrsCallback has no argument 'lena' \(did you mean lean\?\)"):
        WtacrsCallback("crs(budget=0.3)", lena="attention")  # type: ignore[call-arg]
