"""A model of one's own: what is known keeps less, what is not stays stock with a reason, and all of it goes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.lean_gradients import Kept
from torch import Tensor, nn

from wtacrs.integration import approximate_, lean_, restore_
from wtacrs.integration.layers.lean.options import LeanOptions
from wtacrs.integration.measure.lean_coverage import lean_coverage

WIDTH, DEPTH, TOKENS, ROWS = 32, 2, 12, 4


class PowerNorm(nn.Module):
    """Divides by the mean of |x|³, to the power of a third: neither a layer norm nor an RMS norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.abs().pow(3).mean(-1, keepdim=True) + 1e-6).pow(1 / 3)


class SquaredAttention(nn.Module):
    """Weights are squares of the products, which sum to one: no softmax, and no module of a library."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).transpose(-1, -2)).square() + 1e-6
        return self.out(self.drop(weights / weights.sum(-1, keepdim=True)) @ self.v(x))


class Wave(nn.Module):
    """An activation that nobody knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(x)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attention, self.second = PowerNorm(width), SquaredAttention(width), nn.LayerNorm(width)
        self.up, self.act, self.drop = nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1)
        self.down, self.wave = nn.Linear(4 * width, width), Wave()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.wave(self.down(self.drop(self.act(self.up(self.second(x))))))


class Own(nn.Module):
    """A torch model with parts that no lean piece knows, between parts that one does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def built() -> tuple[Own, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Own().train(), torch.randint(50, (ROWS, TOKENS))


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    torch.manual_seed(1)  # dropout
    return F.cross_entropy(model(ids), torch.arange(ROWS) % 3)


def gradients(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss(model, ids).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def kept(model: nn.Module, ids: Tensor) -> int:
    return Kept(model, lambda: loss(model, ids), []).total


def test_what_is_known_is_lean_and_the_rest_stays_with_a_reason() -> None:
    model, _ = built()
    lean = lean_(model)
    block = {name.removeprefix("blocks.0."): what for name, what in lean.found.items() if "blocks.0." in name}
    layer = "exact linear layer"
    assert block == {
        **{f"attention.{name}": layer for name in ("q", "k", "v", "out")},
        "attention.drop": "dropout",
        "second": "LayerNorm",
        "up": layer,
        "act": "GELU",
        "drop": "dropout",
        "down": layer,
    }
    assert {name: reason for name, reason in lean.stays.items() if "blocks.1" not in name} == {
        "embed": "a look-up: it keeps ids",
        "blocks.0.norm": "no lean piece: not an RMS norm by its outputs",
        "blocks.0.wave": "no known element-wise function: its outputs differ from all on a grid of numbers",
    }


def test_attention_and_output_layer_of_ones_own_are_refused_with_a_reason() -> None:
    model, _ = built()
    lean = lean_(model, attention="keep", head="forward")
    assert lean.refused == {"output layer of the model": "Own has no output layer by get_output_embeddings"}
    assert lean.attention == {}  # nothing of transformers is within
    told = [entry.what for entry in lean_coverage(model, LeanOptions(head="forward"))]
    assert told[-1] == "output layer: Own has no output layer by get_output_embeddings"


def test_output_and_gradients_are_those_of_stock_and_bytes_fall() -> None:
    model, ids = built()
    known, exact, stock = loss(model, ids), gradients(model, ids), kept(model, ids)
    lean_(model)
    assert torch.allclose(loss(model, ids), known, rtol=1e-6)
    found = gradients(model, ids)
    assert found.keys() == exact.keys()
    for name, gradient in exact.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name
    wide, mask = ROWS * TOKENS * 4 * WIDTH, ROWS * (TOKENS * TOKENS)
    # in every block masks are bits, of hidden units and of attention, and `down` keeps its input no more
    assert stock - kept(model, ids) >= DEPTH * (2 * 4 * wide - wide // 8 + 4 * mask - mask // 8)


def test_estimated_and_lean_layers_go_back_to_stock() -> None:
    model, ids = built()
    classes = [type(module) for module in model.modules()]
    known, exact, stock = loss(model, ids), gradients(model, ids), kept(model, ids)
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0, lean="8-bit")
    assert torch.allclose(loss(model, ids), known, rtol=1e-6)  # neither changes the output
    lean_(model)
    assert kept(model, ids) < stock
    restore_(model)
    assert [type(module) for module in model.modules()] == classes
    assert torch.equal(loss(model, ids), known)
    assert kept(model, ids) == stock
    assert all(torch.equal(gradient, exact[name]) for name, gradient in gradients(model, ids).items())


@pytest.mark.parametrize("sampled", [False, True])
def test_checkpoints_are_those_of_stock_both_ways(sampled: bool, tmp_path: Path) -> None:
    stock, ids = built()
    model, _ = built()
    if sampled:
        approximate_(model, "wta_crs(budget=0.3)", min_elements=0, lean=True)
    else:
        lean_(model)
    assert list(model.state_dict()) == list(stock.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    assert not torch.equal(stock.eval()(ids), model.eval()(ids))
    stock.load_state_dict(torch.load(tmp_path / "own.pt"))
    assert torch.equal(stock(ids), model(ids))
    model.load_state_dict(built()[0].state_dict())
    assert torch.equal(model(ids), built()[0].eval()(ids))


def test_a_part_that_takes_its_input_by_name_or_changes_it_is_left_alone() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(torch.sigmoid(x))

    model = nn.Sequential(nn.Linear(8, 8), InPlace(), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    assert lean_(model).stays == {"1": "it works in place: its input is gone"}
