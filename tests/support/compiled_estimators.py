"""Compiled estimators, as a script: signature checks of the tests are nothing to compile.

python tests/support/compiled_estimators.py numbers
python tests/support/compiled_estimators.py kernels
python tests/support/compiled_estimators.py BACKEND SPEC …
"""

from __future__ import annotations

import sys
import warnings

import torch

from wtacrs.estimators import make
from wtacrs.estimators.core.counter_rng import CounterStream
from wtacrs.estimators.kernels import compiled, plain


def numbers() -> None:
    """Inductor gives eager's bits, for a seed that it knows and for one that it does not."""
    seed = torch.tensor([2**61 + 12345])

    def known(seed):
        counters = torch.arange(33)
        return CounterStream(torch.full((1,), 7)).bits(3, counters), CounterStream(seed).bits(2**40, counters)

    found = torch.compile(known, fullgraph=True, backend="inductor")(seed)
    assert all(torch.equal(*pair) for pair in zip(found, known(seed), strict=True))


def estimates(backend: str, specs: list[str]) -> None:
    """Finite results of the right shape, which differ between draws."""
    warnings.filterwarnings("error", message=".*lru_cache")
    x, dy = torch.randn(50, 70), torch.randn(50, 6)
    for spec in specs:
        torch._dynamo.reset()
        estimator = make(spec)
        run = torch.compile(
            lambda x, dy, e=estimator: e.contract(e.compress(x), dy),
            fullgraph=True,
            backend=backend,
        )
        draws = [run(x, dy) for _ in range(4)]
        assert all(draw.shape == (6, 70) and draw.isfinite().all() for draw in draws), spec
        assert all(torch.equal(draws[0], draw) for draw in draws) == estimator.traits.deterministic, spec


def kernels() -> None:
    """Compiled kernels give the bits of plain ones: overlapping blocks, zeros, weights, groups not full."""
    ran = []
    run = compiled._run
    compiled._run = lambda kernel, *arguments: (ran.append(kernel.__name__), run(kernel, *arguments))[1]
    plain.BLOCK_ROWS = 32
    x, dy = torch.randn(75, 70) + 0.5, torch.randn(75, 33)
    x[5], x[6, :64] = 0.0, 0.5
    scores = x.norm(dim=1)
    scores[40:43] = 0.0
    cases = (("slots=1.7", 'product="int8"', torch.float32), ("slots=0.6", 'product="float"', torch.bfloat16))
    for slots, product, dtype in cases:
        ours, theirs = (make(f'dithered_rows({slots}, {product}, kernels="{k}")') for k in ("compiled", "plain"))
        given = x.to(dtype), scores
        saved, expected = (
            e.compress(given[0], scores=given[1], generator=torch.Generator().manual_seed(3))
            for e in (ours, theirs)
        )
        assert all(torch.equal(*pair) for pair in zip(saved, expected, strict=True)), slots
        assert torch.equal(ours.contract(saved, dy.to(dtype)), theirs.contract(expected, dy.to(dtype))), slots
    kernels = {"_measure", "_code", "_decode", "_decode_to_int8", "_column_peaks", "_scale_to_int8"}
    assert set(ran) == kernels, set(ran)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if sys.argv[1] == "numbers":
        numbers()
    elif sys.argv[1] == "kernels":
        kernels()
    else:
        estimates(sys.argv[1], sys.argv[2:])
