"""One forward pass: which mask fits rows of a shape, of the innermost call that has one; what is known of tokens."""

from __future__ import annotations

import pytest
import torch
from support.expected_gradients import expected_gradients
from support.models import t5_batch, tiny_t5
from torch import Size, Tensor, nn
from torch.utils.checkpoint import checkpoint

from wtacrs.integration.context.draws import Draws
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.forward_pass import ForwardPass, Frame
from wtacrs.integration.layers.convert import approximate_

A = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
B = torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
LONG = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()


def begun(*frames: Frame) -> ForwardPass:
    current = ForwardPass(Draws(0))
    for frame in frames:
        current.enter(frame)
    return current


def listed(mask: Tensor | None) -> object:
    return None if mask is None else mask.int().tolist()


def test_by_shape() -> None:
    current = begun(Frame([A, LONG]))
    assert listed(current.mask(Size([2, 3]))) == listed(A)
    assert listed(current.mask(Size([2, 4]))) == listed(LONG)
    for shape in ([2], [2, 5], [3, 2], [2, 3, 1], [7], []):
        assert current.mask(Size(shape)) is None


def test_flattened_rows_are_as_many() -> None:
    current = begun(Frame([A, LONG]))
    assert listed(current.mask(Size([6]))) == listed(A.flatten())
    assert listed(current.mask(Size([8]))) == listed(LONG.flatten())
    assert current.unflattened(torch.zeros(6, 5)).shape == (2, 3, 5)
    assert current.unflattened(torch.zeros(7, 5)).shape == (7, 5)
    assert current.unflattened(torch.zeros(1, 6, 5)).shape == (1, 6, 5)
    assert begun(Frame(tokens={"source": torch.zeros(2, 3).long()})).unflattened(torch.zeros(6, 5)).ndim == 3


def test_where_several_fit_a_row_is_padding_if_all_say_so() -> None:
    assert listed(begun(Frame([A, B])).mask(Size([2, 3]))) == listed(A | B)
    both = begun(Frame([A, A.reshape(3, 2)]))  # of as many rows, in another order
    assert listed(both.mask(Size([6]))) == listed(A.flatten())
    assert listed(both.mask(Size([2, 3]))) == listed(A)


def test_the_innermost_call_counts_that_has_one_that_fits() -> None:
    current = begun(Frame([A]), Frame(), Frame([LONG]))
    assert listed(current.mask(Size([2, 3]))) == listed(A)
    current.enter(Frame([B]))
    assert listed(current.mask(Size([2, 3]))) == listed(B)
    assert listed(current.mask(Size([2, 4]))) == listed(LONG)
    current.leave()
    assert listed(current.mask(Size([2, 3]))) == listed(A)


def test_a_recomputation_finds_the_masks_of_all_calls() -> None:
    current = begun(Frame([A]))
    current.leave()
    current.enter(Frame([B]))
    current.leave()
    assert listed(current.mask(Size([2, 3]))) == listed(A | B)
    assert begun().mask(Size([2, 3])) is None


def test_masks_by_hand_come_first() -> None:
    current = begun(Frame([A]))
    current.give([Frame([B])])
    current.enter(Frame([A]))
    assert listed(current.mask(Size([2, 3]))) == listed(B)
    assert listed(current.mask(Size([6]))) == listed(B.flatten())


def test_what_is_handed_on_keeps_what_is_known_of_it() -> None:
    """Labels that the module inside does not see; a mask of its own, or a copy, stands for itself."""
    argument = A.long()
    current = begun(Frame([A | B], arguments=[argument]), Frame([A], arguments=[argument]))
    assert listed(current.mask(Size([2, 3]))) == listed(A | B)
    current.enter(Frame([A], arguments=[argument.clone()]))
    assert listed(current.mask(Size([2, 3]))) == listed(A)
    assert listed(begun(Frame([B], arguments=[None]), Frame([A], arguments=[None])).mask(Size([2, 3]))) == listed(
        A
    )


def test_tokens_are_those_of_the_outermost_call_that_has_any() -> None:
    source, target = torch.zeros(2, 3).long(), torch.zeros(2, 4).long()
    current = begun(
        Frame([A]), Frame(tokens={"source": source, "target": target}), Frame(tokens={"source": target})
    )
    assert current.tokens["source"] is source
    assert current.stream(Size([2, 3]), "target") == "source"
    assert current.stream(Size([2, 4]), "source") == "target"
    assert current.stream(Size([8]), "source") == "target"
    assert current.stream(Size([2, 5]), "source") is None
    same = begun(Frame(tokens={"source": source, "target": source.clone()}))
    assert same.stream(Size([2, 3]), "source") == "source"
    assert same.stream(Size([2, 3]), "target") == "target"


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.how = nn.Linear(4, 4, dtype=torch.float64), "plain"

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        y = self.mix(x) if self.how == "plain" else checkpoint(self.mix, x, use_reentrant=self.how == "reentrant")
        return y * attention_mask[..., None]


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder()

    def forward(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return (self.encoder(x, first) * self.encoder(x + 1, second).sum(1, keepdim=True)).square().sum()


@pytest.mark.parametrize("how", ["plain", "reentrant", "non-reentrant"])
def test_each_call_of_an_encoder_has_its_own_mask_also_when_it_is_run_again(how: str) -> None:
    """Where it is recomputed both fit, and together they call nothing padding that carries gradient."""
    model = Both()
    model.encoder.how = how
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    seen: list[object] = []
    model.encoder.mix.register_forward_pre_hook(
        lambda _, args: seen.append(listed(context.current.mask(args[0].shape[:-1])))
    )
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    found = expected_gradients(model, lambda: model(x, A, B).backward())
    assert found["encoder.mix"].bias <= 1e-9
    assert seen[:2] == [listed(A), listed(B)]
    assert seen[2:] == ([] if how == "plain" else [listed(A | B)] * 2)
    assert context.watch.read() == {}


@pytest.mark.parametrize("lengths", [(10, 7), (8, 8)])
def test_what_each_layer_of_a_t5_finds(lengths: tuple[int, int]) -> None:
    model, batch = tiny_t5(), t5_batch(*lengths)
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    source, target = batch["attention_mask"].bool(), batch["labels"] != -100
    found: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(
                lambda _, args, name=name: found.update({name: context.current.mask(args[0].shape[:-1])})
            )
    model(**batch)
    assert len(found) == 33
    for name, mask in found.items():
        if name.startswith("encoder"):
            assert torch.equal(mask, source), name
        elif lengths[0] == lengths[1]:
            assert torch.equal(mask, source | target), name
        else:
            assert torch.equal(
                mask, source if name.endswith(("EncDecAttention.k", "EncDecAttention.v")) else target
            )
