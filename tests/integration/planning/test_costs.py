"""Measured costs: bytes of a chain of blocks to the byte, and peaks of plans beside the real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.language_models import language_batch, language_model
from torch import Tensor, nn

from wtacrs.estimators import InputError
from wtacrs.integration import approximate_, restore_
from wtacrs.integration.measure.memory import LiveBytes
from wtacrs.integration.planning.choices import choices_of, group_of
from wtacrs.integration.planning.costs import measured_costs
from wtacrs.integration.planning.moments import peak_of
from wtacrs.validation.records.plan import STOCK, BlockChoices, Choice, CostTable

ROWS, WIDTH, HIDDEN = 64, 16, 32
AGAIN = Choice(checkpointed=True)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.sigmoid(self.up(x)))


class Chain(nn.Module):
    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH, bias=False)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return SimpleNamespace(loss=x.square().sum())


def no_noise(block: str, choice: Choice) -> float:
    return 0.0 if choice.estimator is None else 1.0


def measured(model: nn.Module, batch: dict[str, Tensor], choices: list[Choice], **options: Any) -> CostTable:
    return measured_costs(model, batch, choices, noise=no_noise, noise_by="independent rows", rounds=1, **options)


def real_peak(model: nn.Module, batch: dict[str, Tensor], planned: BlockChoices) -> int:
    """Of a step, beyond what is always there."""
    model.zero_grad(set_to_none=True)
    if planned.head is not None or any(choice != STOCK for choice in planned.blocks.values()):
        approximate_(model, planned, seed=0)
    with LiveBytes() as live:
        model(**batch).loss.backward()
    restore_(model)
    model.zero_grad(set_to_none=True)
    return live.peak


def test_bytes_of_a_block_by_hand() -> None:
    torch.manual_seed(0)
    model = Chain().train()
    table = measured(model, {"x": torch.randn(ROWS, WIDTH)}, [STOCK, AGAIN])
    numbers = 4 * ROWS
    for block in table.blocks:
        assert block.gradients == 2 * 4 * WIDTH * HIDDEN
        stock, again = block.of(STOCK), block.of(AGAIN)
        assert stock.kept == numbers * (HIDDEN + WIDTH)  # the sigmoid's output, and the sum
        assert stock.forward == numbers * (HIDDEN + max(HIDDEN, 2 * WIDTH))
        assert again.kept <= numbers * WIDTH + 8192  # the sum, and torch's random state
        assert again.kept < stock.kept
        assert again.backward > stock.backward
    assert table.fixed["parameters"] == 4 * (WIDTH * WIDTH + 3 * 2 * WIDTH * HIDDEN)
    assert table.fixed["batch"] == numbers * WIDTH
    assert not [p for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("places", [(), (0,), (2,), (0, 1), (0, 1, 2)])
def test_the_peak_of_every_mixture_is_the_real_one(places: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model, batch = Chain().train(), {"x": torch.randn(ROWS, WIDTH)}
    table = measured(model, batch, [STOCK, AGAIN])
    chosen = [AGAIN if place in places else STOCK for place in range(3)]
    planned = BlockChoices(blocks={f"blocks.{i}": choice for i, choice in enumerate(chosen)})
    options = [block.of(choice) for block, choice in zip(table.blocks, chosen, strict=True)]
    predicted = peak_of(table, options, 0)[0] - table.always
    assert predicted == pytest.approx(real_peak(model, batch, planned), rel=0.02)


@pytest.mark.parametrize("name", ["T5", "GPT-2"])
def test_peaks_of_language_models(name: str) -> None:
    """Mixtures of what was measured one at a time, with every output layer."""
    model, batch = language_model(name, 0.1), language_batch("right")
    ways = [STOCK, AGAIN, Choice(lean="neighbours")]
    table = measured(model, batch, ways, heads=(None, "forward", "again"))
    for head in range(3):
        chosen = [ways[(place + head) % 3] for place in range(len(table.blocks))]
        names = [block.name for block in table.blocks]
        planned = BlockChoices(blocks=dict(zip(names, chosen, strict=True)), head=table.rest[head].head)
        options = [block.of(choice) for block, choice in zip(table.blocks, chosen, strict=True)]
        predicted = peak_of(table, options, head)[0] - table.always
        assert predicted == pytest.approx(real_peak(model, batch, planned), rel=0.06)


def test_the_model_is_left_as_it_was() -> None:
    model, batch = language_model("T5", 0.1).eval(), language_batch("right")
    model.shared.weight.grad = torch.ones_like(model.shared.weight)
    before, state = {name: type(part) for name, part in model.named_modules()}, torch.random.get_rng_state()
    measured(model, batch, [STOCK, AGAIN, Choice(estimator="crs(budget=0.5)", lean="attention")])
    assert {name: type(part) for name, part in model.named_modules()} == before
    assert not model.training
    assert torch.equal(model.shared.weight.grad, torch.ones_like(model.shared.weight))
    assert torch.equal(state, torch.random.get_rng_state())


def test_choices() -> None:
    found = choices_of(["crs(budget=0.5)"], ["neighbours", "attention"])
    assert found[0] == STOCK
    assert len(found) == len(set(found)) == 9
    assert all(choice.estimator is None for choice in found if choice.checkpointed)
    assert {group_of(choice) for choice in found} == {None, "neighbours"}
    assert group_of(STOCK) is None
    assert group_of(Choice(lean="attention-again,8-bit")) == "neighbours"
    assert group_of(Choice(lean="attention,quick-dropout")) == "quick-dropout"
    alone = choices_of(["crs(budget=0.5)"], (), checkpointed=False)
    assert [str(choice) for choice in alone] == ["exact", "crs(budget=0.5)"]
    with pytest.raises(InputError, match="the output layer is no block"):
        choices_of(lean=["head"])


def test_what_cannot_be_measured() -> None:
    batch = {"x": torch.randn(ROWS, WIDTH)}
    with pytest.raises(InputError, match="no repeated blocks"):
        measured(nn.Sequential(nn.Linear(WIDTH, 2)), batch, [STOCK])
    with pytest.raises(InputError, match="stock one must be the first"):
        measured(Chain(), batch, [AGAIN])

    class Twice(Chain):
        def forward(self, x: Tensor) -> Any:
            return super().forward(self.blocks[0](x))

    with pytest.raises(InputError, match=r"'blocks\.0' is called 2 times"):
        measured(Twice(), batch, [STOCK])

    class Lossless(Chain):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).loss

    with pytest.raises(InputError, match="gives no loss"):
        measured(Lossless(), batch, [STOCK])
