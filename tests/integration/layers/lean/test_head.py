"""Lean heads against stock: loss, gradients, what is kept, what defers logits, and what needs them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments

from tests.support.language_models import MODELS, VOCABULARY, gradients, language_batch, language_model
from tests.support.saved_sizes import kept_tensors
from wtacrs.estimators import InputError, make, row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.lean import cross_entropy as lean
from wtacrs.integration.layers.lean.convert import lean_
from wtacrs.integration.layers.lean.cross_entropy import (
    LinearCrossEntropy,
    LinearCrossEntropyAgain,
    Terms,
    linear_cross_entropy,
)
from wtacrs.integration.layers.lean.deferred_logits import Source, is_deferred
from wtacrs.integration.layers.lean.head import LeanHead, restore_head, set_lean_head
from wtacrs.integration.layers.lean.options import HeadMode
from wtacrs.integration.measure.kept_bytes import KeptBytesProbe, training_layers
from wtacrs.integration.measure.track_memory import track_memory

N, D, V = 7, 4, 9
MODES: tuple[HeadMode, ...] = ("forward", "again")


@pytest.fixture(params=[2**24, 8 * V * 2], ids=["all rows", "2 rows"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a piece, of doubles."""
    monkeypatch.setattr(lean, "PIECE", request.param)


def tensors(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and labels, two of which are ignored."""
    generator = torch.Generator().manual_seed(2)
    made = [torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((N, D), (V, D), (V,))]
    labels = torch.randint(0, V, (N,), generator=generator)
    labels[1] = labels[4] = -100
    x, weight, bias = (t.to(dtype).requires_grad_() for t in made)
    return x, weight, bias, labels


@pytest.mark.parametrize("ignored", ["some", "none"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradients_are_those_of_torch(
    piece: None, mode: HeadMode, reduction: Any, smoothing: float, biased: bool, ignored: str
) -> None:
    x, weight, bias, labels = tensors()
    labels = labels if ignored == "some" else labels.clamp(min=0)
    asked = (x, weight, bias) if biased else (x, weight)
    options: Any = {"reduction": reduction, "label_smoothing": smoothing}
    expected = F.cross_entropy(F.linear(x, weight, bias if biased else None), labels, **options)
    found = linear_cross_entropy(x, weight, bias if biased else None, labels, mode=mode, **options)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    upstream = torch.linspace(0.3, 2.0, expected.numel(), dtype=torch.float64).view(expected.shape)
    for one, other in zip(
        torch.autograd.grad(expected, asked, upstream), torch.autograd.grad(found, asked, upstream), strict=True
    ):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)
    with torch.no_grad():
        alone = linear_cross_entropy(x, weight, bias if biased else None, labels, mode=mode, **options)
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("function", [LinearCrossEntropy, LinearCrossEntropyAgain])
def test_gradcheck(piece: None, function: Any, smoothing: float) -> None:
    *asked, labels = tensors()
    terms = Terms(torch.float64, smoothing=smoothing)
    assert gradcheck(lambda *given: function.apply(*given, labels, None, terms), asked)


def test_gradcheck_of_losses_by_row(piece: None) -> None:
    *asked, labels = tensors()
    terms = Terms(torch.float64, reduction="none")
    assert gradcheck(lambda *given: LinearCrossEntropyAgain.apply(*given, labels, None, terms), asked)


@pytest.mark.parametrize("planted", ["label", "ignored", "count", "smoothing"])
def test_planted_defects_are_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, labels = tensors()
    if planted == "label":
        monkeypatch.setattr(Tensor, "scatter_add_", lambda dz, *_: dz)
    elif planted == "ignored":
        stock = lean._pieces
        monkeypatch.setattr(lean, "_pieces", lambda *given: list(stock(*given))[1:])
        monkeypatch.setattr(lean, "PIECE", 8 * V * 2)
    elif planted == "count":
        monkeypatch.setattr(lean, "_reduced", lambda losses, *_: losses.mean())
    else:
        monkeypatch.setattr(lean, "_row_losses", lambda z, y, terms, lse: lse - z.gather(1, y[:, None]).squeeze(1))
    expected = F.cross_entropy(F.linear(x, weight, bias), labels, label_smoothing=0.1)
    found = linear_cross_entropy(x, weight, bias, labels, label_smoothing=0.1)
    same = [torch.allclose(found, expected)]
    same += [
        torch.allclose(a, b)
        for a, b in zip(*(torch.autograd.grad(loss, (x, weight)) for loss in (expected, found)), strict=True)
    ]
    assert not all(same)


@pytest.mark.parametrize("mode", MODES)
def test_without_a_label_the_loss_is_that_of_torch(mode: HeadMode) -> None:
    x, weight, bias, labels = tensors()
    nothing = torch.full_like(labels, -100)
    assert linear_cross_entropy(x, weight, bias, nothing, mode=mode).isnan()
    loss = linear_cross_entropy(x, weight, bias, nothing, mode=mode, reduction="sum")
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert x.grad.count_nonzero() == 0


def test_fp16_gradients_survive_many_rows() -> None:
    """Divided by 4,096 rows before GradScaler's factor is known, they would be zero in fp16."""
    x, weight, bias, _ = tensors(torch.float16)
    rows = x.detach().repeat(4096, 1)[:4096].requires_grad_()
    labels = torch.zeros(4096, dtype=torch.int64)
    wide = [t.detach().double().requires_grad_() for t in (rows, weight, bias)]
    truth = torch.autograd.grad(F.cross_entropy(F.linear(*wide), labels) * 65536.0, wide[0])[0]
    for mode in MODES:
        loss = linear_cross_entropy(rows, weight, bias, labels, mode=mode)
        assert loss.dtype == torch.float32
        (dx,) = torch.autograd.grad(loss * 65536.0, rows)
        torch.testing.assert_close(dx.double(), truth, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_a_second_backward_pass_gives_the_same(mode: HeadMode) -> None:
    x, weight, bias, labels = tensors()
    loss = linear_cross_entropy(x, weight, bias, labels, mode=mode) * 3.0
    once, twice = (torch.autograd.grad(loss, (x, weight, bias), retain_graph=True) for _ in range(2))
    last = torch.autograd.grad(loss, (x, weight, bias))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(once, last, strict=True))


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


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every loss by pieces, and every time that logits become real."""
    seen: list[str] = []
    loss, compute = LeanHead.loss, Source.compute
    monkeypatch.setattr(LeanHead, "loss", lambda *a, **k: (seen.append("pieces"), loss(*a, **k))[1])
    monkeypatch.setattr(Source, "compute", lambda s: (seen.append("real"), compute(s))[1])
    return seen


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


def head(biased: bool = False) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(4)
    return nn.Linear(D, V, bias=biased).double(), torch.randn(3, 5, D, dtype=torch.float64, requires_grad=True)


def lean_head(mode: HeadMode = "forward", biased: bool = False) -> tuple[LeanHead, Tensor]:
    layer, x = head(biased)
    assert set_lean_head(Model(layer), mode=mode) == {}
    assert isinstance(layer, LeanHead)
    return layer, x


class Model(nn.Module):
    """As much as a language model says of its head."""

    def __init__(self, layer: nn.Module | None) -> None:
        super().__init__()
        self.head = layer

    def get_output_embeddings(self) -> nn.Module | None:
        return self.head


MASK = torch.tensor([[True, False, True, True, False]] * 3)
DEFERRED: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda z: z.view(-1, V),
    "view of a size": lambda z: z.view(torch.Size((15, V))),
    "view, last axis by -1": lambda z: z.view(15, -1),
    "reshape": lambda z: z.reshape(5, 3, V),
    "torch.reshape": lambda z: torch.reshape(z, (-1, V)),
    "flatten": lambda z: z.flatten(0, 1),
    "torch.flatten": lambda z: torch.flatten(z, 0, -2),
    "shift": lambda z: z[..., :-1, :],
    "shift, contiguous": lambda z: z[..., :-1, :].contiguous(),
    "shift of leading axes": lambda z: z[:, :-1],
    "last token": lambda z: z[:, -1, :],
    "one text": lambda z: z[0],
    "new axis": lambda z: z[None, ..., :],
    "boolean index": lambda z: z[MASK],
    "integer index": lambda z: z[:, torch.tensor([0, 3])],
    "contiguous": lambda z: z.contiguous(),
    "double": lambda z: z.double(),
    "to dtype": lambda z: z.to(torch.float64),
    "to device": lambda z: z.to("cpu"),
    "to device of another": lambda z: z.to(torch.zeros(1).device),
    "shift and view": lambda z: z[..., :-1, :].contiguous().view(-1, z.size(-1)),
}
REAL: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda z: z + 1.0,
    "scale": lambda z: 0.5 * z,
    "softcap": lambda z: torch.tanh(z / 30.0) * 30.0,
    "log_softmax": lambda z: F.log_softmax(z, -1),
    "argmax": lambda z: z.argmax(-1),
    "detach": lambda z: z.detach(),
    "clone": lambda z: z.clone(),
    "item": lambda z: z[0, 0, 0].item(),
    "classes": lambda z: z[..., :4],
    "class": lambda z: z[:, :, 2],
    "view of other rows": lambda z: z.view(-1, 3),
    "transpose": lambda z: z.transpose(1, 2),
    "narrower": lambda z: z.float(),
    "half": lambda z: z.to(torch.bfloat16),
    "print": lambda z: repr(z),
    "numpy": lambda z: z.detach().numpy().tolist(),
    "list": lambda z: z.tolist(),
    "iteration": lambda z: next(iter(z)),
    "grad_fn": lambda z: z.grad_fn is not None,
    "deepcopy of data": lambda z: copy.deepcopy(z.detach()),
    "pickle": lambda z: pickle.loads(pickle.dumps(z.detach())),
    "cat": lambda z: torch.cat([z, z]),
    "within a list": lambda z: torch.stack([z, torch.ones_like(z)]),
    "einsum": lambda z: torch.einsum("bsv,v->bs", z, torch.arange(V).double()),
    "class weights": lambda z: F.cross_entropy(z.view(-1, V), LABELS, weight=torch.linspace(1, 2, V).double()),
    "probabilities": lambda z: F.cross_entropy(z.view(-1, V), torch.full((15, V), 1 / V).double()),
    "three axes": lambda z: F.cross_entropy(z.transpose(1, 2), LABELS.view(3, 5)),
}
LABELS = torch.arange(15) % V


@pytest.mark.parametrize("name", DEFERRED)
def test_views_stay_deferred_and_have_the_numbers_of_stock(name: str, spy: list[str]) -> None:
    layer, x = head(biased=True)
    expected = DEFERRED[name](layer(x))
    layer, x = lean_head(biased=True)
    found = DEFERRED[name](layer(x))
    assert isinstance(found, Tensor)
    assert is_deferred(found)
    assert (found.shape, found.dtype, found.device) == (expected.shape, expected.dtype, expected.device)
    assert found.requires_grad
    assert (len(found), found.ndim, found.numel()) == (len(expected), expected.ndim, expected.numel())
    assert spy == []
    torch.testing.assert_close(found + 0.0, expected, rtol=1e-13, atol=1e-13)
    assert not is_deferred(found)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", DEFERRED)
def test_a_loss_of_views_goes_by_pieces(name: str, mode: HeadMode, spy: list[str]) -> None:
    def grads(made: tuple[nn.Linear, Tensor]) -> tuple[Tensor, ...]:
        layer, x = made
        logits = DEFERRED[name](layer(x))
        rows = logits if logits.dim() == 2 else logits.reshape(-1, V)
        loss = F.cross_entropy(rows, LABELS[: len(rows)], label_smoothing=0.1)
        return loss, *torch.autograd.grad(loss, (x, *layer.parameters()))

    expected, found = grads(head(True)), grads(lean_head(mode, True))
    assert spy == ["pieces"]
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", REAL)
def test_all_else_gets_real_logits_with_their_gradients(name: str, spy: list[str]) -> None:
    def outcome(made: tuple[nn.Linear, Tensor]) -> list[Any]:
        layer, x = made
        result = REAL[name](layer(x))
        if not isinstance(result, Tensor) or not result.requires_grad:
            return [result]
        return [result.detach(), *torch.autograd.grad(result.double().square().sum(), (x, layer.weight))]

    expected, found = outcome(head()), outcome(lean_head())
    assert spy == ["real"]
    for one, other in zip(expected, found, strict=True):
        if isinstance(one, Tensor):
            assert type(other) is Tensor
            torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-12)
        else:
            assert one == other or name == "print"


def test_work_in_place_has_its_effect_on_the_loss_and_on_views(spy: list[str]) -> None:
    def loss(made: tuple[nn.Linear, Tensor]) -> tuple[Tensor, Tensor]:
        layer, x = made
        logits = layer(x)
        rows, copied = logits.view(-1, V), logits[:, :-1].contiguous()
        logits[..., 3] = -1e4
        value = F.cross_entropy(rows, LABELS) + copied[0, 0, 3]
        return value.detach(), torch.autograd.grad(value, x)[0]

    expected, found = loss(head()), loss(lean_head())
    assert spy == ["real"]
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one)


class Square(torch.autograd.Function):
    """A function of a user's own, which Python does not see into."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.square().sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        return 2.0 * z * upstream


@pytest.mark.parametrize("view", [False, True])
def test_functions_of_autograd_get_numbers_and_give_gradients(view: bool) -> None:
    def grads(made: tuple[nn.Linear, Tensor]) -> tuple[Tensor, ...]:
        layer, x = made
        logits = layer(x)
        return torch.autograd.grad(Square.apply(logits[:, :-1] if view else logits), (x, *layer.parameters()))

    for one, other in zip(grads(head(True)), grads(lean_head(biased=True)), strict=True):
        torch.testing.assert_close(other, one)


def test_hooks_see_what_they_would_see() -> None:
    def seen(made: tuple[nn.Linear, Tensor]) -> list[Tensor]:
        layer, x = made
        found: list[Tensor] = []
        layer.register_full_backward_hook(lambda _, dx, dz: found.extend((*dx, *dz)))
        logits = layer(x)
        logits.register_hook(lambda dz: found.append(dz))
        F.cross_entropy(logits.view(-1, V), LABELS).backward()
        return found

    expected, found = seen(head()), seen(lean_head())
    assert len(expected) == 3
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one)


def test_logits_of_a_step_can_be_read_until_the_weight_changes() -> None:
    model = language_model("Llama", 0.0)
    batch = language_batch("right")
    expected = model(**batch).logits.detach()
    set_lean_head(model)
    before, after = model(**batch), model(**batch)
    before.loss.backward()
    torch.testing.assert_close(before.logits.detach(), expected)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    torch.testing.assert_close(before.logits.detach(), expected)
    with pytest.raises(InputError, match="output layer was changed"):
        after.logits.argmax(-1)
    with pytest.raises(InputError, match="output layer was changed"):
        F.cross_entropy(after.logits.view(-1, VOCABULARY), torch.zeros(30, dtype=torch.int64))
    with pytest.raises(InputError, match="output layer was changed"):
        after.logits.view(-1, VOCABULARY)


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
