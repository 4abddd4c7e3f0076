"""Masks in bits."""

from __future__ import annotations

import pytest
import torch

from wtacrs.integration.layers.lean.bits import pack, unpack


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (2, 7, 9), (0,)])
def test_a_mask_comes_back_and_takes_an_eighth_of_a_byte(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    mask = torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)
    packed = pack(mask)
    assert packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(packed, mask.shape, torch.uint8), mask)
    assert torch.equal(unpack(packed, mask.shape, torch.float32), mask.float())


def test_a_mask_that_does_not_lie_in_one_piece(generator: torch.Generator) -> None:
    mask = torch.randint(0, 2, (6, 11), generator=generator, dtype=torch.uint8).t()
    assert torch.equal(unpack(pack(mask), mask.shape, torch.uint8), mask)
