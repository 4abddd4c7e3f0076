"""One test for all architectures: converted, trained, restored, saved, and read by stock transformers; padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.architectures import ARCHITECTURES, LENGTHS, VOCABULARY, build, padded_batch
from support.mean_gradients import gradients
from support.models import sampled_rows
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from wtacrs.estimators import row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.estimated_weight_grad import EstimatedWeightGrad
from wtacrs.integration.layers.linear_layers import is_linear_layer
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.models.loading import is_text_to_text

SPEC = "wta_crs(budget=0.3)"


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
    for _ in range(6):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
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
def test_padding_is_never_sampled_and_has_no_gradient(
    name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Every layer is told its padding, but for those whose rows are no tokens: one row an example, or positions."""
    model = build(name, tokenizer)
    batch = padded_batch(model)
    found = capture(model, [batch], tmp_path / "c.safetensors")  # refuses gradients at rows called padding
    approximate_(model, "crs(budget=0.9)", min_elements=0, share_inputs=False)
    seen = sampled_rows(model, batch)
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


def test_without_the_rule_for_flattened_rows_opt_samples_padding(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wtacrs.integration.context.streams._FLATTENING", {})
    model = build("new:opt", tokenizer)
    approximate_(model, "crs(budget=0.9)", min_elements=0, share_inputs=False)
    batch = padded_batch(model)
    real = set(batch["attention_mask"].flatten().nonzero().flatten().tolist())
    past = {layer for layer, rows in sampled_rows(model, batch).items() if not rows <= real}
    assert {layer.split(".")[-1] for layer in past} == {"fc1", "fc2"}


def test_rows_in_another_order_are_not_masked_for_being_as_many(tokenizer: PreTrainedTokenizerBase) -> None:
    """Only layers that are known to flatten take `[batch · positions, d]` for tokens in their order."""
    model = build("new:opt", tokenizer)
    approximate_(model, SPEC)
    masks = ForwardContext.of(model)
    assert masks is not None
    mask, flat = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool(), torch.zeros(6, 4)
    with masks.given(source=mask):
        assert masks.rows("source", flat, flattened=True).tolist() == mask.flatten().tolist()
        assert masks.rows("source", flat) is None
        assert masks.rows("source", torch.zeros(5, 4), flattened=True) is None
    first = model.model.decoder.layers[0]
    assert (first.fc1.flattened, first.fc2.flattened, first.self_attn.q_proj.flattened) == (True, True, False)


@pytest.mark.parametrize("scores", ["by-position", "by-token", "last-seen"])
def test_flattened_rows_learn_and_are_scored_as_tokens_are(
    scores: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """OPT's feed-forward layers: the second batch finds what the first has shown, and nothing at padding."""
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
        assert found is not None
        assert torch.equal(found == 0, padding)
    (x, _), (_, learnt) = seen
    norms = row_norms(x) * ~padding
    assert not torch.allclose(learnt / learnt.sum(), norms / norms.sum(), rtol=1e-2)


@pytest.mark.parametrize("shared", [True, False])
def test_tables_of_positions_are_not_taken_for_one_example(
    shared: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    """DeBERTa's projections read 2·32 relative positions too, shaped like one example of 64 tokens."""
    model = build("new:deberta", tokenizer)
    config = model.config
    config.share_att_key = shared
    model = type(model)(config).train()
    ids = torch.randint(3, VOCABULARY, (1, 64), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(64) < 20).long()[None]
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.tensor([1])}
    approximate_(model, "crs(budget=0.9)", min_elements=0, share_inputs=False)
    rows = sampled_rows(model, batch, times=1)
    tables = [layer for layer in rows if layer.endswith("key_proj" if shared else "pos_key_proj")]
    assert len(tables) == 2
    for layer in tables:
        assert max(rows[layer]) > 20, layer
