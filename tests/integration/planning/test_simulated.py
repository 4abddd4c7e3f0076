"""Simulated costs beside measured ones: bytes agree to the byte, and shortened stacks stand for whole ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from wtacrs.estimators import InputError
from wtacrs.integration.layers.blocks import blocks_of
from wtacrs.integration.measure.simulation.step import checked_shape, example_batch
from wtacrs.integration.models.lora import add_lora
from wtacrs.integration.models.published_sizes import model_from
from wtacrs.integration.planning.costs import measured_costs
from wtacrs.integration.planning.simulated import simulated_costs
from wtacrs.validation.records.plan import STOCK, Choice, CostTable, Rates

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("unchecked_module")  # shapes are what is compared

RATES = Rates(flops=1e10, bytes=1e10, by="given")
SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 512,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], Any]] = {
    "t5": lambda: transformers.T5Config(
        d_model=64, d_ff=128, d_kv=16, num_layers=4, num_heads=4, vocab_size=512, decoder_start_token_id=0
    ),
    "bert": lambda: transformers.BertConfig(**SMALL),
    "llama": lambda: transformers.LlamaConfig(**SMALL, num_key_value_heads=2),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=64, n_layer=4, n_head=4, vocab_size=512, bos_token_id=1, eos_token_id=1
    ),
}
BATCH, LENGTH = 8, 64
"""So that layers of these small models sample."""
CHOICES = [
    STOCK,
    Choice(checkpointed=True),
    Choice(estimator="wta_crs(budget=0.3)"),
    Choice(estimator="wta_crs(budget=0.1)", lean="attention-again"),
]
WAYS = [STOCK, Choice(checkpointed=True), Choice(estimator="wta_crs(budget=0.3)", lean="neighbours")]


def simulated(name: str, choices: list[Choice] = CHOICES, **options: Any) -> CostTable:
    return simulated_costs(CONFIGS[name](), choices, batch_size=BATCH, length=LENGTH, rates=RATES, **options)


@cache
def table_of(name: str) -> CostTable:
    """Of all choices."""
    return simulated(name)


def measured(name: str, table: CostTable, lora_rank: int | None = None, **options: Any) -> CostTable:
    config = CONFIGS[name]()
    model: nn.Module = model_from(config)
    batch = example_batch(model, checked_shape(config, BATCH, LENGTH, None))
    if lora_rank is not None:
        model = add_lora(model, lora_rank)  # type: ignore[arg-type]
    heads = [rest.head for rest in table.rest]
    noise = {"noise": lambda *_: 0.0, "noise_by": "independent rows"}
    return measured_costs(model, batch, CHOICES, heads=heads, rounds=1, **noise, **options)


def sizes(table: CostTable) -> list[Any]:
    """All bytes of a table."""
    of_blocks = [
        (block.name, block.gradients, str(o.choice), o.kept, o.forward, o.backward)
        for block in table.blocks
        for o in block.options
    ]
    of_rest = [
        (rest.head, *map(list, (rest.forward, rest.between, rest.backward, rest.until))) for rest in table.rest
    ]
    return [table.fixed, *of_blocks, *of_rest]


def within(found: CostTable, real: CostTable) -> None:
    """Bytes of every block and choice, and the peak of every moment of the rest, are those measured, or little more."""
    assert found.fixed == real.fixed
    assert [block.name for block in found.blocks] == [block.name for block in real.blocks]
    for one, other in zip(found.blocks, real.blocks, strict=True):
        assert one.gradients == other.gradients
        for a, b in zip(one.options, other.options, strict=True):
            for part in ("kept", "forward", "backward"):
                assert 1.0 <= getattr(a, part) / getattr(b, part) <= 1.03, (one.name, str(a.choice), part)
    for rest, known in zip(found.rest, real.rest, strict=True):
        for part in ("forward", "between", "backward", "until"):
            for a, b in zip(getattr(rest, part), getattr(known, part), strict=True):
                assert 0 <= a - b <= 0.03 * abs(b), (rest.head, part)


@pytest.mark.parametrize(
    "name", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("t5", "llama"))]
)
def test_bytes_are_those_of_measured_steps(name: str) -> None:
    table = table_of(name)
    assert (table.by, table.rates) == ("simulated", RATES)
    within(table, measured(name, table))


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("t5", WAYS[:2]),
        pytest.param("t5", WAYS, marks=pytest.mark.slow),
        pytest.param("gpt2", WAYS, marks=pytest.mark.slow),
    ],
    ids=["t5, exact", "t5", "gpt2"],
)
def test_shortened_stacks_stand_for_whole_ones(name: str, ways: list[Choice]) -> None:
    options: dict[str, Any] = {"heads": (None, "again") if ways is WAYS else (None,)}
    short, whole = simulated(name, ways, **options), simulated(name, ways, every_block=True, **options)
    assert sizes(short) == sizes(whole)
    for one, other in zip(short.blocks, whole.blocks, strict=True):
        assert [o.noise for o in one.options] == [o.noise for o in other.options]
        assert [o.seconds for o in one.options] == pytest.approx([o.seconds for o in other.options], rel=1e-3)


def test_a_stack_of_other_kinds_within_stays_whole() -> None:
    """The broken twin: a stack whose inner blocks differ would be told wrongly by one of them."""
    from wtacrs.integration.planning.simulated import _shorten

    def stack(*widths: int) -> nn.Module:
        return nn.Sequential(*(nn.Sequential(nn.Linear(4, width), nn.Linear(width, 4)) for width in widths))

    alike, other = (nn.ModuleDict({"stack": stack(*w)}) for w in ((4, 8, 8, 8, 4), (4, 8, 9, 8, 4)))
    stands = _shorten(alike, blocks_of(alike))
    assert stands["stack.1"] == ["stack.1", "stack.2", "stack.3"]
    assert list(blocks_of(alike)) == ["stack.0", "stack.1", "stack.2"]
    assert list(_shorten(other, blocks_of(other))) == [f"stack.{place}" for place in range(5)]


def test_modelled_seconds_order_clear_choices() -> None:
    """Checkpointing runs the forward pass once more: a third of the products. A sampled dW spares most of another."""
    table = table_of("bert")
    for block in table.blocks:
        stock, again, sampled, _ = (option.seconds for option in block.options)
        assert sampled < stock < again < 1.5 * stock


def test_noise_is_that_of_the_whole_model() -> None:
    def noise(model: nn.Module) -> Callable[[str, Choice], float]:
        assert len(blocks_of(model)) == 4
        assert all(parameter.is_meta for parameter in model.parameters())
        names = list(blocks_of(model))
        return lambda block, choice: float(names.index(block))

    table = simulated("bert", [STOCK], noise=noise, noise_by="closed form")
    assert [block.options[0].noise for block in table.blocks] == [0.0, 1.0, 2.0, 3.0]
    assert table.noise_by == "closed form"


def test_random_numbers_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    simulated("bert", [STOCK])
    assert torch.equal(before, torch.random.get_rng_state())


def test_bad_input(unchecked: None) -> None:
    with pytest.raises(InputError, match="precision='fp8'"):
        simulated("bert", precision="fp8")
    with pytest.raises(InputError, match="lora_rank=2"):
        simulated("bert", lora_rank=2)
    with pytest.raises(InputError, match="stock one must be the first"):
        simulated("bert", CHOICES[1:])
    with pytest.raises(InputError, match="target_length=4"):
        simulated("bert", target_length=4)
    with pytest.raises(InputError, match="model='t5-bace'"):
        simulated_costs("t5-bace", CHOICES, batch_size=1, rates=RATES)
