"""What layers know of their forward pass: masks from arguments and by hand, which layer gets which; padding."""

from __future__ import annotations

import pytest
import torch
from support.models import bert_batch, sampled_rows, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn

from wtacrs.estimators import InputError
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.context.masks import masks_from_arguments
from wtacrs.integration.layers.convert import approximate_

SPEC = "wta_crs(budget=0.3)"


@pytest.mark.parametrize("lengths", [(10, 7), (8, 8)])
@pytest.mark.parametrize("spec", ["crs(budget=0.9)", "wta_crs(budget=0.9)", "topk(budget=0.9)"])
def test_padding_is_never_sampled_in_encoder_and_decoder(spec: str, lengths: tuple[int, int]) -> None:
    """Equal lengths too, where a mask that is told by its shape alone would be the wrong one."""
    model, batch = tiny_t5(), t5_batch(*lengths)
    approximate_(model, spec, min_elements=0, share_inputs=False)
    source = set(batch["attention_mask"].flatten().nonzero().flatten().tolist())
    target = set((batch["labels"] != -100).flatten().nonzero().flatten().tolist())
    seen = sampled_rows(model, batch)
    assert len(seen) == 33
    for name, rows in seen.items():
        reads_source = name.startswith("encoder") or name.endswith(("EncDecAttention.k", "EncDecAttention.v"))
        assert rows <= (source if reads_source else target), name
        assert len(rows) > 5


def test_padding_is_never_sampled_in_bert_whose_pooler_has_no_padding() -> None:
    model, batch = tiny_bert(), bert_batch()
    approximate_(model, "crs(budget=0.9)", min_elements=0)
    real = set(batch["attention_mask"].flatten().nonzero().flatten().tolist())
    for name, rows in sampled_rows(model, batch).items():
        assert rows <= ({0, 1, 2} if "pooler" in name or name == "classifier" else real), name


def test_masks_given_by_hand() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    approximate_(model, "crs(budget=1.0)", min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    x, mask = torch.randn(2, 5, 6), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).bool()
    with context.given(source=mask):
        for _ in range(2):  # a forward pass does not take them away
            out = model(x)
            kept = [t for t in _saved(out) if t.dtype == torch.int32]
            assert kept
            assert all(set(t.tolist()) <= {0, 1, 5, 6, 7} for t in kept)
    assert context.rows("source", x) is None


def _saved(out: Tensor) -> list[Tensor]:
    found, queue = [], [out.grad_fn]
    while queue:
        node = queue.pop()
        if node is None:
            continue
        found += [t for t in getattr(node, "saved_tensors", ()) if t is not None]
        queue += [parent for parent, _ in node.next_functions]
    return found


def test_a_mask_that_is_no_tensor_is_named() -> None:
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    with pytest.raises(InputError, match="source='x' must be a tensor"), context.given(source="x"):  # type: ignore[arg-type]
        pass


def test_masks_leave_with_the_forward_pass_even_if_it_fails() -> None:
    model, batch = tiny_t5(), t5_batch()
    approximate_(model, SPEC, min_elements=0)
    context = ForwardContext.of(model)
    assert context is not None
    model(**batch)
    assert context.current is not None
    assert not context.current.masks
    with pytest.raises(IndexError):
        model(**{**batch, "input_ids": batch["input_ids"] + 1000})
    assert not context.current.masks


def test_masks_from_arguments() -> None:
    attention = torch.tensor([[1, 1, 0, 0]])
    labels = torch.tensor([[5, -100, 7, -100]])
    both = masks_from_arguments(True, attention, None, labels)
    assert both["source"].tolist() == [[True, True, False, False]]
    assert both["target"].tolist() == [[True, True, True, False]]
    decoder = torch.tensor([[1, 1, 0, 0]])
    assert masks_from_arguments(True, None, decoder, None)["target"].tolist() == [[True, True, False, False]]
    assert masks_from_arguments(True, None, decoder, labels)["target"].tolist() == [[True, True, True, False]]
    # labelled padding of a causal language model carries a loss, from its own row or the one before
    causal = masks_from_arguments(False, torch.tensor([[1, 0, 0, 0]]), None, torch.tensor([[4, 4, -100, 4]]))
    assert causal["source"].tolist() == [[True, True, True, True]]
    assert masks_from_arguments(False, torch.ones(1, 1, 4, 4), None, None) == {}
