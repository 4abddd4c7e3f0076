"""What a step keeps, and what stock layers would keep in its place: equal to what they keep when they are measured."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.lora_models import with_lora
from support.models import VOCABULARY, bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5ForConditionalGeneration,
)

from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.measure import kept_bytes
from wtacrs.integration.measure.kept_bytes import KeptBytes, KeptBytesProbe, training_layers
from wtacrs.integration.measure.memory import step_memory

SPEC = "wta_crs(budget=0.3)"
WIDTH = 16

Run = Callable[[nn.Module], Any]


def measured(model: nn.Module, run: Run) -> KeptBytes:
    """One step, with the output held until the backward pass is over."""
    probe = KeptBytesProbe(model)
    output = run(model)
    loss = getattr(output, "loss", None)
    (output.square().sum() if loss is None else loss).backward()
    assert probe.reason is None
    assert probe.found is not None
    return probe.found


def stock_and_converted(
    model: nn.Module, run: Run, spec: str = SPEC, **options: Any
) -> tuple[KeptBytes, KeptBytes]:
    stock = measured(model, run)
    approximate_(model, spec, min_elements=0, **options)
    try:
        return stock, measured(model, run)
    finally:
        restore_(model)


def rows(*leading: int, seed: int = 0) -> Tensor:
    return torch.randn(*(leading or (4, 10)), WIDTH, generator=torch.Generator().manual_seed(seed))


def mlp(between: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(WIDTH, WIDTH)]
    for _ in range(3):
        layers += [between(), nn.Linear(WIDTH, WIDTH)]
    return nn.Sequential(*layers)


def of_batch(make_batch: Callable[[], dict[str, Tensor]]) -> Run:
    return lambda model: model(**make_batch())


def decoder_batch() -> dict[str, Tensor]:
    batch = t5_batch()
    return {**batch, "labels": batch["input_ids"]}


def tiny_gpt2() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    ends = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    return GPT2ForSequenceClassification(GPT2Config(vocab_size=VOCABULARY, **sizes, **ends)).train()


def tiny_llama() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes)).train()


def checkpointed_t5(*, reentrant: bool) -> nn.Module:
    model = tiny_t5(dropout=0.1)
    model.config.use_cache = False
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    return model


def eager_t5() -> nn.Module:
    return T5ForConditionalGeneration._from_config(
        tiny_t5(dropout=0.1).config, attn_implementation="eager"
    ).train()


def the_rows(model: nn.Module) -> Tensor:
    return model(rows())


SETTINGS: dict[str, tuple[Callable[[], nn.Module], Run]] = {
    "T5": (lambda: tiny_t5(dropout=0.1), of_batch(t5_batch)),
    "T5, attention without a kernel": (eager_t5, of_batch(t5_batch)),
    "BERT": (tiny_bert, of_batch(bert_batch)),
    "BERT, hidden states": (tiny_bert, lambda model: model(**bert_batch(), output_hidden_states=True)),
    "GPT-2": (tiny_gpt2, of_batch(bert_batch)),
    "Llama": (tiny_llama, of_batch(decoder_batch)),
    "LoRA": (lambda: with_lora(tiny_bert(), 0.0), of_batch(bert_batch)),
    "LoRA, dropout": (lambda: with_lora(tiny_bert(), 0.1), of_batch(bert_batch)),
    "checkpointing": (lambda: checkpointed_t5(reentrant=False), of_batch(t5_batch)),
    "reentrant checkpointing": (lambda: checkpointed_t5(reentrant=True), of_batch(t5_batch)),
}


def under(precision: str, run: Run) -> Run:
    def within(model: nn.Module) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return run(model)

    return within


@pytest.mark.parametrize("share_inputs", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SETTINGS)
def test_what_stock_layers_would_keep_is_what_they_keep(name: str, precision: str, share_inputs: bool) -> None:
    build, run = SETTINGS[name]
    stock, converted = stock_and_converted(build(), under(precision, run), share_inputs=share_inputs)
    assert stock.kept == stock.exact == converted.exact
    assert not stock.layers
    saved = sum(entry.freed - entry.kept for entry in converted.layers.values())
    assert converted.exact - converted.kept == saved
    assert saved > 0


@pytest.mark.parametrize("scores", ["last-seen", "by-token", "by-position"])
def test_remembered_scores_keep_nothing_of_the_graph(scores: str) -> None:
    def run(model: nn.Module) -> Any:
        return model(**t5_batch(), **({"example_ids": torch.arange(3)} if training_layers(model) else {}))

    stock, converted = stock_and_converted(tiny_t5(dropout=0.1), run, scores=scores)
    assert stock.kept == converted.exact > converted.kept


@pytest.mark.parametrize(
    ("between", "frees"),
    [
        (nn.GELU, True),
        (nn.SiLU, True),
        (nn.Softplus, True),
        (lambda: nn.Dropout(0.1), True),
        (lambda: nn.LayerNorm(WIDTH), True),
        (nn.Identity, True),
        (nn.ReLU, False),
        (nn.Sigmoid, False),
        (nn.Tanh, False),
        (lambda: nn.Softmax(-1), False),
        (nn.ELU, True),
        (lambda: nn.ELU(inplace=True), False),
        (lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.1)), True),
    ],
)
def test_an_input_that_an_activation_keeps_is_not_freed(between: Callable[[], nn.Module], frees: bool) -> None:
    stock, converted = stock_and_converted(mlp(between), lambda model: model(rows(40)))
    assert stock.kept == converted.exact
    assert (converted.share < 1) == frees
    last = converted.layers["6"]
    assert last.freed == (4 * 10 * WIDTH * 4 if frees else 0)
    assert 0 < last.kept < 4 * 10 * WIDTH * 4 / 2
    assert converted.layers["0"].freed == 0  # it reads the batch


def test_the_whole_is_what_wtacrs_memory_measures() -> None:
    model = tiny_t5(dropout=0.1)
    model.config.use_cache = False
    steps = [step_memory(model, t5_batch(), estimator=spec, min_elements=0) for spec in ("exact", SPEC)]
    stock, converted = stock_and_converted(model, lambda model: model(**t5_batch()).loss)  # the output is not held
    assert [step.total for step in steps] == [stock.kept, converted.kept]


class Held(nn.Module):
    """A list holds the input of its second layer, or lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.held: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.held = [self.first(x) * 2]
        return self.second(self.held[0])


def test_an_input_that_a_caller_holds_is_kept() -> None:
    model = Held()
    _, holding = stock_and_converted(model, the_rows)
    assert holding.layers["second"].freed == 0
    assert holding.kept > holding.exact

    def let_go(model: nn.Module) -> Tensor:
        y = the_rows(model)
        model.held.clear()
        return y

    stock, letting_go = stock_and_converted(model, let_go)
    assert letting_go.layers["second"].freed == 4 * 10 * WIDTH * 4
    assert letting_go.kept < letting_go.exact == stock.kept == holding.exact


class Unusual(nn.Module):
    """Shared inputs, a tied weight, views, broadcast and transposed inputs, branches without use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.c, self.d, self.f = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.b = nn.Linear(WIDTH, WIDTH, bias=False)
        self.c.weight = self.b.weight
        self.e = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) * 1.5
        cut = self.f(h * 2).detach()
        _unused = self.f(h * 4)
        h = h + self.b(h) + self.c(h) + self.d(h[:, :]) + self.d(h) + self.a(x) + cut
        broadcast = self.b(h.mean(1, keepdim=True).expand(4, 10, WIDTH))
        return self.e((h + broadcast).transpose(1, 2) * 1.0) + self.e((h * 2.0).transpose(1, 2))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("share_inputs", [True, False])
@pytest.mark.parametrize("needs_dx", [True, False])
def test_unusual_inputs(precision: str, share_inputs: bool, needs_dx: bool) -> None:
    run = under(precision, lambda model: model(rows().requires_grad_(needs_dx) * 1))
    stock, converted = stock_and_converted(Unusual(), run, share_inputs=share_inputs)
    assert stock.kept == converted.exact


class Drawn(nn.Module):
    """A network of drawn steps about one stream of activations."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps = steps
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=number % 2 == 0) for number in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h, before = x * 1, x
        for kind, number in self.steps:
            layer = self.layers[number]
            if kind == "linear":
                before, h = h, layer(h)
            elif kind == "two":
                before, h = h, layer(h) + self.layers[number - 1](h)
            elif kind == "part":
                h = torch.cat([layer(h[:, :5]), h[:, 5:]], 1)
            elif kind == "transposed":
                h = layer(h.transpose(0, 1)).transpose(0, 1)
            elif kind == "residual":
                h = h + before
            elif kind == "checkpoint":
                h = checkpoint(lambda h, layer=layer: layer(h).relu(), h, use_reentrant=False)
            elif kind == "detached":
                h = h + layer(h).detach()
            else:
                h = getattr(torch, kind)(h)
        return h + self.layers[0](h)


KINDS = (
    "linear",
    "two",
    "part",
    "transposed",
    "residual",
    "checkpoint",
    "detached",
    "relu",
    "tanh",
    "sin",
    "sigmoid",
)


@given(
    steps=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), min_size=1, max_size=8),
    precision=st.sampled_from(["fp32", "bf16"]),
    spec=st.sampled_from([SPEC, "crs(budget=1.0)", "quantized_rows(rows=wta_crs(budget=0.5), bits=8)", "exact"]),
    share_inputs=st.booleans(),
)
def test_any_network(steps: list[tuple[str, int]], precision: str, spec: str, share_inputs: bool) -> None:
    run = under(precision, lambda model: model(rows()).tanh())
    stock, converted = stock_and_converted(Drawn(steps), run, spec, share_inputs=share_inputs)
    assert stock.kept == stock.exact == converted.exact
    assert (converted.kept == converted.exact) or spec != "exact"


def test_measuring_leaves_the_run_as_it_is() -> None:
    """Gradients, random numbers, hooks: with a probe as without one."""
    gradients, states = [], []
    for probing in (True, False):
        model = with_lora(tiny_bert(), 0.1)
        approximate_(model, SPEC, min_elements=0)
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        torch.manual_seed(3)
        if probing:
            probe = KeptBytesProbe(model)
        model(**bert_batch()).loss.backward()
        assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        states.append(torch.get_rng_state())
    assert probe.found is not None
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert torch.equal(*states)
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def test_a_pass_without_gradients_is_waited_out() -> None:
    model = mlp(nn.GELU)
    approximate_(model, SPEC, min_elements=0)
    probe = KeptBytesProbe(model)
    with torch.no_grad():
        model(rows())
    assert "no forward pass" in str(probe.reason)
    loss = model(rows()).sum()
    assert (probe.found, probe.reason) == (None, "no backward pass has reached the model's output")
    loss.backward()
    assert probe.reason is None
    assert probe.found is not None
    first = probe.found
    model(rows(8, 10)).sum().backward()
    assert probe.found is first


def test_an_error_in_the_model_leaves_no_hook() -> None:
    model = mlp(nn.GELU)
    probe = KeptBytesProbe(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.ones(3, WIDTH + 1))
    assert (probe.found, probe.reason) == (None, "the forward pass has failed, or returns nothing")
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def doubled() -> torch.autograd.graph.saved_tensors_hooks:
    """Hooks that keep something else than they are given."""
    return torch.autograd.graph.saved_tensors_hooks(lambda x: x.double(), lambda kept: kept.float())


class Hooked(nn.Module):
    """A block under hooks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.block = mlp(nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        with doubled():
            return self.block(x)


@pytest.mark.parametrize("place", ["around", "within", "disabled"])
def test_hooks_of_the_user_work_and_are_told(place: str) -> None:
    """Only they know what they keep: nothing is measured, and gradients are theirs."""
    model = Hooked() if place == "within" else mlp(nn.ReLU)
    around = {
        "around": doubled,
        "within": torch.enable_grad,
        "disabled": lambda: torch.autograd.graph.disable_saved_tensors_hooks("no"),
    }
    gradients = []
    for probing in (False, True):
        model.zero_grad()
        probe = KeptBytesProbe(model)
        if not probing:
            probe.remove()
        with around[place]():
            y = the_rows(model)
        y.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert probe.found is None
    assert ("are disabled" if place == "disabled" else "doubled.<locals>") in str(probe.reason)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_model_inside_a_checkpoint_is_not_measured() -> None:
    model = mlp(nn.ReLU)
    approximate_(model, SPEC, min_elements=0)
    for reentrant, told in ((False, "_checkpoint_hook"), (True, "no forward pass with gradients")):
        probe = KeptBytesProbe(model)
        checkpoint(model, rows().requires_grad_(), use_reentrant=reentrant).sum().backward()
        assert probe.found is None
        assert told in str(probe.reason)
        probe.remove()


def test_a_computed_weight_is_not_computed_once_more() -> None:
    """Spectral norm takes a step of its iteration whenever the weight is read."""
    model = mlp(nn.GELU)
    approximate_(model, SPEC, min_elements=0)
    spectral_norm(model[2])
    before = model[2].parametrizations.weight[0]._u.clone()
    assert training_layers(model) == ["0", "2", "4", "6"]
    assert torch.equal(model[2].parametrizations.weight[0]._u, before)
    probe = KeptBytesProbe(model)
    model(rows()).sum().backward()
    assert probe.found is None
    assert "the weight of '2' is computed by a parametrization" in str(probe.reason)


def test_a_compiled_part_is_told() -> None:
    model = mlp(nn.GELU)
    model[2].compile(backend="eager")
    probe = KeptBytesProbe(model)
    model(rows()).sum().backward()
    assert (probe.found, probe.reason) == (None, "the model, or a part of it, is compiled")


class Nested(nn.Module):
    """Calls itself once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(nn.GELU)

    def forward(self, x: Tensor, again: bool = True) -> Tensor:
        return self.inner(self(x, False) if again else x)


def test_a_model_that_calls_itself_is_measured_as_one() -> None:
    once, (stock, twice) = measured(mlp(nn.GELU), the_rows), stock_and_converted(Nested(), the_rows)
    assert stock.kept == twice.exact
    assert twice.exact > 1.9 * once.kept


def test_another_thread_on_the_model_is_left_out() -> None:
    """It runs the model while the first is in the middle of it."""
    model = mlp(nn.GELU)
    alone = measured(model, the_rows)
    others = []

    def run_beside(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not others:
            others.append(threading.Thread(target=lambda: model(rows(9, 9)).sum().backward()))
            others[0].start()
            others[0].join()

    model[4].register_forward_pre_hook(run_beside)
    assert measured(model, the_rows) == alone
    assert others


def test_only_layers_that_train_by_estimates_count() -> None:
    model = mlp(nn.GELU)
    approximate_(model, {"0": SPEC, "2": SPEC, "4": "exact", "*": SPEC}, min_elements=0)
    model[0].weight.requires_grad_(False)
    model[2].min_elements = 10**6
    assert training_layers(model) == ["2", "6"]
    assert list(measured(model, the_rows).layers) == ["6"]


def test_a_layer_by_itself() -> None:
    layer = nn.Sequential(nn.Linear(WIDTH, 4))
    stock, converted = stock_and_converted(layer, lambda model: model(rows() * 2))
    assert stock.kept == converted.exact == 0  # the batch is the caller's
    assert converted.kept == converted.layers["0"].kept > 0


PROMISED = (SPEC, "quantized_rows(rows=wta_crs(budget=0.5), bits=8)", "rademacher_sketch(budget=0.3)")
PROMISED += ("stochastic_rounding(bits=4, group=16)", "mixed_precision_rows(slots=3)")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("spec", PROMISED)
@pytest.mark.parametrize("name", ["T5", "BERT", "GPT-2", "LoRA, dropout"])
def test_a_receipt_promises_what_is_measured(name: str, spec: str, precision: str) -> None:
    """By shapes alone: inputs that several layers read are one, and so are their copies."""
    build, run = SETTINGS[name]
    _, converted = stock_and_converted(build(), under(precision, run), spec)
    receipt = converted.receipt
    assert receipt.promised == receipt.copies == sum(entry.kept for entry in converted.layers.values()) > 0
    assert (receipt.layers, receipt.kept, receipt.exact) == (
        len(converted.layers),
        converted.kept,
        converted.exact,
    )
    assert receipt.inputs >= receipt.freed == sum(entry.freed for entry in converted.layers.values())


def test_a_receipt_names_who_holds_what_was_to_be_freed() -> None:
    _, converted = stock_and_converted(mlp(nn.ReLU), lambda model: model(rows(40)))
    receipt = converted.receipt
    size = 4 * 10 * WIDTH * 4
    assert (receipt.inputs, receipt.freed) == (3 * size, 0)
    assert [(holder.modules, holder.bytes) for holder in receipt.holders] == [
        ("* (ReLU)", 3 * size)
    ]  # the rectifiers
    assert measured(mlp(nn.GELU), lambda model: model(rows(40))).receipt.layers == 0


def test_a_promise_is_of_recomputed_blocks_too() -> None:
    build, run = SETTINGS["checkpointing"]
    _, converted = stock_and_converted(build(), run)
    receipt = converted.receipt
    assert receipt.promised is not None
    assert receipt.promised > receipt.copies > 0  # of the layers in no block


def test_an_estimator_that_needs_values_promises_an_unknown_size(monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = stock_and_converted(mlp(nn.GELU), lambda model: model(rows(40)))
    assert found.receipt.promised is not None

    def needs_values(*_: Any) -> int:
        raise RuntimeError("a value is needed")

    monkeypatch.setattr(kept_bytes, "stored_bytes", needs_values)
    assert found.receipt.promised is None


class Spoilt(nn.Module):
    """Changes what the exponential has kept."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.exp()
        z = y.sin()
        y.mul_(2)
        return z


def test_a_tensor_changed_in_place_is_an_error_under_the_probe_too() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), Spoilt())
    KeptBytesProbe(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        model(rows()).sum().backward()
