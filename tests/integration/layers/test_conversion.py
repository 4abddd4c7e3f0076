"""What a conversion tells: every layer and matrix that stays exact with its reason, and one line where that is most."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    FourierFTConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    RandLoraConfig,
    ShiraConfig,
    VeraConfig,
    get_peft_model,
)
from support.architectures import ARCHITECTURES, build
from support.lora_models import with_lora
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import GPT2Config, GPT2ForSequenceClassification

from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.context.sampling_state import load_sampling_state, sampling_state
from wtacrs.integration.layers.conversion import Conversion
from wtacrs.integration.layers.convert import approximate_, conversion_ahead, restore_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad

SPEC = "crs(budget=0.3)"
FROZEN = "frozen: nothing is kept for dW"
LAZY = "lazy: its weight has no shape before the first forward pass"
SUBCLASS = "a subclass of nn.Linear, whose own forward would be lost"
B_OF_AN_ADAPTER = "B of an adapter: its input is r numbers wide"


def bare(kind: str) -> str:
    return f"a bare parameter of {kind}: no linear layer is called with it"


def convert(model: nn.Module, spec: Any = SPEC, **options: Any) -> tuple[Conversion, list[str]]:
    """What was converted, and the warnings; each is what `Conversion` has, and one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", WtacrsWarning)
        found = approximate_(model, spec, min_elements=0, **options)
    texts = [str(entry.message) for entry in caught]
    assert texts == ([] if found.warning is None else [found.warning])
    assert all("\n" not in text for text in texts)
    assert all(entry.filename == __file__ for entry in caught)
    return found, texts


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Experts(nn.Module):
    """Matrices of several experts in one parameter, as mixtures of experts hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 4, 4))
        self.scale, self.class_token = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(1, 1, 4))


class Everything(nn.Module):
    """One of everything that stays exact, beside a wide layer that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.bag = nn.Embedding(9, 4), nn.EmbeddingBag(9, 4)
        self.norms = nn.ModuleList(
            [nn.LayerNorm((2, 4)), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.RMSNorm((2, 4))]
        )
        self.conv, self.attention, self.lstm = nn.Conv1d(4, 4, 1), nn.MultiheadAttention(4, 2), nn.LSTM(4, 4)
        self.experts, self.bilinear = Experts(), nn.Bilinear(2, 2, 2)
        self.doubled, self.lazy = Doubled(4, 4), nn.LazyLinear(4)
        self.complex, self.parametrized = nn.Linear(4, 4, dtype=torch.complex64), nn.Linear(4, 4)
        parametrize.register_parametrization(self.parametrized, "weight", nn.Identity())
        self.frozen, self.bias_only = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 4)
        self.bias_only.weight.requires_grad_(False)
        self.table = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.filtered, self.wide = nn.Linear(4, 4), nn.Linear(4, 400)


def test_every_reason() -> None:
    found, _ = convert(Everything(), filter_fn=lambda _, name: name != "filtered")
    assert found == ["frozen", "bias_only", "wide"]
    assert found.estimated == ["wide"]
    assert found.exact == {
        "table": FROZEN,
        "conv.weight": "a convolution",
        "attention.in_proj_weight": bare("MultiheadAttention"),
        "attention.out_proj": "never called: its attention takes the weight alone",
        "lstm.weight_ih_l0": bare("LSTM"),
        "lstm.weight_hh_l0": bare("LSTM"),
        "experts.up": bare("tests' Experts"),
        "bilinear.weight": bare("Bilinear"),
        "doubled": SUBCLASS,
        "lazy": LAZY,
        "complex": "its weight is complex64; real numbers can be estimated",
        "parametrized": "parametrized: its weight is computed anew at every access",
        "frozen": FROZEN,
        "bias_only": "the weight is frozen, a bias needs nothing of X",
        "filtered": "left out by the filter",
    }


def test_all_that_trains_and_may_be_a_product_is_told() -> None:
    """Each parameter of two or more dimensions is a converted layer's, told, a look-up's or a norm's."""
    model = Everything()
    found, _ = convert(model)
    told = {*found, *found.exact}
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0].removesuffix(".parametrizations.weight")
        kind = type(model.get_submodule(owner)).__name__
        if parameter.ndim >= 2 and "Norm" not in kind and "Embedding" not in kind and "token" not in name:
            assert name in told or owner in told, name


def test_patterns_leave_out_layers_and_bare_matrices() -> None:
    model = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(8, 2), "out": nn.Linear(8, 8), "more": nn.Linear(8, 8)}
    )
    found, warned = convert(model, {"attention.*": "exact", "out": SPEC})
    assert found == ["out"]
    left_out = 'left out: "exact" by its pattern, or no pattern fits'
    assert found.exact == dict.fromkeys(["attention.in_proj_weight", "attention.out_proj", "more"], left_out)
    assert warned == []
    found, warned = convert(model, {"*": "exact"})
    assert (found, warned) == ([], [])
    assert found.exact.keys() == {"attention.in_proj_weight", "attention.out_proj", "out", "more"}


def test_what_an_earlier_conversion_has_left_is_not_told_as_exact() -> None:
    model = tiny_t5()
    convert(model, filter_fn=lambda _, name: name.startswith("encoder"))
    found, warned = convert(model, filter_fn=lambda _, name: name.startswith("decoder"))
    assert set(found.exact.values()) == {"left out by the filter"}
    assert set(found.exact) == {"lm_head"}
    assert warned == []


def test_a_filter_is_asked_once_for_each_layer() -> None:
    model, asked = nn.Sequential(nn.Linear(4, 4), Doubled(4, 4), nn.Linear(4, 4)), []

    def every_other(_: nn.Module, name: str) -> bool:
        asked.append(name)
        return len(asked) % 2 == 1

    found, _ = convert(model, filter_fn=every_other)
    assert asked == ["0", "2", "1"]
    assert found == ["0"]
    assert found.exact == {"1": SUBCLASS, "2": "left out by the filter"}


# --- warnings ---

ATTENTION = "most linear work stays exact, 256 of 320 trained numbers: "


def test_attention_of_torch_warns() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "out": nn.Linear(8, 8)})
    _, warned = convert(model)
    assert warned == [
        f"{ATTENTION}attention.in_proj_weight, attention.out_proj; attention.in_proj_weight: {bare('MultiheadAttention')}"
    ]
    block = nn.TransformerEncoderLayer(8, 2, dim_feedforward=8, batch_first=True)
    assert "256 of 384 trained numbers" in convert(nn.TransformerEncoder(block, 2 - 1))[1][0]
    many = convert(nn.TransformerEncoder(block, 3))[1][0]
    assert "768 of 1,152 trained numbers: layers.*.self_attn.in_proj_weight, layers.*.self_attn.out_proj;" in many
    wide = nn.TransformerEncoderLayer(8, 2, dim_feedforward=32, batch_first=True)
    assert convert(nn.TransformerEncoder(wide, 1))[1] == []


def test_a_model_of_attention_alone_is_refused_with_the_reason() -> None:
    with pytest.raises(
        InputError, match=r"no linear layer to convert; in_proj_weight: a bare parameter of Multihead"
    ):
        approximate_(nn.MultiheadAttention(8, 2), SPEC)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: Doubled(8, 8), SUBCLASS),
        (lambda: nn.Linear(8, 8, dtype=torch.complex64), "its weight is complex64; real numbers can be estimated"),
        (
            lambda: parametrize.register_parametrization(nn.Linear(8, 8), "weight", nn.Identity()),
            "parametrized: its weight is computed anew at every access",
        ),
    ],
)
def test_a_larger_layer_that_stays_exact_warns_and_a_smaller_one_does_not(layer: Any, reason: str) -> None:
    _, warned = convert(nn.Sequential(layer(), nn.Linear(7, 9)))
    assert warned == [f"most linear work stays exact, 64 of 127 trained numbers: *: {reason}"]
    assert convert(nn.Sequential(layer(), nn.Linear(8, 8)))[1] == []
    frozen = layer().requires_grad_(False)
    assert convert(nn.Sequential(frozen, nn.Linear(7, 9)))[1] == []
    left_out, warned = convert(nn.Sequential(layer(), nn.Linear(7, 9)), filter_fn=lambda _, name: name == "1")
    assert (left_out.exact, warned) == ({"0": "left out by the filter"}, [])


def test_lazy_layers_say_what_to_do() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))
    found, warned = convert(model, filter_fn=lambda layer, _: layer.weight.numel() > 0)
    assert (found, found.exact) == (["2"], {"0": LAZY})
    assert warned == ["lazy layers stay exact: 0; run a batch through the model, then convert it"]
    model(torch.randn(3, 5)).sum().backward()
    assert convert(model) == (["0", "2"], [])
    with pytest.raises(InputError, match=f"no linear layer to convert; 0: {LAZY}"):
        approximate_(nn.Sequential(nn.LazyLinear(8)), SPEC)


def peft(config: Any) -> nn.Module:
    return get_peft_model(tiny_bert(), config).train()


TARGETS = {"target_modules": ["query", "value"]}


@pytest.mark.parametrize(
    "config",
    [AdaLoraConfig(**TARGETS, total_step=9), VeraConfig(**TARGETS), IA3Config(**TARGETS, feedforward_modules=[])],
    ids=lambda config: type(config).__name__,
)
def test_adapters_whose_linear_layers_are_all_frozen(config: Any) -> None:
    found, warned = convert(peft(config))
    assert len(found) > 5
    assert found.estimated == []
    assert warned == [f"{len(found)} layers converted, none of them trains: nothing is saved"]


@pytest.mark.parametrize(
    ("config", "matrices"),
    [
        (LoHaConfig(**TARGETS), {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),
        (BOFTConfig(**TARGETS, boft_block_size=4), {"boft_R"}),
        (RandLoraConfig(**TARGETS, r=4), {"randlora_lambda", "randlora_gamma"}),
        (FourierFTConfig(**TARGETS, n_frequency=10), set()),  # vectors alone, as the next two
        (VeraConfig(**TARGETS), set()),
        (ShiraConfig(**TARGETS, r=2), set()),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_matrices_of_adapters_are_told_with_the_package_of_their_class(config: Any, matrices: set[str]) -> None:
    model = peft(config)
    found, warned = convert(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    told = {name: reason for name, reason in found.exact.items() if name in trained}
    assert {name.split(".")[-2] for name in told} == matrices
    assert set(told.values()) <= {bare("peft's Linear")}
    shapes = {name: parameter.squeeze().ndim for name, parameter in model.named_parameters()}
    assert {name for name in trained if shapes[name] >= 2} == told.keys()
    assert warned == [f"{len(found)} layers converted, none of them trains: nothing is saved"]


def test_a_matrix_beside_the_weight_of_a_subclass_of_linear_is_told() -> None:
    class Adapted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.down, self.ups = nn.Parameter(torch.ones(2, 4)), nn.ParameterList([torch.ones(4, 2)])

    found, _ = convert(nn.Sequential(Adapted(), nn.Linear(4, 40)))
    adapted = bare("tests' Adapted")
    assert found.exact == {"0": SUBCLASS, "0.down": adapted, "0.ups.0": adapted}


def test_a_frozen_model() -> None:
    _, warned = convert(tiny_t5().requires_grad_(False))
    assert warned == ["33 layers converted, none of them trains: nothing is saved"]
    _, warned = convert(nn.Linear(4, 4).requires_grad_(False))
    assert warned == ["1 layer converted, it does not train: nothing is saved"]


def test_parameters_are_told_of_the_module_that_uses_them() -> None:
    """Not of a container, or of a parametrization; an adapter of a look-up is a look-up."""
    found, _ = convert(peft(AdaLoraConfig(**TARGETS, total_step=9)))
    a = next(reason for name, reason in found.exact.items() if name.endswith("query.lora_A.default"))
    assert a == bare("peft's SVDLinear")
    model = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 40), nn.Conv1d(4, 4, 2), nn.Embedding(4, 4))
    for module, name in ((model[0], "in_proj_weight"), (model[2], "weight"), (model[3], "weight")):
        parametrize.register_parametrization(module, name, nn.Identity())
    lists = nn.ParameterList([nn.ParameterDict({"a": torch.ones(2, 2)})])
    model.append(lists)
    assert convert(model)[0].exact == {
        "0.parametrizations.in_proj_weight.original": bare("ParametrizedMultiheadAttention"),
        "0.out_proj": "never called: its attention takes the weight alone",
        "2.parametrizations.weight.original": "a convolution",
        "4.0.a": bare("Sequential"),
    }
    embedding = LoraConfig(target_modules=["query", "word_embeddings"])
    found, warned = convert(peft(embedding))
    assert {r for n, r in found.exact.items() if "lora_embedding" in n} == {"a look-up: ids are kept, no X"}
    assert warned == []


def test_lora_estimates_a_and_tells_b() -> None:
    found, warned = convert(peft(LoraConfig(**TARGETS)))
    assert warned == []
    assert found.estimated == [name for name in found if name.endswith("lora_A.default")] != []
    assert {reason for name, reason in found.exact.items() if "lora_B" in name} == {B_OF_AN_ADAPTER}
    everything = convert(with_lora(tiny_bert(), task_type="SEQ_CLS"))[1]
    assert everything == []
    b, warned = convert(peft(LoraConfig(**TARGETS)), filter_fn=lambda _, name: "lora_B" in name)
    assert b.estimated == list(b) != []
    assert warned == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_warning_of_whole_transformers(name: str, tokenizer: Any) -> None:
    model = build(name, tokenizer)
    ahead = conversion_ahead(model)
    assert not any(isinstance(module, EstimatedWeightGrad) for module in model.modules())
    found, warned = convert(model)
    assert (ahead, ahead.exact, ahead.warning) == (found, found.exact, found.warning)
    assert warned == []
    assert found.estimated == list(found)
    convolutions = {key for key, reason in found.exact.items() if reason == "a convolution"}
    assert found.exact.keys() == convolutions


def test_gpt2_bert_and_t5_have_nothing_to_tell() -> None:
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=30, pad_token_id=0)
    for model in (tiny_bert(), tiny_t5(), GPT2ForSequenceClassification(config)):
        found, warned = convert(model)
        assert (found.exact, warned) == ({}, [])


# --- the object, and models that are copied ---


def test_it_is_a_list_of_names_that_can_be_copied() -> None:
    found, _ = convert(nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "out": nn.Linear(8, 8)}))
    assert isinstance(found, list)
    assert repr(found) == "['out']"
    for twin in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert type(twin) is Conversion
        assert (twin, twin.exact, twin.warning) == (found, found.exact, found.warning)


@pytest.mark.parametrize("build", [tiny_t5, tiny_bert])
def test_a_converted_model_is_saved_as_a_whole(build: Any) -> None:
    model, batch = build(), t5_batch() if build is tiny_t5 else bert_batch()
    convert(model)
    model(**batch).loss.backward()
    model.zero_grad()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for twin in (loaded, copy.deepcopy(model)):
        load_sampling_state(model, sampling_state(twin))
        twin(**batch).loss.backward()
        model.zero_grad()
        model(**batch).loss.backward()
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(mine.grad, theirs.grad)
        assert restore_(twin) == [n for n, m in model.named_modules() if isinstance(m, EstimatedWeightGrad)]


# --- complex weights ---


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_layers_train_as_they_did(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    stock = nn.Sequential(nn.Linear(6, 6, dtype=dtype), nn.Linear(6, 2, dtype=dtype))
    with pytest.raises(InputError, match="no linear layer to convert; 0: its weight is complex"):
        approximate_(stock, SPEC)
    x = torch.randn(9, 6, dtype=dtype)
    stock(x).abs().sum().backward()


def test_layers_made_complex_since_are_given_up() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    convert(model)
    model[0].to(torch.complex64)
    found, _ = convert(model)
    assert found == ["1"]
    assert type(model[0]) is nn.Linear
    model[0](torch.randn(3, 6, dtype=torch.complex64)).abs().sum().backward()
