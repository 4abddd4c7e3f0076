"""What users do to a forward pass: outputs that are leaves, Ctrl-C, hints on another device or of another layout."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.models import bert_batch, tiny_bert
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wtacrs.estimators import InputError
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_

SPEC = "crs(budget=0.5)"
MASK = torch.arange(10) < torch.tensor([[3], [7], [10]])


class Returns(nn.Module):
    """Two blocks of which one may be checkpointed; returns its parameter and its input beside the output."""

    def __init__(self, *, again: bool) -> None:
        super().__init__()
        self.again = again
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        h = checkpoint(self.first, x, use_reentrant=False) if self.again else self.first(x)
        return {"y": self.second(h.tanh()) * self.scale, "scale": self.scale, "x": x}


def context_of(model: nn.Module) -> ForwardContext:
    context = ForwardContext.of(model)
    assert context is not None
    return context


def gradients(*, again: bool, steps: int = 4) -> tuple[Returns, list[Tensor]]:
    torch.manual_seed(0)
    model = Returns(again=again).double()
    approximate_(model, SPEC, min_elements=0, seed=1)
    x = torch.randn(3, 10, 8, dtype=torch.float64, requires_grad=True)
    found = []
    for _ in range(steps):
        model.zero_grad()
        out = model(x, attention_mask=MASK)
        (out["y"].square() * MASK[..., None]).sum().backward()
        found.append(torch.cat([model.first.weight.grad.flatten(), model.second.weight.grad.flatten()]))
    return model, found


def test_leaves_that_a_model_returns_get_no_hooks() -> None:
    """A hook would outlive the step, and every later backward pass would take its forward pass for its own."""
    plain, expected = gradients(again=False)
    again, found = gradients(again=True)
    for model in (plain, again):
        assert not model.scale._backward_hooks
        assert context_of(model).draws.passes == 4
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(one, two)


class Interrupts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.interrupt = nn.Linear(8, 4), False

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        y = self.layer(x)
        if self.interrupt:
            raise KeyboardInterrupt
        return y.square().sum()


def test_a_pass_that_was_interrupted_is_gone() -> None:
    """torch runs no hook of a call that Ctrl-C ends."""
    model = Interrupts()
    approximate_(model, SPEC, min_elements=0)
    context, x = context_of(model), torch.randn(3, 10, 8)
    for _ in range(3):
        model.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            model(x, attention_mask=MASK)
        model.interrupt = False
        with torch.no_grad():
            model(x, attention_mask=MASK)
        assert context._thread.calls == []


def test_a_call_within_a_call_keeps_the_one_around_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.depth = nn.Linear(8, 8), 0

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            if self.depth == 0:
                self.depth = 1
                x = x + self(x, attention_mask=MASK[:, :4]).sum()
                current = context_of(self).current
                assert current is not None
                mask = current.mask(x.shape[:-1])
                assert mask is not None
                assert torch.equal(mask, MASK)
                self.depth = 0
            return self.layer(x)

    model = Twice()
    approximate_(model, SPEC, min_elements=0)
    model(torch.randn(3, 10, 8), attention_mask=MASK).sum().backward()
    assert context_of(model)._thread.calls == []


@pytest.mark.parametrize(
    "mask",
    [
        MASK.to("meta"),
        MASK.float().to_sparse(),
        torch.nested.nested_tensor([torch.ones(3), torch.ones(5)]),
        MASK.to(torch.complex64),
        "a mask",
        None,
    ],
)
def test_a_hint_that_cannot_be_read_is_none(mask: object) -> None:
    model = Returns(again=False)
    approximate_(model, SPEC, min_elements=0)
    seen: list[Tensor | None] = []
    model.first.register_forward_hook(lambda layer, args, _: seen.append(layer.mask_of(args[0])))
    model(torch.randn(3, 10, 8), attention_mask=mask)["y"].sum().backward()  # type: ignore[arg-type]
    assert seen == [None]


def test_labels_without_values_say_nothing() -> None:
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0)
    batch = bert_batch()
    labels = torch.zeros(3, 10, dtype=torch.long, device="meta")
    model.bert(batch["input_ids"], batch["attention_mask"])
    with torch.device("cpu"):
        context_of(model).begins(context_of(model)._calls[0], model, {**batch, "labels": labels})
        context_of(model).ends(context_of(model)._calls[0], None)


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_masks_stated_by_hand_are_of_any_kind(kind: torch.dtype) -> None:
    model = Returns(again=False)
    approximate_(model, SPEC, min_elements=0)
    seen: list[Tensor] = []
    model.first.register_forward_hook(lambda layer, args, _: seen.append(layer.mask_of(args[0])))
    with context_of(model).given(source=MASK.to(kind)):
        model(torch.randn(3, 10, 8))["y"].sum().backward()
    assert torch.equal(seen[0], MASK.flatten())


@pytest.mark.parametrize("mask", [torch.ones(3, 4, 5, dtype=torch.bool), torch.ones(3), MASK.to(torch.complex64)])
def test_masks_of_another_form_are_refused(mask: Tensor) -> None:
    model = Returns(again=False)
    approximate_(model, SPEC, min_elements=0)
    with (
        pytest.raises(InputError, match=r"source=\[.*\] must be a tensor \[batch, positions\]"),
        context_of(model).given(source=mask),
    ):
        pass


@pytest.mark.parametrize("layout", ["nested", "jagged", "sparse"])
def test_inputs_of_other_layouts_take_the_ordinary_path(layout: str) -> None:
    def gradient(convert: bool) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 4))
        if convert:
            approximate_(model, SPEC, min_elements=0)
        rows = [torch.randn(3, 8), torch.randn(5, 8)]
        if layout == "sparse":
            model(torch.cat(rows).to_sparse()).sum().backward()
        else:
            kind = torch.strided if layout == "nested" else torch.jagged
            out = model(torch.nested.nested_tensor(rows, layout=kind))
            (out.to_padded_tensor(0.0) if layout == "nested" else out.values()).sum().backward()
        return model[0].weight.grad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(gradient(True), gradient(False))
