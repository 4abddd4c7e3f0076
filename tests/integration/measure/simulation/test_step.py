"""A simulated step beside a real one: kept bytes and peak agree, and are never below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wtacrs.estimators import InputError
from wtacrs.integration.measure.simulation.step import Simulation, measure_step, simulate_step
from wtacrs.integration.models.published_sizes import config_of, model_from

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("unchecked_module")  # shapes are what is compared

WTA = "wta_crs(budget=0.3)"
T5 = {
    "d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4,
    "vocab_size": 512, "decoder_start_token_id": 0,
}  # fmt: skip
BERT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 512,
}  # fmt: skip
LEAST = 64
"""So that layers of these small models sample."""


def config(name: str) -> Any:
    made = {
        "t5": lambda: transformers.T5Config(**T5),
        "t5-gated": lambda: transformers.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        "bert": lambda: transformers.BertConfig(**BERT),
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=64, n_layer=1, n_head=4, vocab_size=512, bos_token_id=1, eos_token_id=1
        ),
        "llama": lambda: transformers.LlamaConfig(**BERT, num_key_value_heads=2),
    }
    return made[name]()


def both(name: str, **options: Any) -> tuple[Simulation, Simulation]:
    sizes = {"batch_size": 4, "length": 24, "min_elements": LEAST}
    simulated = simulate_step(config(name), **sizes, **options)
    return simulated, measure_step(model_from(config(name)), **sizes, **options)


# slow: combinations of what the others have one by one
CASES: list[Any] = [
    ("t5", {}),
    pytest.param(*("t5", {"target_length": 6, "optimizer": "sgd"}), marks=pytest.mark.slow),
    pytest.param(*("t5", {"estimator": WTA}), marks=pytest.mark.slow),
    ("t5", {"estimator": "wta_crs(budget=0.1)", "lean": True}),
    pytest.param(*("t5", {"estimator": WTA, "lean": "attention,head"}), marks=pytest.mark.slow),
    pytest.param(*("t5", {"lean": "head-again", "optimizer": "none"}), marks=pytest.mark.slow),
    pytest.param(*("t5", {"checkpointing": True}), marks=pytest.mark.slow),
    ("t5", {"checkpointing": True, "estimator": "systematic(budget=0.3)"}),
    ("t5", {"estimator": "rademacher_sketch(budget=0.3)"}),
    pytest.param(*("t5", {"precision": "bf16", "estimator": WTA}), marks=pytest.mark.slow),
    ("t5", {"precision": "bf16-weights", "optimizer": "adamw-foreach"}),
    ("t5", {"optimizer": "adafactor"}),
    pytest.param(*("t5", {"offload": True, "estimator": WTA}), marks=pytest.mark.slow),
    pytest.param(*("t5-gated", {}), marks=pytest.mark.slow),
    pytest.param(*("t5-gated", {"estimator": WTA, "lean": "attention,head"}), marks=pytest.mark.slow),
    pytest.param(*("bert", {}), marks=pytest.mark.slow),
    ("bert", {"estimator": "crs(budget=0.3)", "lean": "attention"}),
    ("gpt2", {"estimator": "pivotal(budget=0.3)"}),
    pytest.param(*("gpt2", {"lean": "attention,head"}), marks=pytest.mark.slow),
    pytest.param(*("llama", {}), marks=pytest.mark.slow),
    pytest.param(*("llama", {"estimator": WTA, "lean": "attention,head"}), marks=pytest.mark.slow),
    pytest.param(*("llama", {"precision": "bf16", "lean": "attention"}), marks=pytest.mark.slow),
    ("llama", {"estimator": {"*.mlp.*": WTA, "*": "exact"}, "checkpointing": True}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_kept_and_peak_are_those_of_the_real_step(name: str, options: dict[str, Any]) -> None:
    simulated, real = (found.step for found in both(name, **options))
    for field in ("parameters", "buffers", "batch", "states", "gradients", "converted", "host"):
        assert getattr(simulated, field) == getattr(real, field), field
    if not options.get("offload"):  # about a kilobyte stays on the device then; `host` has the rest, to the byte
        assert 1.0 <= simulated.kept / real.kept <= 1.03
    assert 1.0 <= simulated.peak / real.peak <= 1.03
    assert sum(simulated.parts.values()) == simulated.peak


STOCK_ADAPTERS: dict[str, Any] = {"lora_rank": 4}
SAMPLED_ADAPTERS: dict[str, Any] = {"lora_rank": 4, "estimator": WTA, "lean": True}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t5", STOCK_ADAPTERS),
        ("llama", SAMPLED_ADAPTERS),
        pytest.param("t5", SAMPLED_ADAPTERS, marks=pytest.mark.slow),
        pytest.param("llama", STOCK_ADAPTERS, marks=pytest.mark.slow),
    ],
)
def test_adapters(name: str, options: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    simulated, real = (found.step for found in both(name, **options))
    assert (simulated.parameters, simulated.states) == (real.parameters, real.states)
    assert 1.0 <= simulated.kept / real.kept <= 1.03
    assert 1.0 <= simulated.peak / real.peak <= 1.03


def test_owners_and_blocks_are_those_of_the_real_step() -> None:
    simulated, real = both("t5", estimator=WTA)
    assert simulated.step.owners == real.step.owners
    assert simulated.step.blocks == real.step.blocks
    assert list(simulated.step.blocks) == ["encoder.block.0", "decoder.block.0"]
    assert all(simulated.step.blocks.values())


def test_what_a_real_step_keeps_for_longer_is_seen_in_the_real_step_alone() -> None:
    """A broken twin: a model that holds on to its activations is not the one that was simulated."""
    held = []

    def hold(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        held.append(output)

    def holding(model: nn.Module) -> None:
        model.get_submodule("encoder.block.0.layer.0.layer_norm").register_forward_hook(hold)
        model.get_submodule("encoder.final_layer_norm").register_forward_hook(hold)

    sizes = {"batch_size": 4, "length": 24}
    simulated = simulate_step(config("t5"), **sizes, checkpointing=True).step
    real = measure_step(model_from(config("t5")), **sizes, checkpointing=True, prepare=holding).step
    assert simulated.peak < real.peak


def test_nothing_is_allocated_for_a_model_that_no_host_holds() -> None:
    big = config_of("llama-70b")
    big.num_hidden_layers = 1
    found = simulate_step(big, batch_size=512, length=2048, optimizer="none").step
    assert found.peak > 4 * 512 * 2048 * big.vocab_size


@pytest.mark.slow
def test_bytes_follow_from_the_sizes_of_a_published_model() -> None:
    found = simulate_step("t5-small", batch_size=2, length=16).step
    assert found.parameters == 4 * 60_506_624  # as published checkpoints have
    steps = 131 * 4
    assert found.states == 2 * found.parameters + steps
    assert found.gradients == found.parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"optimizer": "adam"}, "optimizer='adam'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"length": 10_000}, "length=10000"),
        ({"target_length": 4}, "target_length=4"),
        ({"offload": "yes"}, "offload='yes'"),
        ({"estimator": "wta_csr"}, "wta_csr"),
        ({"lean": "heads"}, "heads"),
    ],
)
def test_bad_input_is_refused(unchecked: None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate_step(config("llama"), **{"batch_size": 2, "length": 8, **options})


@pytest.mark.parametrize("model", ["t5-bace", "/nowhere/config.json", 3])
def test_an_unknown_model_is_refused(unchecked: None, model: Any) -> None:
    with pytest.raises(InputError, match="model="):
        simulate_step(model, batch_size=2)
