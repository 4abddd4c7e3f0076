"""What layers know of their forward pass: which mask each gets, masks by hand, the state, and passes that fail."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from support.models import bert_batch, sampled_rows, t5_batch, tiny_bert, tiny_t5
from support.saved_rows import saved_rows
from torch import Tensor, nn

from wtacrs.estimators import InputError
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_, restore_

SPEC = "wta_crs(budget=0.3)"
NEVER = 1e-9
"""A floor by which padding is drawn in one of a thousand million draws: what is drawn shows which mask was used."""


def context_of(model: nn.Module) -> ForwardContext:
    context = ForwardContext.of(model)
    assert context is not None
    return context


def rows_of(mask: Tensor) -> set[int]:
    return set(mask.flatten().nonzero().flatten().tolist())


@pytest.mark.parametrize("lengths", [(10, 7), (8, 8)])
@pytest.mark.parametrize("spec", ["crs(budget=0.9)", "wta_crs(budget=0.5)", "topk(budget=0.5)"])
def test_which_mask_is_used_in_encoder_and_decoder(spec: str, lengths: tuple[int, int]) -> None:
    """Told by the shape. Of source and target of one length, layers of the decoder leave out what both call padding.

    There are no more rows to keep than live ones: rows that are left over go to padding.
    """
    model, batch = tiny_t5(), t5_batch(*lengths)
    batch["attention_mask"][1, 7:] = 0
    approximate_(model, spec, min_elements=0, share_inputs=False, mask_floor=NEVER)
    source, target = rows_of(batch["attention_mask"]), rows_of(batch["labels"] != -100)
    seen = sampled_rows(model, batch)
    assert len(seen) == 33
    for name, rows in seen.items():
        reads_source = name.endswith(("EncDecAttention.k", "EncDecAttention.v"))
        if name.startswith("encoder"):
            assert rows <= source, name
        elif lengths[0] == lengths[1]:
            assert rows <= source | target, name
        else:
            assert rows <= (source if reads_source else target), name
        assert len(rows) > 5
    assert not source | target >= set(range(3 * lengths[0]))


def test_padding_is_sampled_next_to_never_in_bert_whose_pooler_has_none() -> None:
    model, batch = tiny_bert(), bert_batch()
    approximate_(model, "crs(budget=0.9)", min_elements=0, mask_floor=NEVER)
    real = rows_of(batch["attention_mask"])
    for name, rows in sampled_rows(model, batch).items():
        assert rows <= ({0, 1, 2} if "pooler" in name or name == "classifier" else real), name


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_padding_has_its_share_of_the_scores(share: float) -> None:
    """δ of them where no row is certain: after a norm all rows are of nearly one size."""
    model, batch = tiny_bert(), bert_batch()
    approximate_(model, SPEC, min_elements=0, mask_floor=share)
    layer = model.bert.encoder.layer[0].intermediate.dense
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda layer, args: seen.append(layer.scores_of(args[0])))
    model(**batch)
    padding = seen[0][batch["attention_mask"].flatten() == 0]
    assert float(padding.sum() / seen[0].sum()) == pytest.approx(share)
    assert padding.unique().numel() == 1


def test_masks_given_by_hand() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    approximate_(model, "crs(budget=0.9)", min_elements=0, mask_floor=NEVER)
    context = context_of(model)
    x, mask = torch.randn(2, 5, 6), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).bool()
    with context.given(source=mask):
        for _ in range(2):  # a forward pass does not take them away
            kept = saved_rows(lambda: model(x))
            assert len(kept) == 2
            assert all(set(t.tolist()) <= {0, 1, 5, 6, 7} for t in kept)
        alone = saved_rows(lambda: model[0](x))  # a layer that runs by itself too
        assert set(alone[0].tolist()) <= {0, 1, 5, 6, 7}
        with context.given(source=~mask):  # the innermost counts
            assert all(set(t.tolist()) <= {2, 3, 4, 8, 9} for t in saved_rows(lambda: model(x)))
        assert all(set(t.tolist()) <= {0, 1, 5, 6, 7} for t in saved_rows(lambda: model(x)))
    free = [row for _ in range(20) for t in saved_rows(lambda: model(x)) for row in t.tolist()]
    assert set(free) == set(range(10))
    assert context.current is not None
    assert context.current.mask(x.shape[:-1]) is None


def test_masks_by_hand_come_before_those_of_the_arguments() -> None:
    model, batch = tiny_bert(), bert_batch()
    approximate_(model, "crs(budget=0.9)", min_elements=0, mask_floor=NEVER, filter_fn=lambda _, n: "dense" in n)
    mask = batch["attention_mask"] == 0
    with context_of(model).given(source=mask):
        seen = sampled_rows(model, batch, times=1)
    assert seen["bert.encoder.layer.0.intermediate.dense"] <= rows_of(mask)


def test_given_leaves_with_an_exception() -> None:
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0)
    context = context_of(model)
    with pytest.raises(ZeroDivisionError), context.given(source=torch.ones(3, 10).bool()):
        raise ZeroDivisionError
    assert context._thread.given == []


def test_a_mask_that_is_no_tensor_is_named() -> None:
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0)
    context = context_of(model)
    for name in ("source", "target"):
        with pytest.raises(InputError, match=f"{name}='x' must be a tensor"), context.given(**{name: "x"}):
            pass
    assert context._thread.given == []


class Raises(nn.Module):
    """Takes masks, and fails in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fails = tiny_bert(), True

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.inner(input_ids, attention_mask).logits
        if self.fails:
            raise ZeroDivisionError
        return logits


@pytest.mark.parametrize("where", ["model", "layer", "hook before ours", "hook after ours", "hook of a layer"])
def test_a_pass_that_fails_leaves_nothing(where: str) -> None:
    """Whatever fails, the next pass draws the rows that it would have drawn as the first of its kind."""
    model, batch = Raises(), {k: v for k, v in bert_batch().items() if k != "labels"}
    failing: list[Any] = []

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    if where == "hook before ours":
        failing.append(model.register_forward_pre_hook(fail))
    approximate_(model, SPEC, min_elements=0)
    context = context_of(model)
    if where == "hook after ours":
        failing.append(model.register_forward_pre_hook(fail))
    if where == "hook of a layer":
        failing.append(model.inner.classifier.register_forward_pre_hook(fail))
    if where == "layer":
        batch["input_ids"] = batch["input_ids"] + 1000
    expected = IndexError if where == "layer" else ZeroDivisionError
    for _ in range(2):
        with pytest.raises(expected):
            model(**batch)
        assert context._thread.calls == []
        assert context.current is not None
        assert not context.current.known
    for handle in failing:
        handle.remove()
    model.fails, batch["input_ids"] = False, bert_batch()["input_ids"]
    state = context.state_dict()
    model(**batch).sum().backward()
    found = gradients(model)
    fresh = Raises()
    fresh.fails = False
    approximate_(fresh, SPEC, min_elements=0)
    context_of(fresh).load_state_dict(state)
    fresh(**batch).sum().backward()
    assert found
    assert all(torch.equal(a, b) for a, b in zip(found, gradients(fresh), strict=True))


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_the_state_is_json_and_goes_on() -> None:
    batch = bert_batch()
    batch["attention_mask"] = batch["attention_mask"].flip(1)  # the pooler reads padding
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0, seed=7)
    model(**batch).loss.backward()
    with pytest.warns(UserWarning, match="mask calls padding"):
        model(**batch).loss.backward()
    state = json.loads(json.dumps(context_of(model).state_dict()))
    assert (state["seed"], state["passes"]) == (7, 2)
    assert state["misled"]
    other = copy.deepcopy(model)
    restore_(other)
    approximate_(other, SPEC, min_elements=0, seed=8)
    context_of(other).load_state_dict(state)
    found = []
    for each in (model, other):
        each.zero_grad()
        each(**batch).loss.backward()
        found.append(gradients(each))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert context_of(other).state_dict() == context_of(model).state_dict()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"seed": 1, "passes": 2}, r"state\['misled'\]=None must be a dict"),
        ({"seed": 1, "passes": 2, "misled": ["a"]}, r"state\['misled'\]=\['a'\] must be a dict"),
        ({"seed": "1", "passes": 2, "misled": {}}, r"state\['seed'\]='1' must be an int"),
        ({"seed": 1, "passes": True, "misled": {}}, r"state\['passes'\]=True must be an int"),
        ({"seed": 1, "misled": {}}, r"state\['passes'\]=None must be an int"),
    ],
)
def test_what_is_no_state_is_named_and_changes_nothing(state: dict[str, Any], message: str) -> None:
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0, seed=7)
    with pytest.raises(InputError, match=message):
        context_of(model).load_state_dict(state)
    assert context_of(model).state_dict() == {"seed": 7, "passes": 0, "misled": {}}


def test_a_copy_has_passes_of_its_own() -> None:
    model, batch = tiny_bert(), bert_batch()
    approximate_(model, SPEC, min_elements=0)
    model(**batch).loss.backward()
    other = copy.deepcopy(model)
    assert context_of(other) is not context_of(model)
    assert context_of(other).state_dict() == context_of(model).state_dict()
    other(**batch).loss.backward()
    assert context_of(other).draws.passes == context_of(model).draws.passes + 1


def test_replicas_are_refused() -> None:
    """As `nn.DataParallel` makes them on several devices, at every call."""
    model = tiny_bert()
    approximate_(model, SPEC, min_elements=0)
    model._is_replica = True
    with pytest.raises(InputError, match=r"nn.DataParallel over several devices .* start one process per device"):
        model(**bert_batch())
    assert context_of(model)._thread.calls == []
