"""Captured activations: what the backward pass really saw, on disk once, read lazily, refused when unusable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from support.models import bert_batch, t5_batch, tiny_bert, tiny_t5
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from wtacrs.estimators import InputError
from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.measure.capture import capture
from wtacrs.integration.measure.coverage import coverage
from wtacrs.validation.layers.captures import Captures, LayerCapture, load_captures, write_captures


@pytest.fixture(scope="module")
def t5_captures(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    return capture(tiny_t5(), [t5_batch(), t5_batch(8, 8)], tmp_path_factory.mktemp("c") / "t5.safetensors")


def test_the_pair_gives_the_layers_gradient(t5_captures: Captures) -> None:
    model = tiny_t5()
    model(**t5_batch()).loss.backward()
    for entry in t5_captures:
        layer, _, batch = entry.partition("#")
        if batch == "0" and layer != "lm_head":  # the output's weight is tied to the embedding
            pair = t5_captures[entry]
            torch.testing.assert_close(
                pair.dy.T @ pair.x, model.get_submodule(layer).weight.grad, atol=1e-6, rtol=1e-4
            )


def test_every_layer_and_batch_in_order_with_its_mask(t5_captures: Captures) -> None:
    model = tiny_t5()
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert sorted(t5_captures.layers) == sorted(linears)
    assert len(t5_captures) == 2 * len(linears)
    encoder = t5_captures["encoder.block.0.layer.1.DenseReluDense.wi#0"]
    assert encoder.mask.tolist() == t5_batch()["attention_mask"].bool().flatten().tolist()
    decoder = t5_captures["decoder.block.0.layer.2.DenseReluDense.wi#0"]
    assert decoder.mask.tolist() == (t5_batch()["labels"] != -100).flatten().tolist()
    assert (encoder.dy[~encoder.mask] == 0).all()
    assert (decoder.dy[~decoder.mask] == 0).all()


def test_a_shared_input_is_stored_once(t5_captures: Captures) -> None:
    q, k, v = (t5_captures[f"encoder.block.0.layer.0.SelfAttention.{name}#0"] for name in "qkv")
    assert q.names["x"] == k.names["x"] == v.names["x"]
    assert len({q.names["dy"], k.names["dy"], v.names["dy"]}) == 3
    assert t5_captures["encoder.block.1.layer.0.SelfAttention.q#0"].names["x"] != q.names["x"]


def test_capturing_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = tiny_bert()
    before = {name: p.clone() for name, p in model.named_parameters()}
    capture(model, [bert_batch()], tmp_path / "bert.safetensors")
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.training


def test_a_converted_model_is_captured_alike(tmp_path: Path, t5_captures: Captures) -> None:
    model = tiny_t5()
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0)
    found = capture(
        model, [t5_batch()], tmp_path / "t5.safetensors", filter_fn=lambda _, name: name.endswith("wo")
    )
    assert len(found) == 4
    for entry in found:
        assert torch.equal(found[entry].x, t5_captures[entry].x)
        assert torch.equal(found[entry].mask, t5_captures[entry].mask)


def test_a_layer_called_twice_is_two_entries(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x).relu()).square().sum()

    model = Twice()
    found = capture(model, [{"x": torch.randn(5, 4)}], tmp_path / "c.safetensors", loss_fn=lambda output: output)
    assert list(found) == ["layer#0", "layer@1#0"]


def test_metadata_and_progress(tmp_path: Path) -> None:
    done: list[int] = []
    found = capture(
        tiny_bert(), [bert_batch()] * 2, tmp_path / "c.safetensors", metadata={"task": "t"}, progress=done.append
    )
    assert found.metadata == {"model": "BertForSequenceClassification", "task": "t"}
    assert done == [1, 2]


class PooledOverPadding(nn.Module):
    """Averages all positions, padding included: its mask lies."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean(1).square().sum()


def test_a_mask_that_lies_is_told_and_every_row_counts(tmp_path: Path) -> None:
    """Once for all batches, with the share of ‖dY‖²: y_i is the same in 5 rows of each example, 2 of them masked."""
    model, path = PooledOverPadding(), tmp_path / "c.safetensors"
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    batch = {"x": torch.randn(2, 1, 4).expand(2, 5, 4).contiguous(), "attention_mask": mask}
    with pytest.warns(UserWarning, match="mask calls padding") as told:
        found = capture(model, [batch] * 2, path, loss_fn=lambda output: output)
    assert len(told) == 1
    assert "1 layer (share of ‖dY‖²: layer " in str(told[0].message)
    y = model.layer(batch["x"][:, 0]).square().sum(1).detach()
    share = float(2 * y[0] / (5 * y.sum()))
    assert found.metadata["masked_gradient"] == {"layer": pytest.approx(share, rel=1e-5)}
    assert list(found) == ["layer#0", "layer#1"]
    assert all(bool(found[entry].mask.all()) for entry in found)


def test_only_entries_with_a_gradient_at_padding_lose_their_mask(tmp_path: Path) -> None:
    rows = bert_batch()
    found = capture(tiny_bert(), [rows], tmp_path / "right.safetensors")
    assert "masked_gradient" not in found.metadata
    assert sum(int((~found[entry].mask).sum()) for entry in found) == 6 * 12
    rows["attention_mask"] = rows["attention_mask"].flip(1)  # the pooler reads the first position
    with pytest.warns(UserWarning, match="mask calls padding"):
        found = capture(tiny_bert(), [rows], tmp_path / "left.safetensors")
    misled = found.metadata["masked_gradient"]
    for entry in found:
        layer = entry.removesuffix("#0")
        whole = layer in misled or "pooler" in layer or layer == "classifier"
        assert bool(found[entry].mask.all()) == whole, layer
    assert "bert.encoder.layer.0.attention.self.query" in misled


def test_what_cannot_be_captured(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match="there is no batch"):
        capture(tiny_bert(), [], path)
    with pytest.raises(InputError, match="that filter_fn accepts"):
        capture(tiny_bert(), [bert_batch()], path, filter_fn=lambda layer, name: False)
    unlabelled = {key: value for key, value in bert_batch().items() if key != "labels"}
    with pytest.raises(InputError, match="pass labels in the batches, or loss_fn"):
        capture(tiny_bert(), [unlabelled], path)
    with pytest.raises(InputError, match="or no layer needs a gradient"):
        capture(tiny_bert().requires_grad_(False), [bert_batch()], path)
    broken = tiny_bert()
    with torch.no_grad():
        broken.classifier.weight.fill_(float("inf"))
    with pytest.raises(InputError, match="NaN or infinite"):
        capture(broken, [bert_batch()], path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": 3}, "batches=3 must be a list, or the like, of mappings, one per batch"),
        ({"batches": {"input_ids": 1}}, r"batches={'input_ids': 1} must be a list"),
        ({"batches": ["text"]}, r"batches\[0\]='text' must be a mapping"),
        ({"path": 3}, "path=3 must name a file"),
        ({"path": "."}, r"path='\.' must name a file"),
        ({"earlier": "x"}, r"earlier='x' must be a torch\.nn\.Module"),
        ({"filter_fn": "0"}, "filter_fn='0' must be a function of a layer and its name, or None"),
        ({"loss_fn": 3}, "loss_fn=3 must be a function of the model's output, or None"),
        (
            {"loss_fn": lambda output: output.logits},
            r"loss_fn: gave shape \[3, 2\]; a tensor of one number is needed",
        ),
        ({"loss_fn": lambda output: 1.0}, "loss_fn: gave float"),
        ({"loss_fn": lambda output: output.loss.detach()}, "loss_fn: gave a tensor without a gradient"),
        ({"progress": True}, "progress=True must be a function of the number of batches done, or None"),
        (
            {"metadata": {"a": torch.zeros(9, 9)}},
            r"metadata={[^\n]* must be a mapping that JSON can hold: [^\n]*$",
        ),
        ({"metadata": 3}, "metadata=3 must be a mapping that JSON can hold"),
    ],
)
def test_an_argument_of_another_type_is_named(
    unchecked: None, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    usual = {"batches": [bert_batch()], "path": tmp_path / "c.safetensors"}
    with pytest.raises(InputError, match=message):
        capture(tiny_bert(), **(usual | changes))
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_captures(tmp_path: Path, t5_captures: Captures) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_captures(tmp_path / "missing.safetensors")
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(t5_captures.path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_captures(truncated)
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_captures(text)
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(2)}, other)
    with pytest.raises(InputError, match="not a file of captured activations"):
        load_captures(other)
    with pytest.raises(InputError, match="no layer to write"):
        write_captures(tmp_path / "empty.safetensors", {}, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_round_trip_keeps_dtypes_and_views_apart(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.randn(6, 8).to(dtype)
    layer = LayerCapture(whole[:, :4], whole[:, 4:], torch.tensor([True] * 5 + [False]))
    write_captures(tmp_path / "c.safetensors", {"a#0": layer, "b#0": dataclasses.replace(layer, dy=whole)}, {})
    found = load_captures(tmp_path / "c.safetensors")
    assert torch.equal(found["a#0"].x, whole[:, :4])
    assert torch.equal(found["a#0"].dy, whole[:, 4:])
    assert torch.equal(found["b#0"].dy, whole)
    assert found["b#0"].mask.tolist() == [True] * 5 + [False]


class ByKeyword(nn.Module):
    """Calls its layers by the names of their arguments, or by position."""

    def __init__(self, keyword: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.special = nn.Linear(4, 6), Conv1D(3, 6), Swapped(3, 2)
        self.keyword = keyword

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if self.keyword:
            x = self.second(x=self.first(input=x).relu())
            return self.special(scale=2.0, values=x) * attention_mask.unsqueeze(-1)
        return self.special(self.second(self.first(x).relu()), 2.0) * attention_mask.unsqueeze(-1)


class Swapped(nn.Linear):
    """A subclass whose input is called otherwise, and not the only argument."""

    def forward(self, values: torch.Tensor, scale: float) -> torch.Tensor:
        return super().forward(values) * scale


@pytest.mark.parametrize("converted", [False, True])
def test_layers_that_are_called_by_keyword(converted: bool, tmp_path: Path) -> None:
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, 3:] = 0
    batch = {"x": torch.randn(2, 5, 4), "attention_mask": mask}
    found = []
    for keyword in (False, True):
        model = ByKeyword(keyword)
        if converted:
            assert approximate_(model, "topk(budget=1.0)", min_elements=0) == ["first", "second"]
            model(**batch).square().sum().backward()
            assert model.first.weight.grad is not None
        path = tmp_path / f"{keyword}.safetensors"
        found.append(capture(model, [batch], path, loss_fn=lambda output: output.square().sum()))
    by_position, by_keyword = found
    assert list(by_keyword) == list(by_position) == ["first#0", "second#0", "special#0"]
    for entry in by_keyword:
        for part in ("x", "dy", "mask"):
            assert torch.equal(getattr(by_keyword[entry], part), getattr(by_position[entry], part))


@pytest.mark.parametrize("keyword", [False, True])
def test_coverage_knows_layers_that_are_called_by_keyword(keyword: bool) -> None:
    batch = {"x": torch.randn(2, 5, 4), "attention_mask": torch.ones(2, 5)}
    found = {entry.pattern: entry.reason for entry in coverage(ByKeyword(keyword), batch, min_elements=50)}
    assert found == {
        "first": "at most 40 numbers come in, fewer than min_elements=50",
        "second": "",
        "special": "a subclass of nn.Linear, whose own forward would be lost",
    }


def test_what_changes_an_output_in_place_leaves_its_gradient_alone(tmp_path: Path) -> None:
    """dY is by what the layer returned, and not by what an activation made of it."""

    class InPlace(nn.Module):
        def __init__(self, *, apart: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.apart = nn.Linear(4, 6), apart

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            y = y.clone() if self.apart else y
            y *= 3.0
            return torch.relu_(y).square().sum()

    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    there, apart = (
        capture(InPlace(apart=apart), [{"x": x}], tmp_path / f"{apart}.safetensors", loss_fn=lambda loss: loss)
        for apart in (False, True)
    )
    torch.testing.assert_close(there["layer#0"].dy, apart["layer#0"].dy)
