"""Masks from the arguments of a model, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wtacrs.integration.context.masks import masks_from_arguments

ATTENTION = torch.tensor([[1, 1, 0, 0]])
LABELS = torch.tensor([[5, -100, 7, -100]])


def listed(encoder_decoder: bool, **arguments: object) -> list[list[int]]:
    found = masks_from_arguments(encoder_decoder, arguments)
    assert all(mask.dtype == torch.bool for mask in found)
    return [mask.int()[0].tolist() for mask in found]


def test_of_encoder_and_decoder() -> None:
    assert listed(True, attention_mask=ATTENTION, labels=LABELS) == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert listed(True, decoder_attention_mask=ATTENTION) == [[1, 1, 0, 0]]
    assert listed(True, decoder_attention_mask=ATTENTION, labels=LABELS) == [[1, 1, 1, 0]]
    assert listed(True, decoder_attention_mask=ATTENTION, labels=LABELS[:, :3]) == [[1, 1, 0, 0]]
    assert listed(True, labels=torch.tensor([[-100, -100, -100]])) == [[0, 0, 0]]


def test_labelled_padding_of_a_causal_model_carries_a_loss_from_its_row_or_the_one_before() -> None:
    attention, labels = torch.tensor([[1, 0, 0, 0, 0, 0]]), torch.tensor([[4, -100, -100, -100, 4, -100]])
    assert listed(False, attention_mask=attention, labels=labels) == [[1, 0, 0, 1, 1, 0]]
    assert listed(False, labels=labels) == []
    assert listed(False, attention_mask=attention, labels=torch.tensor([1])) == [[1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    "mask", [torch.ones(1, 1, 4, 4), torch.ones(4), None, "causal", [[1, 0]], {"full": torch.ones(1, 4)}]
)
def test_what_is_no_mask_of_rows_says_nothing(mask: object) -> None:
    assert masks_from_arguments(False, {"attention_mask": mask}) == []
    assert masks_from_arguments(True, {"attention_mask": mask, "decoder_attention_mask": mask}) == []


@pytest.mark.parametrize("mask", [ATTENTION, ATTENTION.bool(), ATTENTION.float(), ATTENTION * 3])
def test_of_any_dtype(mask: Tensor) -> None:
    assert listed(False, attention_mask=mask) == [[1, 1, 0, 0]]


def test_labels_of_another_kind_say_nothing() -> None:
    assert listed(True, labels=torch.tensor([[0.5, 0.1]])) == []
    assert listed(True, labels=torch.tensor([1, 0])) == []
