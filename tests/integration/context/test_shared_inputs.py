"""One compressed copy for the layers that read one tensor: what is shared, what is not, bytes, unbiased, compiled."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from support.saved_rows import saved, saved_rows
from torch import Tensor, nn

from wtacrs.estimators import make, row_norms
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.validation.enumeration.exact_moments import enumerate_moments

SPEC = "wta_crs(budget=0.3)"


class Pair(nn.Module):
    """Two layers; `between` is done to the input before the second reads it."""

    def __init__(self, between: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        return torch.cat([first, self.b(self.between(x))], dim=-1)


def test_layers_that_read_one_tensor_keep_one_copy() -> None:
    model = Pair()
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    first, second = saved_rows(lambda: model(torch.randn(10, 6)))
    assert first.data_ptr() == second.data_ptr()
    approximate_(model, "crs(budget=0.5)", min_elements=0, share_inputs=False)
    first, second = saved_rows(lambda: model(torch.randn(10, 6)))
    assert first.data_ptr() != second.data_ptr()
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.clone(),
        lambda x: x.mul_(2.0),
        lambda x: x.mul_(1.0),
        lambda x: x.view(10, 6),
        lambda x: x[:],
        lambda x: x.detach(),
        lambda x: x.double().float() + 0,
    ],
)
def test_what_is_not_certainly_the_same_tensor_is_not_shared(between: Callable[[Tensor], Tensor]) -> None:
    model = Pair(between)
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    first, second = saved_rows(lambda: model(torch.randn(10, 6)))
    assert first.data_ptr() != second.data_ptr()


def test_a_sample_lives_no_longer_than_its_pass() -> None:
    """A constant that is read in every pass is drawn anew in every pass; a dead tensor's address is worth nothing."""
    model, x = Pair(), torch.randn(10, 6)
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    draws = [saved_rows(lambda: model(x))[0] for _ in range(3)]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])
    masks = ForwardContext.of(model)
    assert masks is not None
    for layer in (model.a, model.b):  # outside a pass nothing is shared
        saved_rows(lambda layer=layer: layer(x))
    assert masks.current is not None
    assert not masks.current.shared._entries


def test_different_estimators_do_not_share() -> None:
    model = Pair()
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    model.b.estimator = make("crs(budget=0.2)")
    first, second = saved_rows(lambda: model(torch.randn(10, 6)))
    assert (len(first), len(second)) == (5, 2)


@pytest.mark.parametrize("autocast", [False, True])
def test_bytes_of_a_t5_and_who_shares(autocast: bool) -> None:
    """q, k, v of every self-attention, and k, v of all cross-attentions, which read the encoder's output."""

    def measure(share: bool) -> tuple[int, Counter[int]]:
        model = tiny_t5()
        approximate_(model, SPEC, min_elements=0, share_inputs=share)
        with torch.autocast("cpu", enabled=autocast):
            kept = saved(lambda: model(**t5_batch()))
        own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        bytes_of = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
        users = Counter(t.data_ptr() for t in kept if t.dtype == torch.int32)
        return sum(size for pointer, size in bytes_of.items() if pointer not in own), users

    alone, users_alone = measure(False)
    shared, users = measure(True)
    assert sorted(users_alone.values()) == [1] * 33
    # 2 + 2 self-attentions of 3; 4 layers read the encoder's output; o, wi, wo, cross q and o, lm_head by themselves
    assert sorted(users.values()) == [1] * 17 + [3] * 4 + [4]
    rows_of = {True: 9, False: 6}  # ⌈0.3 · 3 · 10⌉ of the source, ⌈0.3 · 3 · 7⌉ of the target
    row = 32 * (2 if autocast else 4) + 8
    spared = (2 * 2 + 3) * rows_of[True] + 2 * 2 * rows_of[False]
    assert alone - shared == pytest.approx(spared * row, abs=11 * row)


def test_every_layer_stays_unbiased_with_the_variance_it_had() -> None:
    """Of the sample that both keep, over all outcomes; the errors are dependent, the sum of variances is not changed."""
    x = torch.randn(5, 6, dtype=torch.float64)
    dy = torch.randn(5, 7, dtype=torch.float64)
    estimator = make("wta_crs(budget=2)")
    both = enumerate_moments(estimator, x, dy)
    a, b = enumerate_moments(estimator, x, dy[:, :4]), enumerate_moments(estimator, x, dy[:, 4:])
    torch.testing.assert_close(both.mean, torch.cat([a.mean, b.mean]))
    torch.testing.assert_close(both.mean, dy.T @ x)
    assert both.variance == pytest.approx(a.variance + b.variance)


def test_gradients_are_those_of_the_one_sample() -> None:
    model, x = Pair(), torch.randn(10, 6)
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    dy = torch.randn(10, 7)
    kept: list[Any] = []
    estimator = model.a.estimator
    original = type(estimator).compress

    def compress(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept.append(original(self, *args, **kwargs))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(estimator), "compress", compress)
        model(x).backward(dy)
    (sample,) = kept
    for layer, part in ((model.a, dy[:, :4]), (model.b, dy[:, 4:])):
        assert torch.equal(layer.weight.grad, estimator.contract(sample, part))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("share", [True, False])
def test_checkpointing_gives_the_gradients_of_the_run_without_it(reentrant: bool, share: bool) -> None:
    """With dropout: the rows are those drawn in the forward pass, and dropout sees the numbers that it saw then.

    Layers of several blocks share the encoder's output; a block that is run again by itself draws for itself, so their
    rows are others then, and everything else must be the same.
    """
    expected, found = (checkpointed(how, share) for how in (None, reentrant))
    for name, gradient in expected.items():
        if not (share and "EncDecAttention" in name and name.endswith(("k.weight", "v.weight"))):
            torch.testing.assert_close(found[name], gradient, msg=name)


def checkpointed(reentrant: bool | None, share: bool) -> dict[str, Tensor]:
    # checkpointing turns the cache of keys off: other roundings, by which rows of nearly equal norms change places
    model = tiny_t5(dropout=0.2).double()
    approximate_(model, SPEC, min_elements=0, share_inputs=share)
    if reentrant is not None:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    torch.manual_seed(3)
    model(**t5_batch()).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_padding_is_left_out_when_a_block_is_run_again() -> None:
    model, batch = tiny_bert(), bert_batch()
    approximate_(model, "crs(budget=0.9)", min_elements=0, mask_floor=1e-9)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    real = set(batch["attention_mask"].flatten().nonzero().flatten().tolist())
    loss = model(**batch).loss
    drawn: list[int] = []
    estimator = type(model.classifier.estimator)
    original = estimator.compress

    def compress(self: Any, *args: Any, **kwargs: Any) -> Any:
        sample = original(self, *args, **kwargs)
        drawn.extend(sample.indices.tolist())
        return sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimator, "compress", compress)
        loss.backward()
    assert drawn
    assert set(drawn) <= real


def test_two_passes_in_one_backward_pass_keep_dropout_right() -> None:
    """Nothing is known of the pass that a block belongs to: all rows are sampled, dropout is as without checkpointing."""

    def gradient(reentrant: bool | None) -> Tensor:
        model = tiny_t5(dropout=0.2)
        approximate_(model, "crs(budget=1.0)", min_elements=0, filter_fn=lambda _, name: name.endswith("wo"))
        if reentrant is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        torch.manual_seed(3)
        (model(**t5_batch()).loss + model(**t5_batch(8, 6)).loss).backward()
        masks = ForwardContext.of(model)
        assert masks is not None
        assert masks._recomputation.current is None
        return model.encoder.block[0].layer[0].SelfAttention.q.weight.grad.clone()

    for reentrant in (True, False):
        torch.testing.assert_close(gradient(reentrant), gradient(None))


def test_torch_func_goes_its_own_way() -> None:
    model, x = Pair(), torch.randn(10, 6)
    approximate_(model, "crs(budget=0.5)", min_elements=0)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    found = torch.func.grad(lambda p: torch.func.functional_call(model, p, (x,)).square().sum())(parameters)
    assert all(value.isfinite().all() for value in found.values())


def test_row_norms_are_the_scores_of_a_shared_sample() -> None:
    model = Pair()
    approximate_(model, "topk(budget=0.3)", min_elements=0)
    x = torch.randn(10, 6)
    (rows, _) = saved_rows(lambda: model(x))
    assert set(rows.tolist()) == set(row_norms(x).topk(3).indices.tolist())
    assert type(model.a) is ApproxLinear


COMPILED = """
import torch
from torch import nn
from wtacrs.integration.layers.convert import approximate_
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 5), nn.Linear(12, 5)
    def forward(self, x):
        return self.a(x) * self.b(x)
class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Two()
    def forward(self, x):
        return self.inner(x)
options = {"fullgraph": True, "backend": "aot_eager"}
whole, part = Two(), Outer()
for model in (whole, part):
    approximate_(model, "crs(budget=0.3)", min_elements=0)
part.inner.compile(**options)
x = torch.randn(4, 10, 12)
for model, run in ((whole, torch.compile(whole, **options)), (part, part)):
    torch.testing.assert_close(run(x), model(x))
    gradients = []
    for _ in range(2):
        model.zero_grad()
        run(x).square().sum().backward()
        gradients.append(next(model.parameters()).grad.clone())
    assert not torch.equal(*gradients)
remembering = Two()
approximate_(remembering, "crs(budget=0.3)", min_elements=0, scores="last-seen")
broken = torch.compile(remembering, backend="aot_eager")
broken(x, example_ids=torch.arange(4)).square().sum().backward()
assert remembering.a.gradient_norms.state_dict()["tables"]["a"]["values"].shape == (40, 1)
torch._dynamo.reset()
try:
    torch.compile(remembering, **options)(x, example_ids=torch.arange(4))
except torch._dynamo.exc.Unsupported as refusal:
    assert "remembered gradient norms" in str(refusal)
else:
    raise AssertionError("compiled without a word")
"""


def test_compiled_models_draw_by_row_norms_and_others_break_the_graph() -> None:
    """In a process of its own: the signature checks of the tests are nothing to compile."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
