"""Whole models: in place and back, estimators by pattern, stock checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from support.models import sampled_rows, t5_batch, tiny_t5
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from wtacrs.estimators import InputError, make
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.linear import ApproxLinear

SPEC = "wta_crs(budget=0.3)"


def test_conversion_in_place_and_back() -> None:
    model = tiny_t5()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    parameters, keys = list(model.parameters()), list(model.state_dict())
    assert approximate_(model, SPEC) == linears
    assert all(type(model.get_submodule(name)) is ApproxLinear for name in linears)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == keys
    assert restore_(model) == linears
    assert restore_(model) == []
    for name, module in model.named_modules():
        assert type(module) is not ApproxLinear
        assert vars(module).keys() == before[name].keys()
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def test_filter_and_repeated_conversion() -> None:
    model = tiny_t5()
    names = approximate_(model, SPEC, filter_fn=lambda _, name: name.endswith(("wi", "wo")))
    assert len(names) == 8
    assert all(name.endswith(("wi", "wo")) for name in names)
    again = approximate_(model, "crs(budget=0.1)")
    assert len(again) > len(names)
    assert model.lm_head.estimator == model.get_submodule(names[0]).estimator
    assert len(model._forward_pre_hooks) == 1


def estimators(model: nn.Module) -> dict[str, str]:
    """Spec by converted layer."""
    return {name: repr(m.estimator) for name, m in model.named_modules() if type(m) is ApproxLinear}


def test_the_first_pattern_that_fits_says_which_estimator() -> None:
    model = tiny_t5()
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = {"encoder.*.wo": "exact", "encoder.*": SPEC, "decoder.*.w?": make("crs(budget=0.5)")}
    names = approximate_(model, chosen)
    expected = {
        name: repr(make(SPEC)) if name.startswith("encoder") else "crs(budget=0.5)"
        for name in linears
        if (name.startswith("encoder") and not name.endswith(".wo"))
        or (name.startswith("decoder") and name.endswith((".wi", ".wo")))
    }
    assert 0 < len(expected) < len(linears)
    assert estimators(model) == expected
    assert names == list(expected)
    assert type(model.lm_head) is nn.Linear
    assert sampled_rows(model, t5_batch()).keys() <= expected.keys()


def test_another_mapping_is_the_whole_truth_and_restore_undoes_it() -> None:
    """Layers that it does not name are stock afterwards; those that the filter refuses stay as they are."""
    model = tiny_t5()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    approximate_(model, {"encoder.*": SPEC, "decoder.*": "crs(budget=0.5)"})
    context = ForwardContext.of(model)
    changed = approximate_(
        model,
        {"decoder.block.0.*": "exact", "*": "crs(budget=0.2)"},
        filter_fn=lambda _, name: name.startswith("decoder"),
    )
    found = estimators(model)
    assert all(name.startswith("decoder.block.1.") for name in changed)
    assert {found[name] for name in changed} == {"crs(budget=0.2)"}
    assert {spec for name, spec in found.items() if name not in changed} == {repr(make(SPEC))}
    assert all(name.startswith("encoder.") for name in found.keys() - set(changed))
    assert approximate_(model, {"lm_head": SPEC}) == ["lm_head"] == list(estimators(model))
    assert ForwardContext.of(model) is context
    assert approximate_(model, {"*": "exact"}) == []
    assert ForwardContext.of(model) is None
    assert restore_(model) == []
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    approximate_(model, {"lm_head": SPEC})
    assert restore_(model) == ["lm_head"]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"decodr.*": SPEC}, r"estimator: pattern='decodr\.\*' fits none of the 33 layers: .*, .* …"),
        ({"*": SPEC, "pooler": "exact"}, "estimator: pattern='pooler' fits none of the 33 layers"),
        ({"*": "wta(budget=0.3)"}, r"estimator\['\*'\]='wta\(budget=0.3\)': unknown estimator 'wta'"),
        ({"*": 3}, r"estimator\['\*'\]=3: spec must be a string"),
        ({0: SPEC}, r"estimator: pattern=0 must be a text that fits names of layers"),
        ({}, "estimator={} names no layer"),
        ("crs", "estimator='crs': .*needs budget"),
        (0.3, r"estimator=0\.3: spec must be a string"),
    ],
)
def test_a_choice_that_cannot_be_used_names_the_argument(unchecked: None, choice: object, message: str) -> None:
    model = tiny_t5()
    with pytest.raises(InputError, match=message):
        approximate_(model, choice)
    assert not estimators(model)
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share_inputs": "no"}, "share_inputs='no' must be True or False"),
        ({"filter_fn": 3}, "filter_fn=3 must be a function of a layer and its name, or None"),
        ({"filter_fn": "0"}, "filter_fn='0' must be a function"),
    ],
)
def test_an_option_of_another_type_is_named(unchecked: None, options: dict[str, object], message: str) -> None:
    model = tiny_t5()
    with pytest.raises(InputError, match=message):
        approximate_(model, SPEC, **options)
    assert not estimators(model)


def test_exact_may_be_said_of_a_layer_that_cannot_be_converted() -> None:
    attention = nn.MultiheadAttention(8, 2)  # its output projection is a subclass of nn.Linear
    model = nn.ModuleDict({"attention": attention, "out": nn.Linear(8, 8)})
    assert approximate_(model, {"attention.*": "exact", "*": SPEC}) == ["out"]
    with pytest.raises(InputError, match=r"estimator: pattern='attention\.\*' fits none of the 1 layers: out"):
        approximate_(model, {"attention.*": SPEC, "*": SPEC})


def test_what_cannot_be_converted_says_so_and_changes_nothing() -> None:
    with pytest.raises(InputError, match=r"has no linear layer to convert"):
        approximate_(nn.Sequential(nn.ReLU()), SPEC)
    model = tiny_t5()
    with pytest.raises(InputError, match="that filter_fn accepts"):
        approximate_(model, SPEC, filter_fn=lambda layer, name: False)
    with pytest.raises(InputError, match="unknown estimator"):
        approximate_(model, "wta(budget=0.3)")
    model.lm_head.forward = model.lm_head.forward  # as an offloading hook does
    with pytest.raises(InputError, match="lm_head"):
        approximate_(model, SPEC)
    assert not any(type(module) is ApproxLinear for module in model.modules())
    assert not model._forward_pre_hooks


def test_subclasses_of_linear_are_left_alone() -> None:
    class Special(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    model = nn.Sequential(Special(4, 4), nn.Linear(4, 4))
    assert approximate_(model, SPEC) == ["1"]
    attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(InputError):
        approximate_(attention, SPEC)


def test_a_checkpoint_of_a_converted_model_loads_into_stock_t5(tmp_path: Path) -> None:
    model = tiny_t5()
    approximate_(model, SPEC, min_elements=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**t5_batch()).loss.backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    stock, report = T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert all(type(module) is not ApproxLinear for module in stock.modules())
    batch = t5_batch()
    torch.testing.assert_close(stock.eval()(**batch).logits, model.eval()(**batch).logits)


def test_everything_but_dw_is_exact_through_a_t5() -> None:
    model, batch = tiny_t5(), t5_batch()
    reference = model(**batch)
    reference.loss.backward()
    exact = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    converted = [model.get_submodule(name).weight for name in approximate_(model, SPEC, min_elements=0)]
    output = model(**batch)
    assert torch.equal(output.logits, reference.logits)
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        if any(parameter is weight for weight in converted):  # the embedding too, where it is the output's weight
            assert not torch.allclose(parameter.grad, exact[name]), name
        else:
            torch.testing.assert_close(parameter.grad, exact[name])


def test_deep_copies_are_converted_models_of_their_own() -> None:
    model = tiny_t5()
    approximate_(model, SPEC, min_elements=0)
    twin = copy.deepcopy(model)
    assert twin.lm_head.context is ForwardContext.of(twin)
    assert twin.lm_head.context is not model.lm_head.context
    twin(**t5_batch()).loss.backward()
    assert model.lm_head.weight.grad is None


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_composes(reentrant: bool) -> None:
    model = tiny_t5()
    approximate_(model, SPEC, min_elements=0)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model(**t5_batch()).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_parts_of_a_converted_model_keep_its_context() -> None:
    """Converting the decoder again leaves its layers with the masks and the names of the whole model."""
    model = tiny_t5()
    approximate_(model, SPEC, min_elements=0)
    approximate_(model.decoder, "crs(budget=0.9)", min_elements=0)
    key = model.decoder.block[0].layer[1].EncDecAttention.k
    name = "decoder.block.0.layer.1.EncDecAttention.k"
    assert (key.path, key.usual_stream, key.context) == (name, "target", ForwardContext.of(model))
    assert model.encoder.block[0].layer[0].SelfAttention.k.usual_stream == "source"
    other = tiny_t5()
    approximate_(other.decoder, SPEC)
    approximate_(other, SPEC)
    key = other.decoder.block[0].layer[1].EncDecAttention.k
    assert (key.path, key.context) == (name, ForwardContext.of(other))
    restore_(other)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in other.modules())
