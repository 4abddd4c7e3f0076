"""Attention that makes q, k, v again: gradients of stock, dropout of "keep", what is kept, and what stays as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from tests.support.language_models import MODELS, gradients, language_batch, language_model
from tests.support.saved_sizes import kept_tensors
from wtacrs.estimators import InputError
from wtacrs.integration import approximate_, lean_, restore_
from wtacrs.integration.layers import conv1d
from wtacrs.integration.layers.lean import fused_attention, norm, softmax_attention
from wtacrs.integration.layers.lean.attention import is_attention, set_lean_attention
from wtacrs.integration.layers.lean.fused_attention import FusedAgain, fused
from wtacrs.integration.layers.lean.products import Together, packed_together
from wtacrs.integration.layers.lean.recipes import register
from wtacrs.integration.layers.lean.softmax_attention import LeanAttention, Terms

HIDDEN = 3 * 10 * 32 * 4
"""Bytes of a tensor of the width of the models, for the whole batch."""


def model_of(name: str, dropout: float) -> PreTrainedModel:
    model = language_model(name, dropout)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config.use_cache = False
    return model


@pytest.fixture
def remade(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which of q, k, v each attention has a recipe of, call by call."""
    seen: list[str] = []

    def noted(tensors: Any) -> Together:
        found = packed_together(tensors)
        plans = zip("qkv", found.plans.plans, strict=True)
        seen.append("".join(name for name, plan in plans if hasattr(plan, "make")))
        return found

    for module in (softmax_attention, fused_attention):
        monkeypatch.setattr(module, "packed_together", noted)
    return seen


MADE = {"T5": 6, "BERT": 2, "GPT-2": 2, "Llama": 2, "OPT": 2}
"""Attentions. Rotary embeddings (Llama) and a scaling of q (OPT) lie between projection and attention."""


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("name", MODELS)
def test_models_have_the_loss_and_gradients_of_stock(name: str, dropout: float, remade: list[str]) -> None:
    model = model_of(name, dropout).double()
    batch = language_batch("right")
    loss, expected = gradients(model, batch)
    assert lean_(model, attention="again").attention == {}
    found_loss, found = gradients(model, batch)
    assert remade == ["qkv"] * MADE[name]
    # Llama's norms compute in single precision
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if name in ("Llama", "T5") else {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(found_loss, loss, **tolerance)
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, **tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_dropout_and_gradients_are_those_of_keep(name: str) -> None:
    """To the last bit where the same kernels run on the same numbers: q, k, v are made by the kernels that made them."""
    model = model_of(name, 0.2)
    batch = language_batch("left")
    lean_(model, attention="keep")
    loss, expected = gradients(model, batch)
    state = torch.random.get_rng_state()
    lean_(model, attention="again")
    found_loss, found = gradients(model, batch)
    assert torch.equal(found_loss, loss)
    assert torch.equal(torch.random.get_rng_state(), state)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-6, atol=1e-8)


def test_a_cache_does_not_hide_what_keys_are_made_of(remade: list[str]) -> None:
    """A model with `use_cache` joins keys and values with those of an empty cache, in training too."""
    model = language_model("T5", 0.2)
    model.decoder.config.use_cache = True
    batch = language_batch("right")
    _, expected = gradients(model, batch)
    lean_(model, attention="again")
    _, found = gradients(model, batch)
    assert remade == ["qkv"] * 6
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spec", [None, "wta_crs(budget=0.3)"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_made_again_is_not_kept(name: str, spec: str | None) -> None:
    model = model_of(name, 0.2)
    batch = language_batch("right")
    kept = []
    for mode in ("keep", "again"):
        lean_(model, attention=mode)  # type: ignore[arg-type]
        if spec is not None:
            approximate_(model, spec, min_elements=0)
        kept.append(sum(size for _, size in kept_tensors(model, batch)))
        restore_(model)
    made = MADE[name] * (2 if name == "Llama" else 3) * HIDDEN  # whose keys are half as wide
    # what keeps the last norm of T5's encoder is kept by its dropout and by no attention in "keep"; biases are parameters
    assert kept[0] - kept[1] >= made - 2 * HIDDEN
    assert kept[0] - kept[1] > made // 2


@pytest.mark.parametrize(
    ("name", "where", "function", "times"),
    [
        ("T5", norm, "rms_again", 4 + 2 * 2),  # a cross-attention reads two norms
        ("GPT-2", conv1d, "transposed_linear", 2),  # q, k, v in one
    ],
)
def test_what_q_k_v_share_is_made_once(
    name: str, where: Any, function: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside layers with an estimated dW nobody but attention makes anything again."""
    model = model_of(name, 0.0)
    original, seen = getattr(where, function), []
    monkeypatch.setattr(where, function, lambda *given: (seen.append(function), original(*given))[1])
    lean_(model, attention="again")
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0)
    loss = model(**language_batch("right")).loss
    assert seen == []
    loss.backward()
    assert len(seen) == times


@pytest.mark.parametrize("name", ["T5", "BERT", "GPT-2", "Llama"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(name: str, reentrant: bool) -> None:
    model = model_of(name, 0.2)
    batch = language_batch("right")
    _, expected = gradients(model, batch)
    lean_(model, attention="again")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    _, found = gradients(model, batch)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["T5", "BERT", "GPT-2"])
def test_autocast(name: str, remade: list[str]) -> None:
    model = model_of(name, 0.2)
    batch = language_batch("right")
    with torch.autocast("cpu", torch.bfloat16):
        lean_(model, attention="keep")
        _, expected = gradients(model, batch)
        lean_(model, attention="again")
        _, found = gradients(model, batch)
    assert set(remade) == {"qkv"}
    for parameter, gradient in expected.items():
        assert found[parameter].dtype == torch.float32
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-2, atol=1e-3 * gradient.abs().max().item())


def test_a_mode_of_each_layer(remade: list[str]) -> None:
    model = model_of("BERT", 0.2)
    batch = language_batch("right")
    _, expected = gradients(model, batch)
    names = [name for name, module in model.named_modules() if is_attention(module)]
    assert len(names) == 2
    asked: list[str] = []

    def choose(module: nn.Module, name: str) -> bool:
        asked.append(name)
        return name != names[0]

    assert lean_(model, attention="again", filter_fn=choose).attention == {names[0]: "left out by the filter"}
    assert set(names) < set(asked)
    _, found = gradients(model, batch)
    assert remade == ["qkv"]
    model.get_submodule(names[0]).lean_attention = "again"
    model.get_submodule(names[1]).lean_attention = "keep"
    gradients(model, batch)
    assert remade == ["qkv"] * 2
    restore_(model)
    assert not any("lean_attention" in vars(module) for module in model.modules())
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


def test_another_mode_is_refused() -> None:
    model = model_of("BERT", 0.2)
    with pytest.raises(InputError, match="mode='twice' must be keep or again"):
        set_lean_attention(model, mode="twice")  # type: ignore[arg-type]
    assert model.config._attn_implementation == "sdpa"


def test_a_weight_that_was_changed_is_refused() -> None:
    model = model_of("BERT", 0.2)
    lean_(model, attention="again")
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0)
    loss = model(**language_batch("right")).loss
    with torch.no_grad():
        model.bert.encoder.layer[1].attention.self.query.weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_output_that_was_changed_is_kept(remade: list[str]) -> None:
    model = model_of("BERT", 0.0).double()
    batch = language_batch("right")

    def double(module: nn.Module, args: Any, y: Tensor) -> None:
        with torch.no_grad():
            y.mul_(2.0)

    model.bert.encoder.layer[0].attention.self.query.register_forward_hook(double)
    _, expected = gradients(model, batch)
    lean_(model, attention="again")
    _, found = gradients(model, batch)
    assert remade == ["kv", "qkv"]
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-9, atol=1e-11)


def projected(groups: int) -> tuple[list[Tensor], list[Tensor]]:
    """Leaves (input and weights), and q, k, v with recipes."""
    generator = torch.Generator().manual_seed(4)
    x, *weights = (
        torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in ((2, 5, 8), (12, 8), (groups * 3, 8), (groups * 3, 8))
    )
    made = []
    for weight in weights:
        y = F.linear(x, weight)
        register(y, F.linear, x, weight, None, kind="product")
        made.append(y.view(2, 5, -1, 3).transpose(1, 2))
    return [x, *weights], made


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("function", [LeanAttention, FusedAgain])
def test_the_functions_give_what_they_give_with_what_is_kept(
    function: Any, groups: int, causal: bool, dropout: float
) -> None:
    leaves, qkv = projected(groups)
    weights = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    terms = Terms(0.6, dropout, causal)
    plain = fused if function is FusedAgain else LeanAttention.apply
    for mask in (None, torch.zeros(2, 1, 1, 5, dtype=torch.float64).index_fill_(3, torch.tensor([4]), -1.0)):
        if mask is not None and causal:
            continue
        extra = (mask,) if function is FusedAgain else (None, mask)
        torch.manual_seed(2)
        expected = plain(*qkv, *extra, terms)
        wanted = torch.autograd.grad((expected * weights).sum(), leaves, retain_graph=True)
        torch.manual_seed(2)
        with _shapes() as kept:
            out = function.apply(*qkv, *extra, terms._replace(again=True))
        torch.manual_seed(9)
        assert {(2, 5, 8), (12, 8), (groups * 3, 8)} <= set(kept)
        assert not {tuple(t.shape) for t in qkv} & set(kept)
        state = torch.random.get_rng_state()
        found = torch.autograd.grad((out * weights).sum(), leaves, retain_graph=True)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.testing.assert_close(out, expected)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
        out = function.apply(*qkv, *extra, terms._replace(again=True))
        with pytest.raises(InputError, match="no second derivative"):
            torch.autograd.grad((out * weights).sum(), leaves, create_graph=True)


@contextlib.contextmanager
def _shapes() -> Iterator[list[tuple[int, ...]]]:
    """Of all tensors that are saved."""
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(tuple(t.shape)), t)[1], lambda t: t):
        yield kept


@pytest.mark.parametrize("planted", ["layout", "places"])
def test_planted_defects_are_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(tensors: Any) -> Together:
        found = packed_together(tensors)
        plans = list(found.plans.plans)
        if planted == "places":
            plans[1], plans[2] = plans[2], plans[1]
        else:
            layout = plans[0].layout  # type: ignore[union-attr]
            plans[0] = plans[0]._replace(layout=layout._replace(stride=(60, 15, 3, 1)))  # type: ignore[union-attr]
        return found._replace(plans=type(found.plans)(tuple(plans)))

    leaves, qkv = projected(4)
    expected = torch.autograd.grad(
        LeanAttention.apply(*qkv, None, None, Terms(0.6)).square().sum(), leaves, retain_graph=True
    )
    monkeypatch.setattr(softmax_attention, "packed_together", wrong)
    out = LeanAttention.apply(*qkv, None, None, Terms(0.6, again=True))
    found = torch.autograd.grad(out.square().sum(), leaves)
    assert not all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


def test_lora_makes_sums_of_frozen_projections_and_adapters_again(remade: list[str]) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], lora_dropout=0.1)
    model = peft.get_peft_model(model_of("BERT", 0.2), config).train()
    batch = language_batch("right")
    _, expected = gradients(model, batch)
    lean_(model, attention="again")
    _, found = gradients(model, batch)
    assert remade == ["", "qkv"]  # the first layer reads frozen embeddings, for which nothing is kept
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A group of one process, met in a file."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["T5", "GPT-2"])
def test_ddp(name: str, one_process: None, remade: list[str]) -> None:
    model = model_of(name, 0.1)
    _, expected = gradients(model, language_batch("right"))
    lean_(model, attention="again")
    _, found = gradients(DistributedDataParallel(model), language_batch("right"), model)
    assert set(remade) == {"qkv"}
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kinds", "made"),
    [((), {"qkv"}), (("T5Block",), {"qkv"}), (("T5Attention",), {"qkv"}), (("LeanLinear",), {""})],
)
def test_fully_shard(kinds: tuple[str, ...], made: set[str], one_process: None, remade: list[str]) -> None:
    """A projection that is a group by itself keeps its output; its weight is gone when attention's backward pass runs."""
    model = model_of("T5", 0.1)
    _, expected = gradients(model, language_batch("right"))
    lean_(model, attention="again")
    for module in list(model.modules()):
        if type(module).__name__ in kinds and module is not model.lm_head:
            fully_shard(module)
    fully_shard(model)
    _, found = gradients(model, language_batch("right"))
    assert set(remade) == made
    for parameter, gradient in expected.items():
        value = found[parameter].full_tensor() if isinstance(found[parameter], DTensor) else found[parameter]
        torch.testing.assert_close(value, gradient, rtol=1e-4, atol=1e-6)
