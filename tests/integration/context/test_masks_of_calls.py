"""Masks that multiply and masks that are added, and calls that say nothing of their target."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.masks import masks_from_arguments
from wtacrs.integration.layers.convert import approximate_

LARGE = 3e38


@pytest.mark.parametrize(
    "attention",
    [
        [[1, 1, 0], [1, 1, 1]],
        [[True, True, False], [True, True, True]],
        [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]],
        [[0.0, 0.0, -LARGE], [0.0, 0.0, 0.0]],
        [[0.0, 0.0, -10000.0], [10000.0, 0.0, 0.0]],  # Longformer: 10000 attends globally
        [[0.5, 1.0, 0.0], [1.0, 1.0, 1.0]],
    ],
)
def test_masks_that_multiply_and_masks_that_are_added(attention: list[list[float]]) -> None:
    (mask,) = masks_from_arguments(False, {"attention_mask": torch.tensor(attention)})
    assert mask.tolist() == [[True, True, False], [True, True, True]]


def test_nothing_to_add_is_no_padding() -> None:
    (mask,) = masks_from_arguments(False, {"attention_mask": torch.zeros(2, 3)})
    assert bool(mask.all())
    (opposite,) = masks_from_arguments(False, {"attention_mask": torch.zeros(2, 3, dtype=torch.long)})
    assert not bool(opposite.any())


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen: list[Tensor | None] = []

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        self.seen.append(self.layer.mask_of(x))
        return self.layer(x)


class Body(nn.Module):
    """As BART's: is told of the source's mask alone, and the labels stay outside."""

    config = SimpleNamespace(is_encoder_decoder=True)

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Half(), Half()

    def forward(
        self, x: Tensor, attention_mask: Tensor | None = None, decoder_attention_mask: Tensor | None = None
    ) -> Tensor:
        encoded = self.encoder(x, attention_mask=attention_mask)
        return self.decoder(encoded, attention_mask=decoder_attention_mask)


class Whole(nn.Module):
    config = SimpleNamespace(is_encoder_decoder=True)

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()

    def forward(
        self, x: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        return self.body(x, attention_mask=attention_mask, decoder_attention_mask=decoder_attention_mask)


def test_a_source_mask_alone_does_not_hide_rows_of_a_target_that_a_call_around_it_knows() -> None:
    """Encoder and decoder of one length: the decoder's rows are padding where both sequences have it."""
    model = Whole()
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    attention, labels = torch.tensor([[1, 1, 0, 0, 0]]), torch.tensor([[5, 5, 5, 5, -100]])
    model(torch.randn(1, 5, 4), attention_mask=attention, labels=labels)
    (source,), (target,) = model.body.encoder.seen, model.body.decoder.seen
    assert source is not None
    assert target is not None
    assert source.tolist() == [True, True, False, False, False]
    assert target.tolist() == [True, True, True, True, False]
    model(torch.randn(1, 5, 4), attention_mask=attention, decoder_attention_mask=torch.tensor([[1, 1, 1, 0, 0]]))
    told = model.body.decoder.seen[-1]
    assert told is not None
    assert told.tolist() == [True, True, True, False, False]


def test_a_layer_knows_its_mask_within_a_pass_alone() -> None:
    model = Half()
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    x, mask = torch.randn(1, 3, 4), torch.tensor([[1, 0, 1]])
    assert model.layer.mask_of(x) is None
    model(x, attention_mask=mask)
    assert model.seen[-1] is not None
    assert model.seen[-1].tolist() == [True, False, True]
    context = ForwardContext.of(model)
    assert context is not None
    with context.given(source=torch.tensor([[False, True, True]])):
        found = model.layer.mask_of(x)
    assert found is not None
    assert found.tolist() == [False, True, True]
    approximate_(model, "uniform(budget=0.5)", min_elements=0)
    model(x, attention_mask=mask)
    assert model.seen[-1] is None  # does not go by scores
