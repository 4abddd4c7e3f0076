"""Two processes: the gradient of one, unbiased with an estimator, independent draws, and runs that go on as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from support.killed import KilledAt, wide
from support.levels import LEVEL
from support.models import t5_batch, tiny_t5
from support.processes import in_processes
from support.runs import CONFIG, NUMBERS, TASK, bert, same_weights, tiny, without_times
from support.saved_rows import saved_rows
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor, init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerBase

from wtacrs.estimators.core.errors import InputError
from wtacrs.integration.cli import main
from wtacrs.integration.context.draws import Draws
from wtacrs.integration.layers.convert import approximate_, restore_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.models.loading import small_t5, task_tokenizer
from wtacrs.integration.parallel.processes import Processes
from wtacrs.integration.training import loop as training
from wtacrs.integration.training.config import FinetuneConfig
from wtacrs.integration.training.run import finetune
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.statistics.significance import mean_test_from_projections

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

ALL_ROWS = "topk(budget=1.0)"
"""Keeps every row: the exact gradient by the way of an estimated one."""

# targets of different lengths, so that a mean over tokens is none over examples
LONG = replace(
    TASK,
    train=tuple(replace(e, target="coldandcoldagain" if e.target == "cold" else "warm") for e in TASK.train),
    labels=("warm", "coldandcoldagain"),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return task_tokenizer(TASK, 300)  # which has seen "cold" as a word, and "coldandcoldagain" never


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# --- a model of the user's own, wrapped by the user ---


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def shards(model: nn.Module, *kinds: str) -> nn.Module:
    mesh = init_device_mesh("cpu", (Processes.here().count,))
    for module in model.modules():
        if type(module).__name__.removeprefix("Approx") in kinds:
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).double()


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "ddp": ddp,
    "static ddp": lambda model: DistributedDataParallel(model, static_graph=True),
    "fsdp of the whole": shards,
    "fsdp of blocks": lambda model: shards(model, "T5Block"),
}


def wrapped_gradients() -> dict[str, Any]:
    """Gradients on a process's own third of a batch, by the way that the model was wrapped, and what became of it."""
    batch = t5_batch()
    batch = {key: value[Processes.here().rank :][:2] for key, value in batch.items()}
    found: dict[str, Any] = {}
    for name, wrap in WAYS.items():
        for first in (True, False):
            model = tiny_t5()
            if name == "ddp":
                model.gradient_checkpointing_enable({"use_reentrant": False})
            names = approximate_(model, ALL_ROWS, min_elements=0) if first else None
            model = wrap(model)
            names = names or approximate_(model, ALL_ROWS, min_elements=0)
            converted = {isinstance(m, ApproxLinear) for m in model.modules() if isinstance(m, nn.Linear)}
            model(**batch).loss.backward()
            gradients = {n.removeprefix("module."): whole(p.grad) for n, p in model.named_parameters()}
            restored = restore_(model)
            left = {isinstance(m, ApproxLinear) for m in model.modules() if isinstance(m, nn.Linear)}
            found[f"{name}, {first}"] = (gradients, names, converted, restored, left)
    return found


def test_converted_before_or_after_wrapping(tmp_path: Path) -> None:
    """Under DDP with activation checkpointing; the exact gradient is the mean of the two that one process computes."""
    exact: dict[str, Tensor] = {}
    for rank in range(2):
        model, batch = tiny_t5(), t5_batch()
        model(**{key: value[rank:][:2] for key, value in batch.items()}).loss.backward()
        for name, parameter in model.named_parameters():
            exact[name] = exact.get(name, 0.0) + parameter.grad / 2
    names = approximate_(tiny_t5(), ALL_ROWS)
    for found in in_processes(wrapped_gradients, tmp_path):
        assert len(found) == 2 * len(WAYS)
        for way, (gradients, converted, kinds, restored, left) in found.items():
            assert converted == restored == names, way
            assert (kinds, left) == ({True}, {False}), way
            assert set(gradients) == set(exact)
            for name, gradient in gradients.items():
                torch.testing.assert_close(gradient, exact[name], atol=1e-6, rtol=1e-5, msg=f"{way}: {name}")


def sharded_class() -> list[Any]:
    model = mlp()
    fully_shard(model[0])
    before = type(model[0])
    names = approximate_(model, "crs(budget=0.5)", min_elements=0)
    kinds = [type(model[0]).__name__, isinstance(model[0], ApproxLinear), type(model[2]).__name__]
    return [names, *kinds, restore_(model), type(model[0]) is before, list(model.state_dict())]


def test_a_sharded_layer_stays_sharded(tmp_path: Path) -> None:
    for found in in_processes(sharded_class, tmp_path):
        assert found == [
            ["0", "2"], "FSDPApproxLinear", True, "ApproxLinear", ["0", "2"], True,
            ["0.weight", "0.bias", "2.weight", "2.bias"],
        ]  # fmt: skip


def tensor_parallel() -> str:
    mesh = init_device_mesh("cpu", (2,))
    layer = ApproxLinear(8, 4, estimator="crs(budget=0.5)", min_elements=0)
    layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh))
    with pytest.raises(InputError, match=r"weight \[4, 8\]: a DTensor within the layer") as caught:
        layer(distribute_tensor(torch.randn(6, 8), mesh, [Replicate()]))
    return str(caught.value)


def test_tensor_parallelism_is_refused(tmp_path: Path) -> None:
    one, two = in_processes(tensor_parallel, tmp_path)
    assert one == two
    assert "\n" not in one


# --- draws ---

DRAWS, DIRECTIONS = 300, 6
"""Two tests here, and one of compiled steps."""


def projections(spec: str, wrap: Callable[[nn.Module], nn.Module]) -> Tensor:
    """`[draws, layers × directions]`: (dW of the two processes together − exact) on fixed directions, by ‖dW‖."""
    rank = Processes.here().rank
    inputs = [torch.randn(12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (3, 4)]
    scale = torch.arange(1, 13, dtype=torch.float64)[:, None] / 6
    inputs = [x * scale for x in inputs]
    exact = mlp()
    sum(exact(x).square().mean() / 2 for x in inputs).backward()
    truth = [layer.weight.grad for layer in (exact[0], exact[2])]
    generator = torch.Generator().manual_seed(1)
    probes = [torch.randn(DIRECTIONS, *g.shape, generator=generator, dtype=torch.float64) for g in truth]
    probes = [torch.cat([p, g[None]]) for p, g in zip(probes, truth, strict=True)]
    probes = [p / p.flatten(1).norm(dim=1)[:, None, None] for p in probes]
    model = mlp()
    approximate_(model, spec, min_elements=0)
    parallel = wrap(model)
    torch.manual_seed(0)  # alike in both
    found = []
    for _ in range(DRAWS):
        parallel.zero_grad()
        parallel(inputs[rank]).square().mean().backward()
        gradients = [whole(layer.weight.grad) for layer in (model[0], model[2])]
        triples = zip(probes, gradients, truth, strict=True)
        found.append(torch.cat([(p * (g - t)).flatten(1).sum(1) / t.norm() for p, g, t in triples]))
    return torch.stack(found)


def test_the_mean_gradient_of_two_processes_is_the_exact_one(tmp_path: Path) -> None:
    """Each estimates on its own half of the batch; top-k in their place is found out."""

    def work() -> list[Tensor]:
        sound = [projections("wta_crs(budget=0.4)", wrap) for wrap in (ddp, shards)]
        return [*sound, projections("topk(budget=0.4)", ddp)]

    ours, theirs = in_processes(work, tmp_path)
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))
    for sound in ours[:2]:
        test = mean_test_from_projections(sound, LEVEL, rounding=1e-12)
        assert not test.rejected, (test.p_value, test.effect)
    assert mean_test_from_projections(ours[2], 1e-8, rounding=1e-12).rejected


def kept_rows() -> list[list[int]]:
    """Rows that one layer keeps of one input in three forward passes."""
    torch.manual_seed(0)
    x = torch.randn(1, 64, 8)
    model = mlp().float()
    approximate_(model, "crs(budget=0.2)", filter_fn=lambda _, name: name == "0", min_elements=0)
    parallel = ddp(model)
    rows: list[list[int]] = []
    for _ in range(3):
        rows += [kept.tolist() for kept in saved_rows(lambda: parallel(x).sum().backward())]
    return rows


def test_processes_seeded_alike_draw_independently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = in_processes(kept_rows, tmp_path)
    assert len(one) == len(two) == 3
    assert len({tuple(rows) for rows in one + two}) == 6
    assert [one, two] == in_processes(kept_rows, tmp_path)

    def without_rank(draws: Draws) -> int:
        draws.passes += 1
        return draws.passes

    monkeypatch.setattr(Draws, "next_pass", without_rank)
    one, two = in_processes(kept_rows, tmp_path)
    assert one == two  # what the test above would find


def test_seeds_of_processes_differ_and_one_process_keeps_its_own() -> None:
    assert Processes().own_seed(7) == 7
    seeds = {Processes(rank, 8).own_seed(seed) for rank in range(8) for seed in range(50)}
    assert len(seeds) == 400


# --- runs ---


class Gradients:
    """An observer that keeps the gradients of every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor | None]] = []

    def started(self, model: nn.Module, step: int) -> None:
        self.model = model

    def gradients(self, step: int) -> None:
        named = self.model.named_parameters()
        self.seen.append({n: None if p.grad is None else whole(p.grad).clone() for n, p in named})

    def saving(self) -> None:
        pass


# batches of 31 and 1: the second process has no example in the second batch; and one step of several batches
UNEVEN = CONFIG.but(steps=2, batch_size=31, warmup=0.0)
SUMMED = CONFIG.but(steps=2, batch_size=5, accumulation=3, warmup=0.0)


def first_gradients(config: FinetuneConfig, tokenizer: PreTrainedTokenizerBase, **changes: Any) -> Any:
    observer = Gradients()
    model = tiny(tokenizer)
    model.extra = nn.Parameter(torch.ones(3))  # which no loss reaches
    result = finetune(config, LONG, model, tokenizer, observer=observer)
    assert not hasattr(model, "_ddp_params_and_buffers_to_ignore")
    return observer.seen, result.history[-1].train_loss


def difference(one: list[dict[str, Tensor | None]], two: list[dict[str, Tensor | None]]) -> float:
    worst = 0.0
    for ours, theirs in zip(one, two, strict=True):
        assert ours["extra"] is theirs["extra"] is None
        for name in ours.keys() - {"extra"}:
            a, b = ours[name], theirs[name]
            assert a is not None
            assert b is not None
            worst = max(worst, float((a - b).norm() / b.norm()))
    return worst


def test_two_processes_take_the_steps_of_one(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = (UNEVEN, SUMMED)

    def work() -> Any:
        return [first_gradients(config, tokenizer) for config in configs]

    expected = work()
    several = list(in_processes(work, tmp_path))
    configs = (UNEVEN.but(fsdp=True), SUMMED.but(fsdp=True))
    several += in_processes(work, tmp_path)
    for found in several:
        for (ours, loss), (theirs, other) in zip(found, expected, strict=True):
            assert difference(ours[:1], theirs[:1]) < 2e-6
            assert difference(ours, theirs) < 2e-5  # AdamW makes much of little in the first step
            assert loss == pytest.approx(other, rel=1e-5)
    monkeypatch.setattr(training, "counted", len)  # examples in place of tokens
    wrong = in_processes(work, tmp_path)[0]
    assert all(difference(ours, theirs) > 1e-3 for (ours, _), (theirs, _) in zip(wrong, expected, strict=True))


def test_what_a_step_keeps_is_that_of_the_first_process(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """With whole models and with pieces of them, whose gathered weights are not counted."""

    def work() -> Any:
        found = []
        for fsdp in (False, True):
            for estimator in (None, "crs(budget=0.1)"):
                model = small_t5(tokenizer, d_model=128, layers=1, heads=2, d_ff=64, dropout=0.1)
                config = CONFIG.but(steps=1, batch_size=32, estimator=estimator, fsdp=fsdp)
                result = finetune(config, TASK, model, tokenizer)
                found.append((result.kept_bytes, result.exact_bytes))
        return found

    exact, sampled, exact_pieces, sampled_pieces = in_processes(work, tmp_path)[0]
    assert exact == exact_pieces
    assert sampled == sampled_pieces
    assert exact[0] == exact[1] == sampled[1] > sampled[0]


def test_heads_are_trained_in_two_processes(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    cases = [(TASK, 2), (NUMBERS, 1)]

    def work() -> Any:
        found = []
        for task, outputs in cases:
            model = bert(tokenizer, outputs)
            model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            result = finetune(CONFIG.but(steps=3, batch_size=15), task, model, tokenizer)
            found.append((result.history[-1].train_loss, result.final, result.processes))
        return found

    expected = work()
    for found in in_processes(work, tmp_path):
        for ours, theirs in zip(found, expected, strict=True):
            assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
            assert ours[1] == pytest.approx(theirs[1], abs=5e-3)
            assert (ours[2], theirs[2]) == (2, 1)


RANDOM = CONFIG.but(
    steps=7, batch_size=12, accumulation=2, eval_every=2, save_every=3, clip=0.5, estimator="wta_crs(budget=0.2)"
)
"""With dropout, an estimator, accumulation and short last batches."""


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", weights_only=True)


@pytest.mark.parametrize("fsdp", [False, True])
def test_killed_and_resumed_in_two_processes(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, fsdp: bool
) -> None:
    def run(name: str, **changes: Any) -> Any:
        torch.manual_seed(os.getpid())  # what was drawn before does not matter
        model = wide(tokenizer)
        observer = KilledAt(changes.pop("kill", 99))
        result = finetune(
            RANDOM.but(out=tmp_path / name, fsdp=fsdp, **changes), TASK, model, tokenizer, observer=observer
        )
        return result, {key: whole(value) for key, value in model.state_dict().items()}

    entire = in_processes(lambda: run("whole"), tmp_path / "a")
    again = in_processes(lambda: run("again"), tmp_path / "b")
    in_processes(lambda: run("part", kill=5), tmp_path / "c", killed=True)
    assert state(tmp_path / "part")["progress"]["step"] == 4
    resumed = in_processes(lambda: run("part", resume=True), tmp_path / "d")
    for other in (again, resumed):
        for (result, weights), (expected, trained) in zip(other, entire, strict=True):
            assert without_times(result) == without_times(expected)
            assert all(torch.equal(value, trained[name]) for name, value in weights.items())
    assert all(torch.equal(value, entire[1][1][name]) for name, value in entire[0][1].items())
    for name in ("again", "part"):
        for file in ("best/model.safetensors", "last/model.safetensors"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
        one, two = state(tmp_path / name), state(tmp_path / "whole")
        assert torch.equal(one["random"]["cpu"], two["random"]["cpu"])
        assert torch.equal(one["random_others"][0]["cpu"], two["random_others"][0]["cpu"])
    assert not torch.equal(two["random"]["cpu"], two["random_others"][0]["cpu"])
    assert not [path.name for path in (tmp_path / "part").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_states_go_from_one_process_to_two_and_back(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Exact and without dropout, so that every way through three legs ends as one process does."""
    config = CONFIG.but(steps=6, batch_size=7, eval_every=2, save_every=2, schedule="constant")

    def leg(name: str, kill: int, resume: bool) -> Any:
        fsdp = name == "pieces" and Processes.here().count > 1
        model = tiny(tokenizer)
        with torch.no_grad():
            if resume:
                model.shared.weight.zero_()  # what it was before does not matter
        part = config.but(out=tmp_path / name, resume=resume, fsdp=fsdp)
        result = finetune(part, TASK, model, tokenizer, observer=KilledAt(kill))
        return result, {key: whole(value) for key, value in model.state_dict().items()}

    expected, trained = leg("whole", 99, False)
    for name, counts in (("up and down", (1, 2, 1)), ("down and up", (2, 1, 2)), ("pieces", (2, 1, 2))):
        for i, (count, kill) in enumerate(zip(counts, (3, 5, 99), strict=True)):
            work = lambda kill=kill, resume=i > 0: leg(name, kill, resume)  # noqa: B023, E731
            found = in_processes(work, tmp_path / f"{name} {i}", count=count, killed=kill < 99)
        result, weights = found[0]
        assert [p.step for p in result.history] == [p.step for p in expected.history]
        assert [p.train_loss for p in result.history[1:]] == pytest.approx(
            [p.train_loss for p in expected.history[1:]], rel=1e-3
        )
        for (key, ours), theirs in zip(weights.items(), trained.values(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=f"{name}: {key}")
        one, two = state(tmp_path / name)["optimizer"], state(tmp_path / "whole")["optimizer"]
        assert one["param_groups"] == two["param_groups"]
        assert {k: set(v) for k, v in one["state"].items()} == {k: set(v) for k, v in two["state"].items()}
    written = [load_file(tmp_path / name / "last/model.safetensors") for name in ("whole", "pieces")]
    assert set(written[0]) == set(written[1])
    for key, value in written[0].items():
        torch.testing.assert_close(written[1][key], value, atol=2e-4, rtol=1e-3)
    configs = [(tmp_path / name / "last/config.json").read_text() for name in ("whole", "pieces")]
    assert configs[0] == configs[1]
    assert set(state(tmp_path / "whole")) == set(state(tmp_path / "up and down"))


def test_resuming_in_another_number_is_reproducible(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """The process that comes new is seeded by the run's seed, the step and its rank."""

    def run() -> Any:
        model = wide(tokenizer)
        return finetune(RANDOM.but(out=tmp_path / "run", resume=True), TASK, model, tokenizer), model

    def first() -> None:
        finetune(RANDOM.but(out=tmp_path / "run"), TASK, wide(tokenizer), tokenizer, observer=KilledAt(5))

    ends = []
    for number in range(2):
        in_processes(first, tmp_path / f"{number}a", count=1, killed=True)
        ends.append(in_processes(run, tmp_path / f"{number}b")[0])
    assert without_times(ends[0][0]) == without_times(ends[1][0])
    assert same_weights(ends[0][1], ends[1][1])


def test_remembered_scores_are_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    def work() -> str:
        config = RANDOM.but(scores="last-seen")
        with pytest.raises(InputError, match=r"scores='last-seen' in 2 processes") as caught:
            finetune(config, TASK, tiny(tokenizer), tokenizer)
        return str(caught.value)

    assert in_processes(work, tmp_path)[1].endswith("use 'row-norms' or one process")


def test_pieces_need_several_processes(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match="fsdp=True: needs several processes"):
        finetune(CONFIG.but(fsdp=True), TASK, tiny(tokenizer), tokenizer)


def test_what_one_process_refuses_all_refuse(tmp_path: Path) -> None:
    def refuse(ranks: tuple[int, ...]) -> str:
        def load() -> int:
            rank = Processes.here().rank
            if rank in ranks:
                raise InputError("model='x' is not there")
            return rank

        try:
            return str(Processes.here().run_on_all(load))
        except InputError as error:
            return str(error)

    found = in_processes(lambda: [refuse(ranks) for ranks in ((), (1,), (0, 1))], tmp_path)
    assert found[0] == ["0", "process 1: model='x' is not there", "model='x' is not there"]
    assert found[1] == ["1", *found[0][1:]]


def test_the_first_process_speaks_and_only_finetune_runs_in_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["zoo"]) == 2
    said = capsys.readouterr()
    assert said.err == (
        "error: WORLD_SIZE=2: only `wtacrs finetune` runs in several processes; start `wtacrs zoo` in one\n"
    )
    monkeypatch.setenv("RANK", "1")
    assert main(["zoo"]) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_the_command_under_a_launcher(launcher: str, tmp_path: Path) -> None:
    """Killed from outside and resumed as it would have ended; what cannot be used is told once, in one line."""
    flags = {
        "torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29617"],
        "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                       "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "29618"],
    }[launcher]  # fmt: skip
    (tmp_path / "SST-2").mkdir()
    rows = [f"{'good' if i % 2 else 'bad'} film number {i}\t{i % 2}" for i in range(24)]
    for name in ("train", "dev"):
        (tmp_path / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence1\tlabel", *rows]) + "\n")
    options = ["finetune", "--task", "sst2", "--data", str(tmp_path), "--steps", "24", "--batch-size", "7"]
    options += ["--eval-every", "8", "--save-every", "3", "--out"]

    def start(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *flags, "-m", "wtacrs.integration.cli", *options, *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **pipes)

    part, entire = tmp_path / "part", tmp_path / "whole"
    running = start(str(part))
    ends = time.monotonic() + 120
    while not (part / "best").exists() and running.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    for process in (psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)):
        process.kill()
    running.communicate()
    assert not (part / "result.json").exists()
    for more in ([str(part), "--resume"], [str(entire)]):
        done = start(*more)
        said, complained = done.communicate(timeout=240)
        assert done.returncode == 0, complained
        assert said.count("wrote") == 3
    one, two = load_result(part / "result.json"), load_result(entire / "result.json")
    assert isinstance(one, TrainingResult)
    assert isinstance(two, TrainingResult)
    assert one.processes == 2
    assert without_times(one) == without_times(two)
    assert (part / "last/model.safetensors").read_bytes() == (entire / "last/model.safetensors").read_bytes()
    refused = start(str(entire))
    said, complained = refused.communicate(timeout=240)
    assert refused.returncode != 0
    assert complained.count("error: out=") == 1
    assert "holds a run already" in complained
