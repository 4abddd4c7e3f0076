"""The benchmark's result and figures, with Gaussian problems, captured layers and a whole step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.captures import capture

from wtacrs.estimators import InputError
from wtacrs.integration.measure.simulation.step import Shape, example_batch
from wtacrs.integration.studies import bench as study
from wtacrs.integration.studies import front
from wtacrs.integration.studies.bench import StepShape, bench_study, sizes_from
from wtacrs.validation.benchmarks.bench import entry_from
from wtacrs.validation.benchmarks.roofline import measure_roofs
from wtacrs.validation.layers.captures import LayerCapture, load_captures, write_captures
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.results import load_result

TOKENS = ("input_ids", "labels")
SMALL = [(64, 32, 16), (48, 16, 8)]
ENTRIES = [entry_from("exact"), entry_from("crs(budget=0.3)"), entry_from("recommended at 0.3", "oracle")]


@pytest.fixture(autouse=True)
def _small_roofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        study, "measure_roofs", lambda names, device: measure_roofs(names, device, rounds=1, side=32, copied=4096)
    )


def test_the_result_comes_back_and_is_drawn(tmp_path: Path) -> None:
    result = bench_study(ENTRIES, tmp_path, sizes=SMALL, precision="bf16", rounds=2, draws=3)
    again: Result = load_result(tmp_path / "bench.json")
    assert again == result
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert not (tmp_path / "bench_step.png").exists()
    assert [(row.n, row.d, row.m) for row in result.rows] == [size for size in SMALL for _ in ENTRIES]
    assert [row.scores for row in result.rows[:3]] == ["row-norms", "row-norms", "oracle"]
    assert result.stamp.device == "cpu"
    assert result.stamp.threads == torch.get_num_threads()


def test_captured_layers_take_the_place_of_gaussian_ones(tmp_path: Path) -> None:
    dead = LayerCapture(torch.ones(4, 2), torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
    layers = {"a#0": capture(0, 40, 16, 8), "b#0": capture(1, 40, 16, 8), "dead#0": dead}
    opened = load_captures(write_captures(tmp_path / "c.safetensors", layers, {"model": "m"}))
    skipped: list[str] = []
    result = bench_study(
        ENTRIES[:2],
        tmp_path / "out",
        captures=opened,
        rounds=1,
        draws=3,
        skipped=lambda name, _: skipped.append(name),
    )
    assert [row.layer for row in result.rows] == ["a#0", "a#0", "b#0", "b#0"]
    assert {row.n for row in result.rows} == {30}  # a fourth is padding
    assert skipped == ["dead#0"]
    assert result.stamp.inputs["model"] == "m"
    one = bench_study(ENTRIES[:1], tmp_path / "one", captures=opened, layers=["b*"], rounds=1, draws=3)
    assert [row.layer for row in one.rows] == ["b#0"]
    with pytest.raises(InputError, match="fits none of the 3 captured layers"):
        bench_study(ENTRIES, tmp_path, captures=opened, layers=["z*"])


def test_the_whole_step_is_measured_with_the_same_estimators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.T5Config(
        d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=1024, decoder_start_token_id=0
    ).save_pretrained(tmp_path / "model")
    shape = StepShape(
        str(tmp_path / "model"),
        layers=1,
        batch_size=16,
        length=16,
        target_length=8,
        batches=2,
        draws=1,
        lean="head",
    )

    def random_batches(model: Any, *_: Any, batches: int, **__: Any) -> list[dict[str, torch.Tensor]]:
        found = example_batch(model, Shape(16, 16, 8))
        generator = torch.Generator().manual_seed(0)
        return [
            found | {name: torch.randint(2, 1024, found[name].shape, generator=generator) for name in TOKENS}
            for _ in range(batches)
        ]

    # real text needs a tokenizer, which takes its time to train
    monkeypatch.setattr(front, "text_windows", random_batches)
    monkeypatch.setattr(front, "load_task", lambda name: name)
    entries = [*ENTRIES, entry_from("recommended at 0.3")]
    entries.append(entry_from("crs at 0.0001"))
    left_out: list[str] = []
    result = bench_study(
        entries,
        tmp_path,
        sizes=SMALL[1:],
        rounds=1,
        draws=3,
        step=shape,
        skipped=lambda _, why: left_out.append(why),
    )
    assert [why.partition(":")[0] for why in left_out] == [
        "crs at 0.0001 on 48 x 16 x 8",
        "crs at 0.0001 on the step",
    ]
    assert result.step is not None
    stock, checkpointed, *sampled = result.step.rows
    assert checkpointed.way.checkpointing
    names = [row.way.estimator for row in sampled[:2]]
    assert [(row.way.lean, row.way.estimator) for row in sampled[2:]] == [
        ("head", name) for name in ("exact", *names)
    ]
    assert names[0] == "crs(budget=0.3)"
    assert names[1].startswith("dithered_rows(slots=2.")  # a row, of two bits each
    assert all(row.kept < stock.kept and row.noise for row in sampled[:2])
    assert load_result(tmp_path / "bench.json") == result
    assert (tmp_path / "bench_step.png").exists()


def test_sizes() -> None:
    assert sizes_from("64x8x4, 1x1x1") == [(64, 8, 4), (1, 1, 1)]
    for text in ("64x8", "64x8x0", "64x8x-4", "axbxc", "", "64x8x4,"):
        with pytest.raises(InputError, match="must be N x D x M"):
            sizes_from(text)


def test_arguments_that_cannot_be_used(tmp_path: Path) -> None:
    for options, fragment in (
        ({"rounds": 0}, "rounds=0"),
        ({"draws": 2}, "draws=2"),
        ({"precision": "int8"}, "precision='int8' must be one of fp64, fp32, bf16, fp16"),
        ({"precision": "fp16", "step": StepShape()}, "a training step is measured in fp32 or bf16"),
        ({"step": StepShape("t5-bse")}, "did you mean t5-base"),
        ({"step": StepShape(min_rows=-1)}, "min_rows=-1"),
        ({"layers": ["a*"]}, "name a captured file"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(InputError, match=fragment):
            bench_study(ENTRIES, tmp_path, sizes=SMALL, **options)
    with pytest.raises(InputError, match="at least one"):
        bench_study([], tmp_path)
    assert not list(tmp_path.iterdir())
