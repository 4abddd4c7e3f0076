"""Lean heads against stock: loss, gradients, what is kept, what stays stock, and sampled dW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments

from tests.support.language_models import MODELS, VOCABULARY, gradients, language_batch, language_model
from tests.support.lean_heads import LABELS, MODES, D, Model, V, head, lean_head, tensors
from tests.support.saved_sizes import kept_tensors
from wtacrs.estimators import InputError, make, row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.lean.convert import lean_
from wtacrs.integration.layers.lean.cross_entropy import (
    linear_cross_entropy,
)
from wtacrs.integration.layers.lean.deferred_logits import is_deferred
from wtacrs.integration.layers.lean.head import LeanHead, restore_head, set_lean_head
from wtacrs.integration.layers.lean.options import HeadMode
from wtacrs.integration.measure.kept_bytes import KeptBytesProbe, training_layers
from wtacrs.integration.measure.track_memory import track_memory


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_models_have_the_loss_and_gradients_of_stock(name: str, mode: HeadMode, spy: list[str]) -> None:
    model = language_model(name, 0.1)
    batch = language_batch("right")
    loss, expected = gradients(model, batch)
    assert set_lean_head(model, mode=mode) == {}
    lean_loss, found = gradients(model, batch)
    assert spy == ["pieces"]
    torch.testing.assert_close(lean_loss, loss, rtol=1e-6, atol=1e-6)
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MODELS)
def test_double_precision_to_ten_places(name: str, mode: HeadMode, spy: list[str]) -> None:
    """By a loss of one's own: those of transformers cast logits to single precision."""
    model = language_model(name, 0.1).double()
    batch = language_batch("right")
    labels = batch.pop("labels")
    batch |= {"decoder_input_ids": batch["input_ids"]} if name == "T5" else {}

    def step() -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        logits = model(**batch).logits
        shifted = logits[..., :-1, :].contiguous().view(-1, VOCABULARY)
        F.cross_entropy(shifted, labels[..., 1:].reshape(-1)).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = step()
    set_lean_head(model, mode=mode)
    found = step()
    assert spy == ["pieces"]
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "OPT"])
def test_the_number_of_items_of_an_accumulated_batch(name: str, spy: list[str]) -> None:
    model = language_model(name, 0.0)
    batch: dict[str, Any] = {**language_batch("right"), "num_items_in_batch": 37}
    loss, expected = gradients(model, batch)
    set_lean_head(model)
    lean_loss, found = gradients(model, batch)
    assert spy == ["pieces"]
    torch.testing.assert_close(lean_loss, loss)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scaled", [True, False])
def test_tied_embeddings_of_t5_and_their_scaling(scaled: bool, spy: list[str]) -> None:
    model = language_model("T5", 0.0)
    model.config.scale_decoder_outputs = scaled
    assert model.lm_head.weight is model.shared.weight
    _, expected = gradients(model, language_batch("right"))
    set_lean_head(model)
    _, found = gradients(model, language_batch("right"))
    assert spy == ["pieces"]
    torch.testing.assert_close(found["shared.weight"], expected["shared.weight"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_no_logits_are_kept(name: str) -> None:
    model = language_model(name, 0.1)
    batch = language_batch("right")
    stock = kept_tensors(model, batch)
    assert any(size >= 4 * VOCABULARY * 30 and VOCABULARY in shape for shape, size in stock)
    kept = {}
    for mode in MODES:
        set_lean_head(model, mode=mode)
        found = kept_tensors(model, batch)
        wide = [tuple(shape) for shape, _ in found if VOCABULARY in shape]
        gradients_of_head = [(VOCABULARY, 32), (VOCABULARY,)][: 2 if name == "BERT" else 1]
        assert wide == (gradients_of_head if mode == "forward" else []), mode
        kept[mode] = sum(size for _, size in found)
    # 30 rows are fewer than the width, so that dW is more than the logits here
    assert kept["again"] < min(kept["forward"], sum(size for _, size in stock))


@pytest.mark.parametrize("mode", MODES)
def test_autocast(mode: HeadMode, spy: list[str]) -> None:
    for name in ("T5", "Llama"):
        model = language_model(name, 0.0)
        batch = language_batch("right")
        with torch.autocast("cpu", torch.bfloat16):
            loss, expected = gradients(model, batch)
            set_lean_head(model, mode=mode)
            lean_loss, found = gradients(model, batch)
            assert model(**batch).logits.dtype == torch.bfloat16
        assert lean_loss.dtype == loss.dtype
        torch.testing.assert_close(lean_loss, loss, rtol=1e-2, atol=1e-2)
        for parameter, gradient in expected.items():
            assert found[parameter].dtype == torch.float32
            torch.testing.assert_close(
                found[parameter], gradient, rtol=0.1, atol=0.03 * gradient.abs().max().item()
            )
    assert "real" not in spy


def test_bf16_models_keep_their_dtypes(spy: list[str]) -> None:
    model = language_model("T5", 0.0).bfloat16()
    loss, expected = gradients(model, language_batch("right"))
    set_lean_head(model)
    lean_loss, found = gradients(model, language_batch("right"))
    assert spy == ["pieces"]
    assert lean_loss.dtype == loss.dtype
    assert {n: g.dtype for n, g in found.items()} == {n: g.dtype for n, g in expected.items()}


def test_eval_mode_and_no_grad_are_stock() -> None:
    layer, x = lean_head()
    assert type(layer(x)) is not Tensor
    with torch.no_grad():
        assert type(layer(x)) is Tensor
    assert type(layer.eval()(x)) is Tensor
    layer.train().weight.requires_grad_(False)
    assert type(layer(x.detach())) is Tensor
    assert type(layer(x)) is not Tensor


@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_head_keeps_no_gradient_of_its_weight(mode: HeadMode, spy: list[str]) -> None:
    model = language_model("Llama", 0.0)
    model.lm_head.weight.requires_grad_(False)
    _, expected = gradients(model, language_batch("right"))
    set_lean_head(model, mode=mode)
    assert not any(VOCABULARY in shape for shape, _ in kept_tensors(model, language_batch("right")))
    _, found = gradients(model, language_batch("right"))
    assert found.keys() == expected.keys()
    assert "real" not in spy


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_within_a_checkpointed_function(mode: HeadMode, reentrant: bool) -> None:
    def grads(made: tuple[nn.Linear, Tensor]) -> tuple[Tensor, ...]:
        layer, x = made
        hidden = torch.tanh(x)
        logits = checkpoint(layer, hidden, use_reentrant=reentrant)
        F.cross_entropy(logits.view(-1, V), LABELS).backward()
        return x.grad, layer.weight.grad  # type: ignore[return-value]

    for one, other in zip(grads(head()), grads(lean_head(mode)), strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_models(reentrant: bool) -> None:
    model = language_model("Llama", 0.1)
    _, expected = gradients(model, language_batch("right"))
    set_lean_head(model)
    options = {"use_reentrant": reentrant}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    _, found = gradients(model, language_batch("right"))
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_models_run_the_stock_head() -> None:
    model = language_model("GPT-2", 0.0)
    _, expected = gradients(model, language_batch("right"))
    set_lean_head(model)
    _, found = gradients(torch.compile(model, backend="aot_eager"), language_batch("right"), model)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


def test_torch_func_runs_the_stock_head() -> None:
    layer, x = lean_head()
    found = torch.func.grad(lambda x: F.cross_entropy(layer(x).view(-1, V), LABELS))(x.detach())
    layer, x = head()
    (expected,) = torch.autograd.grad(F.cross_entropy(layer(x).view(-1, V), LABELS), x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spec", ["wta_crs(budget=0.5)", "crs(budget=0.6)", "wta_crs(budget=1.0)"])
def test_sampled_dw_is_that_of_the_estimator_and_all_else_is_exact(piece: None, mode: HeadMode, spec: str) -> None:
    """dW equals `contract` of what the estimator keeps of the rows with a label: its mean is the estimator's."""
    labels = LABELS.clone()
    labels[[2, 9]] = -100
    layer, x = head(biased=True)
    z = layer(x).view(-1, V)
    z.retain_grad()
    loss = F.cross_entropy(z, labels)
    exact = torch.autograd.grad(loss, (x, layer.bias, z))
    counted = labels != -100
    rows = x.detach().view(-1, D)[counted]
    estimator = make(spec)
    torch.manual_seed(8)
    saved = estimator.compress(rows, scores=row_norms(rows))
    dw = estimator.contract(saved, exact[2][counted])
    layer, x = head(biased=True)
    set_lean_head(Model(layer), mode=mode, estimator=spec)
    torch.manual_seed(8)
    found_loss = F.cross_entropy(layer(x).view(-1, V), labels)
    found = torch.autograd.grad(found_loss, (x, layer.bias, layer.weight))
    torch.testing.assert_close(found_loss, loss)
    for one, other in zip((*exact[:2], dw), found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)


def test_a_sampled_head_draws_by_the_models_own_seed() -> None:
    """The generator of the model is left alone, as `approximate_` promises: dropout is that of the stock model."""
    model = language_model("T5", 0.1)
    loss, _ = gradients(model, language_batch("right"))
    head = model.lm_head
    approximate_(
        model, "wta_crs(budget=0.5)", filter_fn=lambda layer, name: layer is not head, min_elements=1, seed=1
    )
    assert set_lean_head(model, estimator="wta_crs(budget=0.5)") == {}
    sampled_loss, _ = gradients(model, language_batch("right"))
    torch.testing.assert_close(sampled_loss, loss)
    after = torch.rand(1)
    restore_head(model)
    gradients(model, language_batch("right"))
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("name", MODELS)
def test_restore_leaves_a_stock_model(name: str) -> None:
    model = language_model(name, 0.1)
    keys, head = list(model.state_dict()), model.get_output_embeddings()
    _, expected = gradients(model, language_batch("right"))
    set_lean_head(model, mode="again", estimator="crs(budget=0.5)")
    assert list(model.state_dict()) == keys
    assert model.get_output_embeddings() is head
    assert set_lean_head(model) == {}
    assert head.mode == "forward"
    assert head.estimator == make("crs(budget=0.5)")  # which nobody has taken back
    assert len(restore_head(model)) == 1
    assert type(head) is nn.Linear
    assert not {"mode", "estimator", "context", "path"} & vars(head).keys()
    assert restore_head(model) == []
    _, found = gradients(model, language_batch("right"))
    assert all(torch.equal(found[n], expected[n]) for n in expected)


class Mine(nn.Linear):
    """A head of a user's own."""


def test_what_stays_stock_and_why() -> None:
    assert set_lean_head(Model(None)) == {"": "Model has no output layer by get_output_embeddings"}
    assert set_lean_head(nn.Linear(2, 2)) == {"": "Linear has no output layer by get_output_embeddings"}
    assert set_lean_head(Model(Mine(2, 2))) == {"head": "Mine is no plain nn.Linear"}
    normed = parametrizations.weight_norm(nn.Linear(2, 2))
    assert set_lean_head(Model(normed)) == {"head": "ParametrizedLinear: sharded or parametrized"}
    replaced = nn.Linear(2, 2)
    replaced.forward = lambda x: x
    assert set_lean_head(Model(replaced)) == {"head": "its forward was replaced on the instance"}
    model = language_model("T5", 0.0)
    approximate_(model, "gaussian_sketch(budget=0.5)")
    assert list(set_lean_head(model)) == ["lm_head"]
    assert "draws no rows" in set_lean_head(model)["lm_head"]


def test_an_estimated_output_layer_becomes_lean_and_samples_in_either_order() -> None:
    """By the estimator that `approximate_` gives it; a sketch, or "exact", leaves its dW exact."""
    for order in ("together", "lean first", "lean last"):
        model = language_model("T5", 0.0)
        if order == "lean first":
            lean_(model, head="again")
        found = approximate_(
            model, "crs(budget=0.5)", min_elements=7, lean="head-again" if order == "together" else False
        )
        if order == "lean last":
            lean_(model, head="again")
        head = model.get_output_embeddings()
        assert "lm_head" in found
        assert "lm_head" not in found.exact
        assert (type(head), head.mode, head.estimator) == (LeanHead, "again", make("crs(budget=0.5)"))
        assert head.context is ForwardContext.of(model)
        assert order == "lean last" or head.min_elements == 7
        assert "lm_head" in training_layers(model)
        for other in ("gaussian_sketch(budget=0.5)", {"encoder.*": "crs(budget=0.5)"}):
            assert "lm_head" in approximate_(model, other).exact
            assert head.estimator is None
            assert "lm_head" not in training_layers(model)
        assert "lm_head" in restore_(model)
        assert type(head) is nn.Linear


@pytest.mark.parametrize("name", MODELS)
def test_nothing_that_watches_a_model_computes_the_logits(name: str) -> None:
    """Neither the context of estimated layers nor what measures kept bytes and owners."""
    model, batch = language_model(name, 0.0), language_batch("right")
    approximate_(model, "crs(budget=0.5)", min_elements=0, lean="head")
    probe = KeptBytesProbe(model)
    output = model(**batch)
    assert is_deferred(output.logits)
    output.loss.backward()
    assert probe.found is not None
    with track_memory(model) as tracked:
        output = model(**batch)
        assert is_deferred(output.logits)
        output.loss.backward()
    assert tracked.kept > 0


def test_a_loss_of_ones_own_is_noticed_without_the_logits() -> None:
    """The backward pass is told when it enters the model, though nothing goes through the logits."""
    model = language_model("GPT-2", 0.0)
    batch = language_batch("right")
    labels = batch["labels"].flatten()
    approximate_(model, "crs(budget=0.5)", min_elements=0, lean="head")
    probe = KeptBytesProbe(model)
    ids = {name: tensor for name, tensor in batch.items() if name != "labels" and "decoder" not in name}
    logits = model(**ids).logits
    F.cross_entropy(logits.flatten(0, 1), labels[: logits.shape[0] * logits.shape[1]]).backward()
    assert is_deferred(logits)
    assert probe.found is not None


def test_restoring_the_estimates_alone_leaves_an_exact_lean_output_layer() -> None:
    model = language_model("T5", 0.0)
    approximate_(model, "crs(budget=0.5)", lean="head")
    assert "lm_head" in restore_(model, keep_lean=True)
    head = model.get_output_embeddings()
    assert (type(head), head.estimator) == (LeanHead, None)


def test_a_sampled_output_layer_alone_keeps_its_context_when_lean_is_called_again() -> None:
    """It draws by the model's own seed all the same; without an estimator the context is gone."""
    model = language_model("GPT-2", 0.0)
    approximate_(model, {"lm_head": "crs(budget=0.5)"}, min_elements=0, lean="head")
    context, head = ForwardContext.of(model), model.get_output_embeddings()
    lean_(model, head="again")
    assert context is not None
    assert ForwardContext.of(model) is head.context is context
    restore_(model, keep_lean=True)
    assert ForwardContext.of(model) is None


def test_few_numbers_are_exact() -> None:
    """As in every layer with an estimated dW, below `min_elements`."""
    model = language_model("T5", 0.0)
    _, expected = gradients(model, language_batch("right"))
    approximate_(model, {"lm_head": "crs(budget=0.1)"}, min_elements=10**9, lean="head")
    _, found = gradients(model, language_batch("right"))
    assert all(torch.allclose(found[n], expected[n], atol=1e-5) for n in expected)
    approximate_(model, {"lm_head": "crs(budget=0.1)"}, min_elements=0)
    _, found = gradients(model, language_batch("right"))
    assert not torch.allclose(found["shared.weight"], expected["shared.weight"], atol=1e-5)


def test_bad_input() -> None:
    x, weight, bias, labels = tensors()
    layer, _ = head()
    with pytest.raises(InputError, match="mode='backward' must be forward or again"):
        set_lean_head(Model(layer), mode="backward")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the output layer is computed by rows"):
        set_lean_head(Model(layer), estimator="gaussian_sketch(budget=0.5)")
    assert type(layer) is nn.Linear
    with pytest.raises(InputError, match="reduction='max'"):
        linear_cross_entropy(x, weight, bias, labels, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"label_smoothing=2\.0"):
        linear_cross_entropy(x, weight, bias, labels, label_smoothing=2.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_trainer_goes_the_way_of_stock(smoothing: float, tmp_path: Path, spy: list[str]) -> None:
    """Two optimizer steps of two accumulated batches; the trainer's own label smoothing reads the logits."""
    data = [{key: value[i] for key, value in language_batch("right").items()} for i in (0, 1, 2, 0)]

    def trained(lean_head: bool) -> dict[str, Tensor]:
        model = language_model("Llama", 0.0)
        if lean_head:
            set_lean_head(model)
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            label_smoothing_factor=smoothing,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            seed=1,
        )
        Trainer(model, arguments, train_dataset=data).train()
        return {name: p.detach() for name, p in model.named_parameters()}

    expected, found = trained(False), trained(True)
    assert set(spy) == {"real" if smoothing else "pieces"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
