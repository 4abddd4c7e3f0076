"""What defers logits, what needs their numbers, and what work in place, Functions and hooks see."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.language_models import VOCABULARY, language_batch, language_model
from tests.support.lean_heads import LABELS, MODES, V, head, lean_head
from wtacrs.estimators import InputError
from wtacrs.integration.layers.lean.deferred_logits import is_deferred
from wtacrs.integration.layers.lean.head import set_lean_head
from wtacrs.integration.layers.lean.options import HeadMode

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
