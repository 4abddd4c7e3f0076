"""Ways to take a step: what is measured is what it is said to be, and the command writes and shows it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cli import refused
from transformers import BertConfig, GPT2Config, T5Config

from wtacrs.estimators import InputError
from wtacrs.integration.cli import main
from wtacrs.integration.measure import text_windows as text_windows_module
from wtacrs.integration.measure.memory import step_memory
from wtacrs.integration.measure.step_ways import Subjects, gradient_noise, saving_parts, step_bytes, step_seconds
from wtacrs.integration.measure.text_windows import text_windows
from wtacrs.integration.models.published_sizes import model_from
from wtacrs.integration.studies.front import front_study
from wtacrs.integration.studies.step_ways import default_ways
from wtacrs.integration.tasks.loading import load_task
from wtacrs.validation.records.front import FrontResult, FrontRow, Way, front_sentences, pareto
from wtacrs.validation.records.results import load_result

VOCABULARY = 4096
CONFIGS = {
    "T5": T5Config(
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=VOCABULARY, decoder_start_token_id=0
    ),
    "BERT": BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCABULARY
    ),
    "GPT-2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=64),
}
SAMPLED = Way(estimator="wta_crs(budget=0.3)")


@pytest.fixture(scope="module", autouse=True)
def _one_vocabulary() -> Iterator[None]:
    """Trained once: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_windows_module, "task_tokenizer", cache(text_windows_module.task_tokenizer))
        yield


def subject(name: str = "T5") -> tuple[Any, list[dict[str, torch.Tensor]]]:
    config = CONFIGS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_from(config)
    target = 16 if name == "T5" else None
    batches = text_windows(
        model, load_task("docstrings"), batches=3, batch_size=16, length=24, target_length=target
    )
    return model, batches


@pytest.mark.parametrize("name", CONFIGS)
def test_windows_are_full_and_do_not_overlap(name: str) -> None:
    """Every label counts: an answer follows its input, a decoder writes its input, a classifier gets classes."""
    model, batches = subject(name)
    rows = torch.cat([batch["input_ids"] for batch in batches])
    assert rows.shape == (48, 24)
    assert len({tuple(row.tolist()) for row in rows}) == 48
    for batch in batches:
        assert bool(batch["attention_mask"].all())
        assert {"T5": (16, 16), "BERT": (16,), "GPT-2": (16, 24)}[name] == tuple(batch["labels"].shape)
        assert int(batch["labels"].min()) >= 0
    assert name != "GPT-2" or torch.equal(batches[0]["labels"], batches[0]["input_ids"])
    with pytest.raises(InputError, match="batch_size=100000 windows need"):
        text_windows(model, load_task("docstrings"), batches=3, batch_size=100_000, length=24, target_length=None)


def test_bytes_are_those_of_step_memory_and_the_model_is_stock_again() -> None:
    """In every way that both can take."""
    model, (batch, *_) = subject()
    kinds = [type(module) for module in model.modules()]
    subjects = Subjects(model)
    for way in (Way(), SAMPLED, Way(lean="attention,head"), Way(checkpointing=True)):
        model.set_attn_implementation("eager")
        known = step_memory(
            model,
            batch,
            estimator=way.estimator,
            lean=way.lean,
            checkpointing=way.checkpointing,
        )
        model.train()
        found = step_bytes(subjects, way, batch)
        assert (found.kept, found.peak) == (known.total, known.peak)
        assert [type(module) for module in model.modules()] == kinds
    assert step_bytes(subjects, Way(attention="sdpa"), batch).kept > 0
    assert model.config._attn_implementation == "sdpa"


def test_adapters_have_a_model_of_their_own() -> None:
    """Which trains them alone, and has B that is not zero, without which A has neither gradient nor noise."""
    model, batches = subject()
    with Subjects(model).taken(Way(lora_rank=2)) as adapted:
        trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
        assert trained
        assert all("lora" in name for name in trained)
        assert all(bool(parameter.any()) for parameter in trained.values())
    assert not any("lora" in name for name, _ in model.named_parameters())
    (noise,) = gradient_noise(
        Subjects(model), [Way(lora_rank=2, estimator="crs(budget=0.3)")], batches, draws=2, seed=0
    )
    assert noise is not None
    assert noise > 1e-3


def test_noise_is_zero_for_exact_ways_and_falls_with_the_budget() -> None:
    """The same dropout masks in all steps: what is left is the estimator's; a compiler's masks are its own."""
    model, batches = subject()
    ways = [
        Way(),
        Way(lean="attention,head"),
        Way(checkpointing=True),
        *(
            Way(estimator=f"uniform(budget={budget})", lean=lean)
            for budget in (0.1, 0.5)
            for lean in (None, "head")
        ),
        Way(memory_budget=0.5),
    ]
    found = gradient_noise(Subjects(model), ways, batches, draws=4, seed=0)
    assert found[:3] == [0.0, 0.0, 0.0]
    assert found[-1] is None
    few, few_lean, many, many_lean = (float(noise or 0.0) for noise in found[3:7])
    assert few > 2 * many > 0
    assert few_lean > 2 * many_lean > 0


def test_noise_of_all_rows_is_rounding() -> None:
    """Of ways that are measured like estimated ones: gradients and masks are the very same."""
    model, batches = subject()
    for lean in (None, "attention,head", "attention,head,quick-dropout"):
        (noise,) = gradient_noise(
            Subjects(model), [Way(estimator="wta_crs(budget=1.0)", lean=lean)], batches, draws=2, seed=0
        )
        assert noise is not None
        assert noise < 1e-9


def test_seconds_have_an_entry_for_every_round() -> None:
    model, (batch, *_) = subject()
    found = step_seconds(Subjects(model), [Way(), SAMPLED], batch, rounds=2)
    assert [len(one) for one in found] == [2, 2]
    assert all(second > 0 for one in found for second in one)


def test_the_saving_is_decomposed_from_stock_to_the_leanest() -> None:
    model, (batch, *_) = subject()
    found = saving_parts(Subjects(model), "wta_crs(budget=0.1)", batch)
    names = [name for name, _ in found]
    assert names[0] == "stock"
    assert names[-1] == "output layer again"
    sizes = {name: size.kept for name, size in found}
    neighbours = [sizes[name] for name in names[: names.index("attention") + 1]]
    assert all(before >= after for before, after in pairwise(neighbours))
    assert sizes["output layer again"] < 0.5 * sizes["stock"]


def test_what_is_not_beaten() -> None:
    """Memory, time and noise together; a way without a known noise beats nobody."""

    def row(kept: int, ratio: float, noise: float | None) -> FrontRow:
        return FrontRow(way=Way(), kept=kept, peak=kept, seconds=1.0, ratio=ratio, noise=noise)

    rows = [row(10, 1.0, 0.0), row(10, 1.1, 0.0), row(5, 1.2, 0.0), row(5, 0.9, 0.1), row(5, 0.9, None)]
    assert pareto(rows) == [rows[0], rows[2], rows[3]]
    assert pareto([rows[0], rows[0]]) == [rows[0], rows[0]]


def test_names_of_ways() -> None:
    assert Way().name == "stock eager"
    assert Way(attention="sdpa").name == "stock sdpa"
    assert Way(lean="attention", lora_rank=4).name == "lean attention + LoRA 4"
    assert Way(memory_budget=0.3).name == "stock eager + compiled, memory budget 0.3"
    names = [way.name for way in default_ways()]
    assert len(set(names)) == len(names)


def test_the_command_writes_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CONFIGS["GPT-2"].save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    options = ["--layers", 1, "--batch-size", 2, "--length", 16, "--rounds", 1, "--batches", 2, "--draws", 1]
    threads = ["--threads", torch.get_num_threads()]
    arguments = ["study", "front", "--model", tmp_path / "model", "--out", out, *options, *threads]
    assert main([str(a) for a in arguments]) == 0
    result = load_result(out / "front.json")
    assert isinstance(result, FrontResult)
    assert (result.layers, result.batch_size, result.length, result.target_length) == (1, 2, 16, None)
    assert [row.way.name for row in result.rows] == [way.name for way in default_ways()]
    assert result.rows[0].ratio == 1.0
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("front.png", "saving.png"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "stock eager" in shown
    assert next(front_sentences(result)).split(":")[0] in shown


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (["--model", "t5-bas"], "did you mean t5-base"),
        (["--dropout", "1"], "dropout=1.0 must be in [0, 1)"),
        (["--precision", "fp8"], "precision='fp8'"),
        (["--model", "bert-base", "--target-length", "8"], "has no decoder of its own"),
        (["--device", "abacus"], "--device 'abacus' cannot be used"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], fragment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fragment in refused(capsys, "study", "front", "--out", str(tmp_path / "out"), *options)


def test_other_numbers_are_refused_by_name(tmp_path: Path) -> None:
    for name, value in (("rounds", 0), ("batches", 1), ("draws", 0), ("layers", 0)):
        with pytest.raises(InputError, match=f"{name}={value}"):
            front_study("t5-small", tmp_path, **{name: value})
