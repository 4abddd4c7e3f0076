"""A compiled training step, as a script: signature checks of the tests are nothing to compile.

python tests/support/compiled_step.py static|dynamic|automatic BACKEND
python tests/support/compiled_step.py mean BACKEND LEVEL
python tests/support/compiled_step.py processes
python tests/support/compiled_step.py learned|regional BACKEND
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel

from wtacrs.integration.layers.convert import approximate_
from wtacrs.integration.layers.linear import ApproxLinear
from wtacrs.integration.score_memory.gradient_norms import gradient_norms_of
from wtacrs.validation.statistics.significance import mean_test_from_projections

LENGTHS = {"static": [10] * 6, "dynamic": [10, 17, 33, 64, 10, 40], "automatic": [10, 17, 33, 64, 10, 40]}
DYNAMIC = {"static": False, "dynamic": True, "automatic": None}


def layers(spec: str, *, by_hand: bool) -> nn.Sequential:
    """Two layers; built by hand they draw from torch's default generator, as compiled ones do."""
    torch.manual_seed(0)
    if by_hand:
        first, second = (ApproxLinear(*size, estimator=spec, min_elements=0) for size in ((12, 16), (16, 4)))
        return nn.Sequential(first, nn.GELU(), second)
    model = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 4))
    approximate_(model, spec, min_elements=0)
    return model


def batch(length: int) -> Tensor:
    return torch.randn(4, length, 12, generator=torch.Generator().manual_seed(length))


def graphs() -> int:
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


def trained(model: nn.Module, run: Any, lengths: list[int]) -> list[Tensor]:
    """Gradients of every step, of a training whose random numbers are seeded once."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(3)
    found = []
    for length in lengths:
        run(batch(length)).square().mean().backward()
        found += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        optimizer.zero_grad()
    return found


def equals_eager(shapes: str, backend: str) -> None:
    """Step by step the gradients of the same training without compilation; one graph, or one more for symbols."""
    torch._dynamo.config.specialize_float = shapes == "dynamic"
    torch._inductor.config.fallback_random = True  # eager's random numbers
    spec = "wta_crs(budget=0.3)"
    eager = layers(spec, by_hand=True)
    model = layers(spec, by_hand=False)
    model.load_state_dict(eager.state_dict())
    expected = trained(eager, eager, LENGTHS[shapes])
    run = torch.compile(model, backend=backend, dynamic=DYNAMIC[shapes], fullgraph=True)
    found = trained(model, run, LENGTHS[shapes])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert graphs() == (2 if shapes == "automatic" else 1), graphs()
    assert len({tuple(gradient.flatten().tolist()) for gradient in found}) == len(found)


def mean(backend: str, level: float) -> None:
    """The mean over draws of a compiled step, each with random numbers of its backend, is the exact gradient."""
    x = batch(10)
    exact = layers("exact", by_hand=True)
    exact(x).square().mean().backward()
    truth = [p.grad.double() for p in exact.parameters() if p.grad is not None and p.ndim == 2]
    verdicts = []
    for spec in ("wta_crs(budget=0.3)", "topk(budget=0.3)"):
        model = layers(spec, by_hand=False)
        model.load_state_dict(exact.state_dict())
        run = torch.compile(model, backend=backend, fullgraph=True)
        generator = torch.Generator().manual_seed(1)
        probes = [torch.randn(6, *g.shape, generator=generator, dtype=torch.float64) for g in truth]
        probes = [torch.cat([p, g[None]]) for p, g in zip(probes, truth, strict=True)]
        probes = [p / p.flatten(1).norm(dim=1)[:, None, None] for p in probes]
        torch.manual_seed(2)
        found = []
        for _ in range(400):
            model.zero_grad()
            run(x).square().mean().backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None and p.ndim == 2]
            triples = zip(probes, gradients, truth, strict=True)
            found.append(torch.cat([(p * (g - t)).flatten(1).sum(1) / t.norm() for p, g, t in triples]))
        verdicts.append(mean_test_from_projections(torch.stack(found), level, rounding=1e-5).rejected)
    assert verdicts == [False, True], verdicts


def learned(backend: str) -> None:
    """Predictors of gradient norms are fitted as in eager training, in the first backward pass and in all that follow."""
    warnings.filterwarnings("error", message=".*not called")
    models = [nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 4)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        approximate_(model, "wta_crs(budget=0.3)", min_elements=0, scores="learned", seed=1)
    expected = trained(models[0], models[0], [40] * 4)
    found = trained(models[1], torch.compile(models[1], backend=backend), [40] * 4)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    fits = [memory.state_dict()["layers"] for m in models if (memory := gradient_norms_of(m)) is not None]
    assert list(fits[1]) == list(fits[0]) == ["2", "0"]
    for layer in fits[0]:
        assert float(fits[0][layer]["v"].norm()) > 0.01, layer
        torch.testing.assert_close(fits[1][layer], fits[0][layer], atol=1e-5, rtol=1e-4)


def regional(backend: str) -> None:
    """A block that is compiled within an eager model: its layers are called, and the reader of a weight is told."""
    model = nn.Sequential(
        nn.Linear(12, 16), nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4)), Reads()
    )
    approximate_(model, "wta_crs(budget=0.3)", min_elements=0)
    model[1].compile(backend=backend)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model(batch(10)).square().mean().backward()
    said = [str(w.message) for w in told if "not called" in str(w.message)]
    assert len(said) == 1, said
    assert said[0].startswith("1 converted layer was not called"), said
    assert "2.layer;" in said[0], said


class Reads(nn.Module):
    """Takes a product with the weight of a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.layer.weight


def processes() -> None:
    """Compiled within and around DDP: one graph, one gradient for both, draws by each process's own seed."""
    multiprocessing.spawn(_process, (tempfile.mkdtemp(),), nprocs=2)


def _process(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = batch(10)
    for outside in (False, True):
        torch._dynamo.reset()
        counters.clear()
        model = layers("crs(budget=0.3)", by_hand=False)
        if outside:
            run: Any = torch.compile(DistributedDataParallel(model), backend="aot_eager")
        else:
            model.compile(backend="aot_eager", fullgraph=True)
            run = DistributedDataParallel(model)
        torch.manual_seed(rank)
        own, both = [], []
        for _ in range(3):
            with run.no_sync():
                run(x).square().mean().backward()
            own.append(model[0].weight.grad.clone())
            model.zero_grad()
            run(x).square().mean().backward()
            both.append(model[0].weight.grad.clone())
            model.zero_grad()
        theirs: list[Any] = [None, None]
        distributed.all_gather_object(theirs, (own, both))
        assert all(torch.equal(a, b) for a, b in zip(theirs[0][1], theirs[1][1], strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(theirs[0][0], theirs[1][0], strict=True))
        assert counters["stats"]["unique_graphs"] == 1  # the wrapper around it runs uncompiled
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    what = sys.argv[1]
    if what == "mean":
        mean(sys.argv[2], float(sys.argv[3]))
    elif what == "learned":
        learned(sys.argv[2])
    elif what == "regional":
        regional(sys.argv[2])
    elif what == "processes":
        processes()
    else:
        equals_eager(what, sys.argv[2])
