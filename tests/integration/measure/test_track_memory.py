"""Who holds what for a backward pass: equal to what a walk over autograd's graph finds, and freed if one lets go."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.lora_models import with_lora
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wtacrs.estimators import InputError
from wtacrs.integration import track_memory as public_name
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.measure import track_memory as module
from wtacrs.integration.measure.kept_bytes import KeptBytesProbe
from wtacrs.integration.measure.saved_storages import CASTS, bytes_alive, storages_of
from wtacrs.integration.measure.track_memory import CHECKPOINT, TrackedMemory, track_memory
from wtacrs.integration.score_memory.gradient_norms import gradient_norms_of
from wtacrs.validation.records.owners import MODEL, NOT_RUN, OUTSIDE, By, shared_bytes

SPEC = "wta_crs(budget=0.3)"
WIDTH = 16
ROWS = 12
FLOATS = ROWS * WIDTH * 4
"""Bytes of an activation of the small networks."""


def rows(seed: int = 0) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))


def mlp(between: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), between(), nn.Linear(WIDTH, WIDTH), between(), nn.Linear(WIDTH, WIDTH)
    )


def walked(root: Tensor, *apart: Tensor) -> dict[Any, int]:
    """The storages that the graph of a tensor holds, read off its nodes one by one, without any hook."""
    known = {reference for tensor in apart for reference in storages_of(tensor)}
    found: dict[Any, int] = {}
    waiting, seen = [root.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        values = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        values += [*getattr(node, "saved_tensors", ()), *vars(node).values()] if hasattr(node, "__dict__") else []
        for value in values:
            for tensor in value if isinstance(value, (tuple, list)) else (value,):
                # Python numbers are shown to no hook
                if isinstance(tensor, Tensor) and not (tensor.ndim == 0 and tensor.dtype == torch.float64):
                    found |= {key: bytes_alive(key) for key in storages_of(tensor) if key not in known}
    return found


def step(model: nn.Module, run: Callable[[nn.Module], Tensor], **options: Any) -> TrackedMemory:
    with track_memory(model, **options) as m:
        run(model).backward()
    assert m.reason is None
    return m


def squares(model: nn.Module) -> Tensor:
    return model(rows()).square().sum()


def test_the_public_name_is_this_function() -> None:
    assert public_name is track_memory


def test_what_an_mlp_keeps_and_what_each_part_of_it_would_free() -> None:
    """Rectified rows are kept by ReLU and by the layer that reads them; the output by the square outside."""
    m = step(mlp(), squares)
    assert m.kept == 3 * FLOATS
    assert [(entry.bytes, entry.shape, entry.dtype) for entry in m.storages] == [
        (FLOATS, [ROWS, WIDTH], "float32")
    ] * 3
    owners = {frozenset((o.module, o.type, o.operation) for o in entry.owners) for entry in m.storages}
    relu, linear = ("1", "ReLU", "ReluBackward0"), ("2", "Linear", "AddmmBackward0")
    assert owners == {
        frozenset({relu, linear}),
        frozenset({("3", *relu[1:]), ("4", *linear[1:])}),
        frozenset({(OUTSIDE, OUTSIDE, "PowBackward0")}),
    }
    assert (m.freed_by("1"), m.freed_by("2"), m.freed_by("[12]"), m.freed_by("*")) == (0, 0, FLOATS, 3 * FLOATS)
    assert m.freed_by(type="ReLU") == m.freed_by(operation="Addmm*") == 0
    assert m.freed_by(operation="Pow*") == m.freed_by(OUTSIDE) == FLOATS
    assert [len(m.owners(name)) for name in ("0", "1", "2", "*")] == [0, 1, 1, 3]
    result = m.result
    parameters = 4 * 3 * (WIDTH * WIDTH + WIDTH)
    assert (result.parameters, result.gradients, result.buffers, result.batch) == (
        parameters,
        parameters,
        0,
        FLOATS,
    )
    assert (result.optimizer, result.score_memory, result.backward_passes) == (None, 0, 1)


def test_states_buffers_and_score_memory_are_beside_it() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    with track_memory(model, optimizer=optimizer) as m:
        squares(model).backward()
        optimizer.step()
        optimizer.zero_grad()
    parameters = sum(4 * p.numel() for p in model.parameters())
    assert m.result.gradients == parameters  # of the backward pass, though they are gone
    assert m.result.optimizer == 2 * parameters + 4 * 6  # and a count for each of six tensors
    assert m.result.buffers == 2 * 4 * WIDTH + 8
    t5 = tiny_t5()
    approximate_(t5, SPEC, min_elements=0, scores="by-position")
    for _ in range(2):  # it is learnt in a backward pass, and entered by the next forward pass
        m = step(t5, lambda model: model(**t5_batch()).loss)
    memory = gradient_norms_of(t5)
    assert memory is not None
    assert m.result.score_memory == memory.nbytes > 0


class Drawn(nn.Module):
    """A network of drawn steps about one stream of activations."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps = steps
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=number % 2 == 0) for number in range(4))
        self.layers[3].weight = self.layers[1].weight
        self.norm, self.relu = nn.LayerNorm(WIDTH), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h, before = x * 1, x
        for kind, number in self.steps:
            layer = self.layers[number]
            if kind == "linear":
                before, h = h, layer(h)
            elif kind == "shared":
                before, h = h, layer(h) + self.layers[number - 1](h)
            elif kind == "part":
                h = torch.cat([layer(h[:5]), h[5:]])
            elif kind == "transposed":
                h = F.linear(h.t(), layer.weight[:ROWS, :ROWS]).t().contiguous()
            elif kind == "residual":
                h = h + before
            elif kind == "inplace":
                h = self.relu(layer(h))
            elif kind == "norm":
                h = self.norm(h)
            elif kind == "product":
                h = h * before.detach() * h
            elif kind == "function":
                h = Held.apply(h, number)
            else:
                h = getattr(torch, kind)(h)
        return h + self.layers[0](h)


class Held(torch.autograd.Function):
    """x², which keeps x by the means that autograd knows, or as an attribute that it does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, number: int) -> Tensor:
        if number % 2:
            ctx.save_for_backward(x)
        else:
            ctx.own = [x.clone()]
        return x * x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        (x,) = ctx.saved_tensors or ctx.own
        return 2 * x * dy, None


KINDS = ("linear", "shared", "part", "transposed", "residual", "inplace", "norm", "product", "function")
KINDS += ("relu", "tanh", "sin", "sigmoid")


@given(
    steps=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), min_size=1, max_size=8),
    spec=st.sampled_from([None, SPEC, "quantized_rows(rows=wta_crs(budget=0.5), bits=8)"]),
    bf16=st.booleans(),
    outside=st.booleans(),
)
def test_any_network_keeps_what_a_walk_over_its_graph_finds(
    steps: list[tuple[str, int]], spec: str | None, bf16: bool, outside: bool
) -> None:
    model, x = Drawn(steps), rows()

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = model(x)
            return (F.mse_loss(torch.softmax(y.float(), -1), x) if outside else y).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if spec is not None:
            approximate_(model, spec, min_elements=0)
        loss = run()
        beside = (x, *model.parameters(), *model.buffers())
        expected = sorted(size for size in walked(loss, *beside).values() if size)
        del loss
        with track_memory(model) as m:
            run().backward()
    assert sorted(entry.bytes for entry in m.storages) == expected
    by: By
    for by in ("module", "pattern", "operation", "type"):
        shared = shared_bytes(m.storages, by)
        assert sum(entry.alone for entry in m.by(by)) + shared == m.kept == sum(expected)
        for entry in m.by(by):
            names = {"operation": {"operation": entry.name}, "type": {"type": entry.name}}.get(by)
            if names is not None:
                assert m.freed_by(**names) == entry.alone
    assert not {owner.operation for entry in m.storages for owner in entry.owners} & {NOT_RUN}


def checkpointed_t5(*, reentrant: bool) -> nn.Module:
    model = tiny_t5(dropout=0.1)
    model.config.use_cache = False
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "T5": (lambda: tiny_t5(dropout=0.1), t5_batch),
    "BERT": (tiny_bert, bert_batch),
    "LoRA": (lambda: with_lora(tiny_bert(), 0.1), bert_batch),
    "checkpointing": (lambda: checkpointed_t5(reentrant=False), t5_batch),
    "reentrant checkpointing": (lambda: checkpointed_t5(reentrant=True), t5_batch),
}


@pytest.mark.parametrize("spec", [None, SPEC])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_models_keep_what_is_measured_without_names(name: str, bf16: bool, spec: str | None) -> None:
    """`KeptBytesProbe` counts the same storages; a walk finds them too where no block is recomputed."""
    build, batch_of = MODELS[name]
    model, batch = build(), batch_of()
    if spec is not None:
        approximate_(model, spec, min_elements=0)

    def run(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(**batch).loss

    probe = KeptBytesProbe(model)
    run(model).backward()
    assert probe.found is not None
    m = step(model, run)
    assert m.kept == probe.found.kept > 0
    if "checkpointing" not in name:
        assert m.kept == sum(walked(run(model), *batch.values(), *model.parameters(), *model.buffers()).values())
    types = {owner.type for entry in m.storages for owner in entry.owners}
    assert (CASTS in types) == bf16
    assert not any("Approx" in name for name in types)
    if "checkpointing" in name:
        blocks = {entry.name: entry for entry in m.by("operation")}
        assert blocks[CHECKPOINT].alone > 0


def test_a_block_that_is_recomputed_holds_its_input_alone() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = mlp(nn.GELU), mlp(nn.GELU)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.second, self.first(x), use_reentrant=False)

    m = step(Blocks(), lambda model: model(rows()).sum())
    assert m.owners("second") == []
    assert m.freed_by(MODEL) == FLOATS


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_and_random_numbers_are_those_of_a_run_without_it(reentrant: bool) -> None:
    gradients, states = [], []
    for tracking in (True, False):
        model = checkpointed_t5(reentrant=reentrant)
        approximate_(model, SPEC, min_elements=0)
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        torch.manual_seed(3)
        if tracking:
            step(model, lambda model: model(**t5_batch()).loss)
        else:
            model(**t5_batch()).loss.backward()
        assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        states.append(torch.get_rng_state())
    other = {name for name in gradients[0] if not torch.equal(gradients[0][name], gradients[1][name])}
    # recomputed blocks read one source: each draws its own rows under hooks
    assert other <= (
        {f"decoder.block.0.layer.1.EncDecAttention.{kv}.weight" for kv in "kv"} if not reentrant else set()
    )
    assert torch.equal(*states)
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def test_a_tensor_changed_in_place_is_an_error_as_it_is_without() -> None:
    def wrong(model: nn.Module) -> Tensor:
        y = model(rows()).exp()
        loss = y.sum()
        y.mul_(2)
        return loss

    told = "modified by an inplace operation"
    with pytest.raises(RuntimeError, match=told):
        wrong(mlp()).backward()
    with pytest.raises(RuntimeError, match=told), track_memory(mlp()):
        wrong(mlp()).backward()


def test_of_several_backward_passes_the_one_with_most_is_told() -> None:
    model = mlp()
    with track_memory(model) as m:
        squares(model).backward()
        (squares(model) + model(rows(1)).square().sum()).backward()
        squares(model).backward()
    assert (m.kept, m.result.backward_passes, m.result.batch) == (6 * FLOATS, 3, 2 * FLOATS)
    one = step(model, squares)
    held = []
    with track_memory(model) as m:
        for seed in range(3):  # accumulation; what has run is freed, though its outputs are still at hand
            held.append(model(rows(seed)))
            held[-1].square().sum().backward()
    assert (m.kept, m.result.backward_passes) == (one.kept, 3)


def test_a_long_loop_does_not_pile_up_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    once = step(model, squares).by("operation")
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    with track_memory(model) as m:
        for _ in range(5):
            squares(model).backward()
        ledger = m._ledger
        assert ledger is not None
        assert len(ledger._operations) <= 20
        assert len(ledger._starts[0]) <= 30
    assert m.by("operation") == once


def test_a_graph_that_waits_is_kept_and_told_as_not_run() -> None:
    model = mlp()
    with track_memory(model) as m:
        waiting = model(rows(1)).square().sum()
        squares(model).backward()
    assert m.kept == 6 * FLOATS
    unknown = [entry for entry in m.storages if NOT_RUN in {owner.operation for owner in entry.owners}]
    assert [owner.module for entry in unknown for owner in entry.owners] == [OUTSIDE]  # the model's are known
    assert waiting.requires_grad


def test_a_second_derivative_keeps_the_graph_of_the_first() -> None:
    model = mlp(nn.Tanh)
    x = rows().requires_grad_()
    with track_memory(model) as m:
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()
    assert m.result.backward_passes == 2
    assert m.kept > step(model, squares).kept


def test_errors_in_the_block_come_through_and_leave_no_hook() -> None:
    model = mlp()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), track_memory(model) as m:
        model(torch.ones(3, WIDTH + 1))
    assert "no backward pass" in str(m.reason)

    def fail(*_: Any) -> None:
        raise KeyError("mine")

    def run_and_fail(model: nn.Module) -> None:
        squares(model).backward()
        fail()

    with pytest.raises(KeyError, match="mine"), track_memory(model) as m:
        run_and_fail(model)
    assert m.kept == 3 * FLOATS
    model[0].weight.register_hook(fail)
    with pytest.raises(KeyError, match="mine"), track_memory(model) as m:
        squares(model).backward()
    assert m.kept == 3 * FLOATS
    assert not [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def test_without_a_backward_pass_there_is_a_reason() -> None:
    model = mlp()
    with track_memory(model) as m:
        loss = squares(model)
    loss.backward()
    assert "no backward pass has begun in the block" in str(m.reason)
    with pytest.raises(InputError, match="track_memory: no backward pass"):
        _ = m.kept
    with track_memory(model) as m, torch.no_grad():
        squares(model)
    assert m.reason is not None


def test_blocks_do_not_nest_and_are_used_once() -> None:
    model = mlp()
    with track_memory(model) as m:
        with pytest.raises(InputError, match="a block is under way"), track_memory(mlp()):
            pass
        squares(model).backward()
    assert m.kept == 3 * FLOATS
    with pytest.raises(InputError, match="has been used"), m:
        pass
    with pytest.raises(InputError, match="model=str"):
        track_memory("model")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="optimizer=int"):
        track_memory(model, optimizer=3)  # type: ignore[arg-type]


class Hooked(nn.Module):
    """A block under hooks of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.block = mlp()

    def forward(self, x: Tensor) -> Tensor:
        with doubled():
            return self.block(x)


def doubled() -> torch.autograd.graph.saved_tensors_hooks:
    return torch.autograd.graph.saved_tensors_hooks(lambda x: x.double(), lambda kept: kept.float())


def test_hooks_of_the_user_work_and_are_told() -> None:
    for model, around in ((mlp(), doubled()), (Hooked(), torch.enable_grad())):
        gradients = []
        for tracking in (True, False):
            model.zero_grad()
            with around:
                if tracking:
                    with track_memory(model) as m:
                        squares(model).backward()
                else:
                    squares(model).backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        assert "doubled.<locals>" in str(m.reason)
        with pytest.raises(InputError, match="alone know what they keep"):
            m.table()
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_compiled_part_is_told() -> None:
    model = mlp()
    model[2].compile(backend="eager")
    with track_memory(model) as m:
        squares(model).backward()
    assert m.reason == "the model, or a part of it, is compiled"


def test_another_thread_on_the_model_is_left_out() -> None:
    model = mlp()
    others = []

    def run_beside(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not others:
            others.append(threading.Thread(target=lambda: squares(model).backward()))
            others[0].start()
            others[0].join()

    model[4].register_forward_pre_hook(run_beside)
    m = step(model, squares)
    assert others
    assert (m.kept, m.result.backward_passes) == (3 * FLOATS, 1)


def test_a_backward_pass_in_another_thread_names_the_operations_too() -> None:
    """As on CUDA, whose backward passes run in threads of the devices."""
    model = mlp()
    with track_memory(model) as m:
        loss = squares(model)
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    assert m.by("operation") == step(model, squares).by("operation")
    assert m.result.gradients == m.result.parameters


@pytest.mark.cuda
def test_the_peak_of_the_allocator_stands_beside_it() -> None:
    model = mlp().cuda()
    with track_memory(model) as m:
        model(rows().cuda()).square().sum().backward()
    result = m.result
    assert m.kept == 3 * FLOATS
    assert {owner.operation for entry in m.storages for owner in entry.owners}.isdisjoint({NOT_RUN})
    assert result.device_peak is not None
    assert result.device_before is not None
    assert result.device_peak >= result.device_before + m.kept
    assert result.device_before >= result.parameters


def test_copies_that_several_layers_share_have_all_of_them_as_owners() -> None:
    model = tiny_t5()
    approximate_(model, SPEC, min_elements=0)
    m = step(model, lambda model: model(**t5_batch()).loss)
    attention = "encoder.block.0.layer.0.SelfAttention"
    holders = [{owner.module for owner in entry.owners} for entry in m.owners(f"{attention}.q")]
    assert {f"{attention}.{name}" for name in "qkv"} in holders
    assert m.freed_by(f"{attention}.q") == 0
    assert m.freed_by(f"{attention}.[qkv]") > 0
    assert m.freed_by("encoder.block.0") >= m.freed_by(attention) > m.freed_by(f"{attention}.[qkv]")


def test_a_name_that_the_model_lacks_is_refused() -> None:
    m = step(mlp(), squares)
    assert (m.owners("0"), m.freed_by("0")) == ([], 0)  # the batch is the caller's
    with pytest.raises(InputError, match="pattern='encoder' fits none of the 6 modules"):
        m.freed_by("encoder")
    with pytest.raises(InputError, match="pattern=3"):
        m.owners(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="by='name' must be one of module, pattern, operation, type"):
        m.by("name")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rows=0"):
        m.table(rows=0)


def test_the_table_fits_100_columns_and_adds_up() -> None:
    model = tiny_t5(dropout=0.1)
    m = step(model, lambda model: model(**t5_batch()).loss)
    for by, rows_shown in (("module", 10), ("pattern", 60), ("operation", 10), ("type", 10)):
        console = Console(width=100, file=io.StringIO())
        table = m.table(by, rows=rows_shown)
        console.print(table)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= 100
        assert "all" in lines[-2]
        shares = [float(share) for line in lines for share in re.findall(r"([\d.]+)%", line)]
        shown = shares[: min(rows_shown, len(m.by(by)))]
        assert shown == sorted(shown, reverse=True)
        assert abs(shares[-3] + shares[-2] - shares[-1]) < 0.11
        assert shares[-1] == 100.0
