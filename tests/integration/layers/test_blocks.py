"""What the blocks of a model are."""

from __future__ import annotations

import pytest
from support.language_models import language_model
from torch import nn

from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.layers.checkpointed import set_checkpointed


class Block(nn.Module):
    def __init__(self, experts: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.experts = nn.ModuleList(Block() for _ in range(experts))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("T5", ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"]),
        ("BERT", ["bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ("GPT-2", ["transformer.h.0", "transformer.h.1"]),
        ("Llama", ["model.layers.0", "model.layers.1"]),
    ],
)
def test_of_language_models(name: str, names: list[str]) -> None:
    assert list(blocks_of(language_model(name, 0.0))) == names


def test_of_modules_of_ones_own() -> None:
    assert list(blocks_of(nn.Sequential(Block(), Block(experts=3)))) == ["0", "1"]
    assert list(blocks_of(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))) == []
    assert list(blocks_of(nn.Sequential(Block(), nn.ReLU()))) == []
    assert list(blocks_of(nn.ModuleList([Block()]))) == []
    shared = Block()
    assert list(blocks_of(nn.Sequential(shared, shared))) == []


def test_a_list_of_one_counts_where_its_class_repeats() -> None:
    model = nn.ModuleDict({"encoder": nn.ModuleList([Block(), Block()]), "decoder": nn.ModuleList([Block()])})
    assert list(blocks_of(model)) == ["encoder.0", "encoder.1", "decoder.0"]


def test_checkpointed_blocks_are_blocks() -> None:
    model = nn.Sequential(Block(), Block())
    set_checkpointed([model[1]])
    assert list(blocks_of(model)) == ["0", "1"]
