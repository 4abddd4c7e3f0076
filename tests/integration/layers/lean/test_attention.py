"""Lean attention against stock: outputs, gradients, dropout by replay, what is kept, and what stays stock."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tests.support.language_models import MODELS, gradients, language_batch, language_model
from tests.support.saved_sizes import kept_tensors
from wtacrs.estimators import InputError, WtacrsWarning
from wtacrs.integration.layers.lean import attention as lean
from wtacrs.integration.layers.lean import keep_masks, softmax_attention
from wtacrs.integration.layers.lean.attention import lean_attention, restore_attention, set_lean_attention
from wtacrs.integration.layers.lean.bits import pack, unpack
from wtacrs.integration.layers.lean.keep_masks import quick_keep
from wtacrs.integration.layers.lean.softmax_attention import LeanAttention, Terms, pieces

B, H, S, T, D = 2, 4, 5, 7, 3


PIECES = {"all": 2**21, "example": 8 * H * S * T, "2 heads": 8 * 2 * S * T, "head": 8 * S * T, "2 rows": 8 * 2 * T}


@pytest.fixture(params=PIECES.values(), ids=PIECES)
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a piece, of doubles."""
    monkeypatch.setattr(softmax_attention, "PIECE", request.param)


def tensors(groups: int = H, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    sizes = (B, H, S, D), (B, groups, T, D), (B, groups, T, D + 1)
    q, k, v = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in sizes)
    return q.to(dtype).requires_grad_(), k.to(dtype).requires_grad_(), v.to(dtype).requires_grad_()


def bias_of(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(6), dtype=torch.float64).requires_grad_()


def boolean(*, closed_row: bool = False) -> Tensor:
    mask = torch.rand(B, 1, S, T, generator=torch.Generator().manual_seed(7)) > 0.3
    mask[..., 0] = True
    if closed_row:
        mask[0, :, 2] = False
    return mask


def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None, terms: Terms) -> Tensor:
    """The law, written out: all probabilities at once."""
    shared = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(shared, 1).mT * terms.scale
    if bias is not None:
        scores = scores + bias
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    allowed = mask if mask is not None and mask.dtype == torch.bool else None
    if terms.causal:
        allowed = torch.ones(S, T, dtype=torch.bool).tril()
    if allowed is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores + torch.zeros(allowed.shape, dtype=scores.dtype).masked_fill(~allowed, lowest)
    p = torch.softmax(scores, -1)
    if allowed is not None and terms.stock == "sdpa":
        p = p * allowed.any(-1, keepdim=True)
    return (F.dropout(p, terms.dropout) @ v.repeat_interleave(shared, 1)).transpose(1, 2)


CASES: dict[str, Callable[[], tuple[Tensor | None, Tensor | None, Terms]]] = {
    "plain": lambda: (None, None, Terms(0.7)),
    "unscaled bias": lambda: (bias_of(1, H, S, T), None, Terms(1.0)),
    "bias of batch": lambda: (bias_of(B, 1, S, T), None, Terms(0.5)),
    "bias of rows": lambda: (bias_of(1, 1, S, 1), None, Terms(0.5)),
    "boolean": lambda: (None, boolean(), Terms(0.7)),
    "closed row, sdpa": lambda: (None, boolean(closed_row=True), Terms(0.7)),
    "closed row, eager": lambda: (None, boolean(closed_row=True), Terms(0.7, stock="eager")),
    "bias and boolean": lambda: (bias_of(1, H, S, T), boolean(), Terms(1.0)),
    "additive": lambda: (None, bias_of(B, 1, S, T), Terms(0.7)),
    "bias and additive": lambda: (bias_of(1, H, S, T), bias_of(B, 1, 1, T), Terms(0.7)),
    "causal": lambda: (None, None, Terms(0.7, causal=True)),
    "causal bias": lambda: (bias_of(1, H, S, T), None, Terms(0.7, causal=True)),
}


def outcome(function: Callable[..., Tensor], groups: int, case: str, dropout: float) -> list[Tensor]:
    q, k, v = tensors(groups)
    bias, mask, terms = CASES[case]()
    torch.manual_seed(11)
    out = function(q, k, v, bias, mask, terms._replace(dropout=dropout))
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape).cos()
    asked = [t for t in (q, k, v, bias, mask) if t is not None and t.requires_grad]
    return [out, *torch.autograd.grad((out * weights).sum(), asked), torch.rand(1)]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("groups", [H, 2, 1])
@pytest.mark.parametrize("case", CASES)
def test_the_function_is_the_law_with_the_dropout_of_torch(
    piece: None, case: str, groups: int, dropout: float
) -> None:
    expected, found = (outcome(f, groups, case, dropout) for f in (plain, LeanAttention.apply))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", [PIECES["all"], PIECES["2 rows"]])
@pytest.mark.parametrize("case", [case for case in CASES if case != "closed row, eager"])
def test_gradcheck(case: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where stock rounds a score away: there it passes gradients on as if it had not."""
    monkeypatch.setattr(softmax_attention, "PIECE", size)
    bias, mask, terms = CASES[case]()

    def function(q: Tensor, k: Tensor, v: Tensor, *more: Tensor) -> Tensor:
        given = iter(more)
        its_bias = next(given) if bias is not None else None
        its_mask = next(given) if mask is not None and mask.requires_grad else mask
        torch.manual_seed(3)
        return LeanAttention.apply(q, k, v, its_bias, its_mask, terms._replace(dropout=0.3))

    asked = [t for t in (bias, mask) if t is not None and t.requires_grad]
    assert gradcheck(function, (*tensors(2), *asked), fast_mode=True)


@pytest.mark.parametrize("planted", ["rowsum", "bits", "scale", "bias"])
def test_planted_defects_are_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each defect changes what `test_the_function_is_the_law…` compares."""
    if planted == "rowsum":
        monkeypatch.setattr(torch, "_softmax_backward_data", lambda dp, p, *_: p * dp)
    elif planted == "bits":
        monkeypatch.setattr(softmax_attention, "unpack", lambda bits, shape, dtype: torch.ones(shape, dtype=dtype))
    elif planted == "scale":
        backward = LeanAttention.backward
        monkeypatch.setattr(LeanAttention, "backward", lambda ctx, do: _unscaled(backward(ctx, do)))
    else:
        monkeypatch.setattr(
            softmax_attention.Piece, "of", lambda piece, t: t[piece.batch] if t.shape[0] > 1 else t * 1.0
        )
    case = "bias and additive"
    expected, found = (outcome(f, H, case, 0.3) for f in (plain, LeanAttention.apply))
    assert not all(torch.allclose(one, other) for one, other in zip(expected, found, strict=True))


def _unscaled(found: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    dq, *others = found
    assert dq is not None
    return dq / 0.7, *others


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_off_by_a_few_roundings(dtype: torch.dtype) -> None:
    found = [t.grad for t in _backward(dtype)]
    truth = [t.grad for t in _backward(torch.float64)]
    for one, other in zip(found, truth, strict=True):
        assert one is not None
        assert other is not None
        assert one.dtype == dtype
        error = (one.double() - other).abs().max() / other.abs().max()
        assert error < 8 * torch.finfo(dtype).eps


def _backward(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = tensors(2, torch.bfloat16 if dtype != torch.float16 else torch.float16)
    q, k, v = (t.detach().to(dtype).requires_grad_() for t in (q, k, v))
    LeanAttention.apply(q, k, v, None, boolean(), Terms(0.5)).square().sum().backward()
    return q, k, v


@pytest.mark.parametrize("elements", [1, 4, 8, 21, 30, 64, 10_000])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pieces_cover_the_scores_once_in_the_order_of_memory(groups: int, elements: int) -> None:
    scores = torch.arange(2 * 4 * 3 * 5).view(2, 4, 3, 5)
    cut = list(pieces(2, 4, groups, 3, 5, elements))
    flat = torch.cat([scores[p.batch, p.heads, p.rows].flatten() for p in cut])
    assert torch.equal(flat, scores.flatten())
    assert all(scores[p.batch, p.heads, p.rows].numel() <= max(elements, 5) for p in cut)
    for p in cut:
        keys = {head // (4 // groups) for head in range(p.heads.start, p.heads.stop)}
        assert keys == set(range(p.keys.start, p.keys.stop))


@pytest.mark.parametrize("size", [(1,), (7,), (8,), (3, 11), (4, 16)])
def test_bits_come_back(size: tuple[int, ...], generator: torch.Generator) -> None:
    keep = torch.rand(size, generator=generator) > 0.4
    packed = pack(keep.view(torch.uint8))
    assert packed.numel() == (keep.numel() + 7) // 8
    assert torch.equal(unpack(packed, keep.shape, torch.bool), keep)


def test_the_whole_mask_is_drawn_first_where_torch_draws_parts_otherwise(
    piece: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep_masks, "_drawn_in_parts", lambda kind: False)
    expected, found = (outcome(f, 2, "boolean", 0.3) for f in (plain, LeanAttention.apply))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-13)


def test_quick_masks_have_their_probability_in_every_16_bit_place() -> None:
    """All 65,536 values of a quarter are tried, so that the probability is counted and not estimated."""
    p = 0.3
    terms = Terms(1.0, p, quick=True)
    all_words = torch.arange(-(2**15), 2**15).to(torch.int16)
    least = round(p * 65536) - 32768
    assert (all_words >= least).double().mean().item() == terms.kept
    assert abs(terms.kept - (1 - p)) <= 2**-17
    assert quick_keep(torch.Size((3, 5)), p, torch.device("cpu")).shape == (3, 5)
    assert not torch.equal(*(quick_keep(torch.Size((64,)), p, torch.device("cpu")) for _ in range(2)))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("stock", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_models_have_the_loss_and_gradients_of_stock(name: str, stock: str, dropout: float, side: str) -> None:
    # stock eager Llama and OPT take the softmax in single precision
    single = stock == "eager" and name in ("Llama", "OPT")
    model = language_model(name, dropout).to(torch.float32 if single else torch.float64)
    model.set_attn_implementation(stock)
    batch = language_batch(side)
    loss, stock_gradients = gradients(model, batch)
    assert set_lean_attention(model) == {}
    lean_loss, lean_gradients = gradients(model, batch)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if single else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(lean_loss, loss, **tolerance)
    assert lean_gradients.keys() == stock_gradients.keys()
    for parameter, gradient in stock_gradients.items():
        torch.testing.assert_close(lean_gradients[parameter], gradient, **tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_single_precision_to_rounding(name: str) -> None:
    model = language_model(name, 0.2)
    batch = language_batch("right")
    _, expected = gradients(model, batch)
    set_lean_attention(model)
    _, found = gradients(model, batch)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_no_probabilities_are_kept(name: str, quick: bool) -> None:
    model = language_model(name, 0.2)
    model.set_attn_implementation("eager")
    batch = language_batch("right")
    scores = {(3, 4, 10, 10), (12, 10, 10)}
    stock = kept_tensors(model, batch)
    assert any(tuple(shape) in scores for shape, _ in stock)
    set_lean_attention(model, quick=quick)
    found = kept_tensors(model, batch)
    assert not any(tuple(shape) in scores for shape, _ in found)
    assert sum(size for _, size in found) < sum(size for _, size in stock)
    bits = [size for shape, size in found if tuple(shape) == (3 * 4 * 10 * 10 // 8,)]
    assert bits == [150] * sum(hasattr(module, "is_causal") for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_restore_leaves_a_stock_model(name: str) -> None:
    model = language_model(name, 0.2)
    before = copy.deepcopy({n: p.config._attn_implementation for n, p in _parts(model)})
    _, expected = gradients(model, language_batch("right"))
    set_lean_attention(model)
    assert all(p.config._attn_implementation.startswith("wtacrs_lean") for _, p in _parts(model))
    set_lean_attention(model, quick=True)
    assert len(restore_attention(model)) == len({id(p.config) for _, p in _parts(model)})
    assert {n: p.config._attn_implementation for n, p in _parts(model)} == before
    assert restore_attention(model) == []
    _, found = gradients(model, language_batch("right"))
    assert all(torch.equal(found[n], expected[n]) for n in expected)


def _parts(model: nn.Module) -> Iterator[tuple[str, PreTrainedModel]]:
    return ((n, m) for n, m in model.named_modules() if isinstance(m, PreTrainedModel))


def test_eval_mode_and_no_grad_are_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model("T5", 0.2)
    batch = language_batch("right")
    with torch.no_grad():
        expected = model.eval()(**batch).loss
    set_lean_attention(model)
    monkeypatch.setattr(LeanAttention, "forward", None)
    with torch.no_grad():
        assert torch.equal(model(**batch).loss, expected)
        model.train()(**batch)
    assert torch.equal(model.eval()(**batch).loss, expected)
    with pytest.raises(TypeError):
        model.train()(**batch)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_replays_the_dropout(reentrant: bool) -> None:
    model = language_model("GPT-2", 0.2)
    set_lean_attention(model)
    batch = language_batch("right")
    _, expected = gradients(model, batch)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    _, found = gradients(model, batch)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-5, atol=1e-7)


def test_a_second_backward_pass_gives_the_same() -> None:
    q, k, v = tensors()
    out = LeanAttention.apply(q, k, v, None, None, Terms(0.5, 0.3))
    once, twice = (torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    out = LeanAttention.apply(q, k, v, None, None, Terms(0.5))
    with pytest.raises(InputError, match="no second derivative"):
        torch.autograd.grad(out.square().sum(), q, create_graph=True)


def test_autocast_computes_in_half_precision_and_returns_gradients_in_single() -> None:
    model = language_model("Llama", 0.0)
    batch = language_batch("right")
    with torch.autocast("cpu", torch.bfloat16):
        _, expected = gradients(model, batch)
        set_lean_attention(model)
        _, found = gradients(model, batch)
    for parameter, gradient in expected.items():
        assert found[parameter].dtype == torch.float32
        torch.testing.assert_close(found[parameter], gradient, rtol=0.1, atol=0.02 * gradient.abs().max().item())


def test_compiled_models_run_stock_attention() -> None:
    model = language_model("Llama", 0.0)
    batch = language_batch("right")
    _, expected = gradients(model, batch)
    set_lean_attention(model)
    compiled = torch.compile(model, backend="aot_eager")
    _, found = gradients(compiled, batch, model)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6)


class Attention(nn.Module):
    """As much as the interface looks at."""

    is_causal = True


Attention.__module__ = "transformers.models.llama.modeling_llama"


@pytest.fixture(autouse=True)
def forget_warnings() -> None:
    """Every test hears each reason once."""
    lean._tell.cache_clear()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"s_aux": torch.zeros(H)}, "attention sinks"),
        ({"softcap": 30.0}, "a softcap"),
        ({"output_attentions": True}, "output_attentions"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_what_it_cannot_do_runs_stock_eager_and_is_told_once(more: dict[str, Any], reason: str) -> None:
    module = Attention()
    module.num_key_value_groups = 2
    q, k, v = tensors(2)
    run = partial(lean_attention, module, q, k, v, None, stock="eager", scaling=0.5, **more)
    with pytest.warns(WtacrsWarning, match=f"Attention: {reason} is not lean"):
        out, probabilities = run()
    assert probabilities is not None
    causal = torch.ones(S, T, dtype=torch.bool).tril()
    assert probabilities.masked_select(~causal).count_nonzero() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
    if "dropout" not in more:
        expected = plain(q, k, v, None, None, Terms(0.5, causal=True))
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


def test_a_softcap_beside_sdpa_is_refused_as_stock_refuses_it() -> None:
    q, k, v = tensors()
    with pytest.warns(WtacrsWarning, match="softcap"), pytest.raises(ValueError, match="softcap"):
        lean_attention(Attention(), q, k, v, None, softcap=30.0)


@pytest.mark.parametrize("mask", [boolean(), None])
def test_stock_eager_reads_boolean_masks(mask: Tensor | None) -> None:
    module = Attention().eval()
    module.num_key_value_groups = 2
    q, k, v = tensors(2)
    out, _ = lean_attention(module, q, k, v, mask, stock="eager", scaling=0.5)
    terms = Terms(0.5, causal=mask is None, stock="eager")
    torch.testing.assert_close(out, plain(q, k, v, None, mask, terms), rtol=1e-6, atol=1e-6)


def test_models_that_cannot_switch_stay_stock_with_the_reason() -> None:
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM, Gemma2Config, Gemma2ForCausalLM

    small = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    deberta = DebertaV2ForMaskedLM(DebertaV2Config(**small, relative_attention=True, pos_att_type=["c2p", "p2c"]))
    assert "does not go through AttentionInterface" in set_lean_attention(deberta)[""]
    gemma = Gemma2ForCausalLM(Gemma2Config(**small, num_key_value_heads=2, head_dim=8, pad_token_id=0))
    before = gemma.config._attn_implementation
    assert "does not support sdpa" in set_lean_attention(gemma)[""]
    assert gemma.config._attn_implementation == before
    llama = language_model("Llama", 0.0)
    llama.config._attn_implementation = "flex_attention"
    assert set_lean_attention(llama) == {"": "its attention is flex_attention"}


def test_a_model_within_a_model_of_ones_own() -> None:
    inner = language_model("BERT", 0.0)

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.language, self.config = inner, SimpleNamespace(_attn_implementation="eager")

    mine = Mine()
    assert set_lean_attention(mine) == {"": "the config of this Mine belongs to no model of transformers"}
    assert inner.config._attn_implementation == "wtacrs_lean_sdpa_keep"
    assert restore_attention(mine) == ["language"]


def test_torch_func_runs_stock_attention() -> None:
    q, k, v = tensors()

    def loss(q: Tensor) -> Tensor:
        return lean_attention(Attention(), q, k, v, None, scaling=0.5)[0].square().sum()

    (expected,) = torch.autograd.grad(loss(q), q)
    torch.testing.assert_close(torch.func.grad(loss)(q), expected)


def interface(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, stock: Any, **more: Any) -> Tensor:
    module = Attention()
    module.num_key_value_groups = q.shape[1] // k.shape[1]  # type: ignore[assignment]
    return lean_attention(module, q, k, v, mask, stock=stock, scaling=0.5, **more)[0]


@pytest.mark.parametrize("stock", ["eager", "sdpa"])
@pytest.mark.parametrize("mask", [None, boolean()])
@pytest.mark.parametrize("groups", [H, 2])
def test_a_fused_kernel_is_taken_without_dropout_and_gives_the_same(
    groups: int, mask: Tensor | None, stock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = (t.detach()[..., :D].requires_grad_() for t in tensors(groups))
    expected = plain(q, k, v, None, mask, Terms(0.5, causal=mask is None, stock=stock))
    truth = torch.autograd.grad(expected.square().sum(), (q, k, v))
    monkeypatch.setattr(LeanAttention, "forward", None)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(tuple(t.shape)), t)[1], lambda t: t):
        out = interface(q, k, v, mask, stock)
    assert not {(B, H, S, T), (B * H, S, T)} & set(kept)
    torch.testing.assert_close(out, expected)
    for one, other in zip(truth, torch.autograd.grad(out.square().sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(other, one)


def test_layers_share_one_additive_mask() -> None:
    mask = boolean()
    first = lean._additive(mask, torch.float32)
    assert lean._additive(mask, torch.float32) is first
    assert lean._additive(mask, torch.float64) is not first
    mask[0, 0, 0, 1] = ~mask[0, 0, 0, 1]
    changed = lean._additive(mask, torch.float64)
    assert changed is not None
    assert torch.equal(changed == 0.0, mask)


@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("dropout", {"dropout": 0.2}),
        ("bias", {"position_bias": bias_of(1, H, S, T)}),
        ("closed row, eager", {"stock": "eager", "mask": boolean(closed_row=True)}),
        ("mask with a gradient", {"mask": bias_of(B, 1, S, T)}),
    ],
)
def test_no_fused_kernel_is_taken_where_it_keeps_probabilities_or_gives_other_rows(
    case: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = (t.detach()[..., :D].requires_grad_() for t in tensors(H))
    monkeypatch.setattr(lean, "fused", None)
    interface(q, k, v, **{"mask": None, "stock": "sdpa", **more}).sum().backward()
    assert q.grad is not None


def test_within_a_checkpointed_function() -> None:
    q, k, v = tensors()
    apply = LeanAttention.apply
    torch.manual_seed(1)
    expected = torch.autograd.grad(apply(q, k, v, None, None, Terms(0.5, 0.3)).sum(), (q, k, v))
    torch.manual_seed(1)
    out = checkpoint(apply, q, k, v, None, None, Terms(0.5, 0.3), use_reentrant=False)
    found = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
