"""Compiled estimators, as a script: signature checks of the tests are nothing to compile.

python tests/support/compiled_estimators.py numbers
python tests/support/compiled_estimators.py BACKEND SPEC …
"""

from __future__ import annotations

import sys

import torch

from wtacrs.estimators import make
from wtacrs.estimators.core.counter_rng import CounterStream

# its NamedTuple is a class that is made when the inner estimator's is known; dynamo makes no classes with attributes
BREAKS = ("control_variate",)


def numbers() -> None:
    """Inductor gives eager's bits, for a seed that it knows and for one that it does not."""
    seed = torch.tensor([2**61 + 12345])

    def known(seed):
        counters = torch.arange(33)
        return CounterStream(torch.full((1,), 7)).bits(3, counters), CounterStream(seed).bits(2**40, counters)

    compiled = torch.compile(known, fullgraph=True, backend="inductor")(seed)
    assert all(torch.equal(*pair) for pair in zip(compiled, known(seed), strict=True))


def estimates(backend: str, specs: list[str]) -> None:
    """Finite results of the right shape, which differ between draws."""
    x, dy = torch.randn(50, 70), torch.randn(50, 6)
    for spec in specs:
        torch._dynamo.reset()
        estimator = make(spec)
        compiled = torch.compile(
            lambda x, dy, e=estimator: e.contract(e.compress(x), dy),
            fullgraph=estimator.name not in BREAKS,
            backend=backend,
        )
        draws = [compiled(x, dy) for _ in range(4)]
        assert all(draw.shape == (6, 70) and draw.isfinite().all() for draw in draws), spec
        assert all(torch.equal(draws[0], draw) for draw in draws) == estimator.traits.deterministic, spec


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if sys.argv[1] == "numbers":
        numbers()
    else:
        estimates(sys.argv[1], sys.argv[2:])
