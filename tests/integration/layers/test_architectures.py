"""One test for all architectures: converted, trained, restored, saved, and read by stock transformers; padding."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from support.architectures import ARCHITECTURES, LENGTHS, VOCABULARY, build, padded_batch
from support.expected_gradients import layer_biases
from support.mean_gradients import gradients
from support.models import sampled_rows
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerBase,
)

from wtacrs.estimators import row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear_layers import is_linear_layer
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.models.loading import is_text_to_text

SPEC = "wta_crs(budget=0.3)"
NEVER = 1e-9
"""A floor by which padding is drawn in one of a thousand million draws: what is drawn shows which mask was used."""


def linear_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if is_linear_layer(module)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_converted_trained_restored_and_read_by_stock_transformers(
    name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = build(name, tokenizer)
    batch, keys, linears = padded_batch(model), list(model.state_dict()), linear_names(model)
    types = {layer: type(model.get_submodule(layer)) for layer in linears}
    assert approximate_(model, SPEC, min_elements=0) == linears
    assert all(isinstance(model.get_submodule(layer), EstimatedWeightGrad) for layer in linears)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(0)
    losses = []
    for _ in range(20):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])
    logits = model.eval()(**batch).logits
    model.save_pretrained(tmp_path / "converted")
    assert restore_(model) == linears
    assert {layer: type(model.get_submodule(layer)) for layer in linears} == types
    assert list(model.state_dict()) == keys
    assert torch.equal(model(**batch).logits, logits)
    model.save_pretrained(tmp_path / "restored")
    auto = AutoModelForSeq2SeqLM if is_text_to_text(model) else AutoModelForSequenceClassification
    for folder in ("converted", "restored"):
        stock, report = auto.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not any(report.values())
        assert not any(isinstance(module, EstimatedWeightGrad) for module in stock.modules())
        assert torch.equal(stock.eval()(**batch).logits, logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_everything_but_the_converted_weights_is_exact(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Dropout on: its random numbers are those of a model whose estimator is `exact`."""
    model = build(name, tokenizer)
    batch = padded_batch(model)
    approximate_(model, "exact")
    torch.manual_seed(3)
    exact = gradients(model, batch)
    layers = approximate_(model, "topk(budget=0.3)", min_elements=0)
    weights = {id(model.get_submodule(layer).weight) for layer in layers}
    torch.manual_seed(3)
    found = gradients(model, batch)
    assert found.keys() == exact.keys()
    untouched = [n for n, p in model.named_parameters() if n in exact and id(p) not in weights]
    assert len(untouched) > 5
    for parameter in untouched:
        torch.testing.assert_close(found[parameter], exact[parameter], rtol=1e-4, atol=1e-7, msg=parameter)
    changed = [n for n in exact if n not in untouched and not torch.allclose(found[n], exact[n], rtol=1e-3)]
    assert len(changed) > len(layers) / 2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_has_no_gradient_and_next_to_no_draws(
    name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Every layer is told its padding, but for those whose rows are no tokens: one row an example, or positions."""
    model = build(name, tokenizer)
    batch = padded_batch(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "rows that a mask calls padding")
        found = capture(model, [batch], tmp_path / "c.safetensors")
    approximate_(model, "crs(budget=0.9)", min_elements=0, share_inputs=False, mask_floor=NEVER)
    seen = sampled_rows(model, batch)
    context = ForwardContext.of(model)
    assert context is not None
    assert context.watch.read() == {}
    assert set(seen) == set(linear_names(model))
    real = set(batch["attention_mask"].flatten().nonzero().flatten().tolist())
    target = set((batch["labels"] != -100).flatten().nonzero().flatten().tolist())
    told = 0
    for layer, rows in seen.items():
        masked = int((~found[f"{layer}#0"].mask).sum())
        if masked == 0:
            assert layer.split(".")[-1] in ("pos_key_proj", "pos_query_proj", "classifier") or "pooler" in layer
            continue
        told += 1
        decoder = is_text_to_text(model) and not layer.startswith("encoder")
        along_target = decoder and not layer.endswith(("EncDecAttention.k", "EncDecAttention.v"))
        assert rows <= (target if along_target else real), layer
        assert masked == (3 * 5 - len(target) if along_target else 3 * max(LENGTHS) - len(real))
    assert told >= 2 * 4


@pytest.mark.parametrize("scores", ["by-position", "by-token", "last-seen", "learned"])
def test_flattened_rows_learn_and_are_scored_as_tokens_are(
    scores: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """OPT's feed-forward layers: the second batch finds what the first has shown, and padding has its floor."""
    model = build("new:opt", tokenizer)
    approximate_(model, SPEC, min_elements=0, scores=scores)
    batch = padded_batch(model) | ({"example_ids": torch.arange(3)} if scores == "last-seen" else {})
    first = model.model.decoder.layers[0]
    seen = []
    first.fc1.register_forward_hook(lambda layer, args, _: seen.append((args[0], layer.scores_of(args[0]))))
    for _ in range(2):
        model(**batch).loss.backward()
    padding = ~batch["attention_mask"].bool().flatten()
    for x, found in seen:
        assert x.ndim == 2
        assert found[padding].unique().numel() == 1
        assert 0 < float(found[padding].sum() / found.sum()) <= 0.01 * (1 + 1e-9)
    (x, _), (_, learnt) = seen
    norms, learnt = row_norms(x)[~padding], learnt[~padding]
    assert not torch.allclose(learnt / learnt.sum(), norms / norms.sum(), rtol=1e-2)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("spec", ["crs(budget=0.5)", "wta_crs(budget=0.3)"])
def test_a_table_of_positions_that_looks_like_one_example_is_unbiased_and_told(
    spec: str, shared: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    """DeBERTa's projections read 2·32 relative positions too, shaped like one example of 64 tokens."""
    config = build("new:deberta", tokenizer).config
    config.share_att_key = shared
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = config.pooler_dropout = 0.0
    torch.manual_seed(0)
    model = DebertaV2ForSequenceClassification(config).train().double()
    ids = torch.randint(3, VOCABULARY, (1, 64), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(64) < 20).long()[None]
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.tensor([1])}
    approximate_(model, spec, min_elements=0, share_inputs=False)

    def step() -> None:
        model.zero_grad()
        model(**batch).loss.backward()

    context = ForwardContext.of(model)
    assert context is not None
    assert max(layer_biases(model, step).values()) <= 1e-9
    misled = context.watch.read()
    tables = [layer for layer in misled if layer.endswith("key_proj" if shared else "pos_key_proj")]
    assert len(tables) == 2
    with pytest.warns(UserWarning, match="mask calls padding"):
        assert max(layer_biases(model, step).values()) <= 1e-9
