"""What is said to be estimated is what is estimated, in every architecture; reasons for all the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from support.architectures import ARCHITECTURES, build, padded_batch
from support.glue_files import write_task
from support.lora_models import with_lora
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from wtacrs.estimators import InputError
from wtacrs.integration.cli import main
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.measure.coverage import Coverage, coverage, estimated_share
from wtacrs.integration.models.lora import add_lora
from wtacrs.integration.tables.layers import coverage_table
from wtacrs.validation.patterns import pattern_of

SPEC = "crs(budget=0.3)"


def estimated(model: nn.Module, batch: dict[str, Tensor], min_elements: int) -> set[str]:
    """Patterns of the layers that do sample in a training step."""
    approximate_(model, SPEC, min_elements=min_elements)
    found: set[str] = set()

    def note(layer: EstimatedWeightGrad, x: Tensor, name: str) -> None:
        if layer.samples(x):
            found.add(pattern_of(name))

    handles = [
        layer.register_forward_pre_hook(lambda m, args, name=name: note(m, args[0], name))
        for name, layer in model.named_modules()
        if isinstance(layer, EstimatedWeightGrad)
    ]
    model.train()(**batch).loss.backward()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("min_elements", [0, 5000])
@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_said_to_be_estimated_is(name: str, adapters: bool, min_elements: int, tokenizer) -> None:
    model = build(name, tokenizer)
    batch = padded_batch(model)
    model = add_lora(model, 4) if adapters else model
    state = torch.get_rng_state()
    found = coverage(model, batch, min_elements=min_elements)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    said = {entry.pattern for entry in found if entry.gradient == "estimated"}
    assert said == estimated(model, batch, min_elements)
    assert coverage(model, batch, min_elements=min_elements) == found  # converted or not
    assert all(entry.reason for entry in found if entry.gradient != "estimated")
    restore_(model)
    parameters = {id(p): p.numel() for p in model.parameters()}
    assert sum(entry.parameters for entry in found) == sum(parameters.values())
    if min_elements:
        assert any("min_elements=5000" in entry.reason for entry in found)


def test_layers_of_few_rows_are_named(tokenizer) -> None:
    """Of 3 answers of 4 tokens the decoder's layers read 12 rows, but for those that read the encoder's."""
    model = build("t5", tokenizer)
    batch = {"input_ids": torch.randint(5, 50, (3, 16)), "labels": torch.randint(5, 50, (3, 4))}
    found = coverage(model, batch, min_elements=0, min_rows=13)
    few = {entry.pattern for entry in found if "at most 12 rows come in, fewer than min_rows=13" in entry.reason}
    approximate_(model, SPEC, min_elements=0, min_rows=13)
    sampled: set[str] = set()
    for name, layer in model.named_modules():
        if isinstance(layer, EstimatedWeightGrad):
            layer.register_forward_pre_hook(
                lambda m, args, name=name: sampled.add(pattern_of(name)) if m.samples(args[0]) else None
            )
    model.train()(**batch).loss.backward()
    assert few
    assert sampled == {entry.pattern for entry in found if entry.gradient == "estimated"}
    assert any("EncDecAttention.k" in name for name in sampled)
    assert any("EncDecAttention.q" in name for name in few)


class Odd(nn.Module):
    """One of everything that is left exact."""

    def __init__(self) -> None:
        super().__init__()

        class Special(nn.Linear):
            pass

        self.embedding = nn.Embedding(10, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.special, self.plain, self.by_weight = Special(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.frozen, self.bias_only = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8)
        self.bias_only.weight.requires_grad_(False)
        self.replaced = nn.Linear(8, 8)
        self.replaced.forward = self.replaced.forward
        self.conv, self.norm = nn.Conv1d(8, 8, 1), nn.LayerNorm(8)
        self.tied = nn.Linear(8, 10, bias=False)
        self.tied.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        x = self.attention(x, x, x)[0] + self.special(self.plain(x))
        x = nn.functional.linear(x, self.by_weight.weight) + self.bias_only(self.frozen(x)) + self.replaced(x)
        return self.tied(self.norm(self.conv(x.mT).mT) * self.scale)


def test_the_reason_for_everything_else() -> None:
    found = coverage(Odd(), {"ids": torch.zeros(2, 3, dtype=torch.long)}, min_elements=0)
    reasons = {entry.pattern: (entry.gradient, entry.reason) for entry in found}
    assert reasons == {
        "": ("exact", "no linear layer"),
        "embedding": ("exact", "a look-up: ids are kept, no X"),
        "attention": ("exact", "hands its weights to a function, no layer is called"),
        "attention.out_proj": ("exact", "never called: its attention takes the weight alone"),
        "special": ("exact", "a subclass of nn.Linear, whose own forward would be lost"),
        "plain": ("estimated", ""),
        "by_weight": ("exact", "not called in this batch"),
        "frozen": ("none", "frozen: nothing is kept for dW"),
        "bias_only": ("none", "the weight is frozen, a bias needs nothing of X"),
        "replaced": ("exact", "its forward is replaced on the instance, so approximate_ refuses the model"),
        "conv": ("exact", "a convolution"),
        "norm": ("exact", "a norm: its dW is no product of matrices"),
        "tied": ("estimated", "tied to embedding, whose part of dW is exact"),
    }


class Computed(nn.Module):
    """Layers whose weight is computed, is not there yet, or is no real number."""

    def __init__(self) -> None:
        super().__init__()
        self.parametrized = parametrizations.weight_norm(nn.Linear(8, 8))
        self.pruned = prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5)
        self.complex, self.lazy = nn.Linear(8, 8, dtype=torch.complex64), nn.LazyLinear(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.lazy(self.pruned(self.parametrized(x)) + self.complex(x.to(torch.complex64)).abs())


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.filterwarnings("ignore:lazy layers")
def test_weights_that_are_no_plain_parameters(converted: bool) -> None:
    model = Computed()
    if converted:
        approximate_(model, SPEC, min_elements=0)
    reasons = {entry.pattern: (entry.gradient, entry.reason) for entry in coverage(model, min_elements=0)}
    assert reasons == {
        "parametrized": ("exact", "parametrized: its weight is computed anew at every access"),
        "parametrized.parametrizations.weight": ("exact", "what a parametrization computes a tensor from"),
        "pruned": ("estimated", ""),
        "complex": ("exact", "its weight is complex64; real numbers can be estimated"),
        "lazy": ("exact", "lazy: its weight has no shape before the first forward pass"),
    }
    found = coverage(model, {"x": torch.randn(3, 8)}, min_elements=0)  # the lazy layer has a shape since
    assert [entry.gradient for entry in found if entry.pattern in ("pruned", "lazy")] == ["estimated"] * 2
    assert sum(entry.parameters for entry in found) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": torch.zeros(2)}, r"batch=tensor.* must be a mapping of the forward pass's arguments by name"),
        ({"filter_fn": 3}, "filter_fn=3 must be a function"),
        ({"min_elements": True}, "min_elements=True must be an integer from 0"),
    ],
)
def test_an_argument_of_another_type_is_named(unchecked: None, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        coverage(tiny_bert(), **changes)


def test_the_filter_decides() -> None:
    model = with_lora(tiny_bert(), task_type="SEQ_CLS")
    found = coverage(model, bert_batch(), filter_fn=lambda _, name: "lora_B" in name, min_elements=0)
    assert all(entry.pattern.endswith("lora_B.default") for entry in found if entry.gradient == "estimated")
    assert "left out by the filter" in {entry.reason for entry in found}


def test_without_a_batch_only_the_structure_is_told() -> None:
    found = {entry.pattern: entry for entry in coverage(tiny_t5())}
    assert found["lm_head"].gradient == "estimated"
    assert found["lm_head"].reason == "tied to shared, whose part of dW is exact"
    assert found["encoder.block.*.layer.*.SelfAttention.q"].modules == 2


def test_share_of_the_trained_numbers() -> None:
    def entry(gradient: str, parameters: int) -> Coverage:
        return Coverage("x", 1, "Linear", (2, 2), parameters, gradient, "")

    assert estimated_share([entry("estimated", 3), entry("exact", 1), entry("none", 100)]) == 0.75
    assert estimated_share([entry("none", 100)]) == 0
    everything = coverage(tiny_t5(), t5_batch(), min_elements=0)
    assert coverage_table("t5", everything).row_count == len(everything)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("a.0.b", "a.*.b"),
        ("0", "*"),
        ("h.10.c_attn", "h.*.c_attn"),
        ("wi_0", "wi_0"),
        ("ln_1.2", "ln_1.*"),
        ("", ""),
    ],
)
def test_numbers_become_stars(name: str, pattern: str) -> None:
    assert pattern_of(name) == pattern


@pytest.fixture
def task(tmp_path: Path) -> list[str]:
    sentences = "".join(f"a {word} film about {word}s\t{word % 2}\n" for word in range(40))
    folder = write_task(tmp_path / "glue" / "SST-2", "sentence\tlabel\n" + sentences, "sentence\tlabel\nso\t1\n")
    return ["--task", "sst2", "--data", str(folder)]


def test_the_command_prints_a_table_per_model(task: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["layers", "--model", "new:gpt2", "--model", "new:bert", "--lora-rank", "4", "--batch-size", "2"]
    assert main([*arguments, "--max-length", "16", *task]) == 0
    shown = capsys.readouterr().out
    assert shown.count("of the trained numbers") == 2
    assert "Conv1D" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "new:gpt"], "new:gpt2"),
        (["--model", "./nowhere"], "not a folder"),
        (["--lora-rank", "0"], "--lora-rank 0"),
        (["--model", "new:bert", "--layers", "*.nothing"], "fits none"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, task: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layers", *arguments, *task]) == 2
    found = capsys.readouterr().err
    assert message in found
    assert found.count("\n") == 1


def test_without_a_name_all_new_models_are_shown(task: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "--batch-size", "2", *task]) == 0
    assert capsys.readouterr().out.count("of the trained numbers") == len(ARCHITECTURES)


def test_without_peft_adapters_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    assert main(["layers", "--lora-rank", "4"]) == 2
    assert "needs peft" in capsys.readouterr().err
