"""What `dithered_rows` asks of torch: a regression shows in operations and bytes moved, whatever the machine's speed."""

from __future__ import annotations

import pytest
import torch

from wtacrs.estimators import make
from wtacrs.estimators.composites.dithered_rows import DitheredRows
from wtacrs.validation.benchmarks.traffic import Traffic

N, D, M = 2048, 256, 256
PASS = N * D * 4
"""Bytes of x, in fp32."""
# operations and passes over x (bytes read and written over those of x) of compress and contract, rounded up
PINS = {
    "dithered_rows(slots=2.0, product='float')": ((347, 24.5), (189, 19.7)),
    "dithered_rows(slots=2.0, product='int8')": ((347, 24.5), (477, 52.8)),
    "dithered_rows(slots=0.74, product='float')": ((540, 26.5), (201, 16.7)),
    "dithered_rows(slots=2.3, product='float')": ((534, 31.9), (218, 22.7)),
}
SLACK = 1.02
"""Versions of torch split a few small operations otherwise."""

pytestmark = pytest.mark.usefixtures("unchecked")  # the checks of signatures would be counted too


def counted(estimator: DitheredRows) -> tuple[Traffic, Traffic]:
    generator = torch.Generator().manual_seed(0)
    x, dy = torch.randn(N, D, generator=generator), torch.randn(N, M, generator=generator)
    with Traffic() as compress:
        saved = estimator.compress(x, generator=generator)
    with Traffic() as contract:
        estimator.contract(saved, dy)
    return compress, contract


def exceeded(found: Traffic, pin: tuple[int, float]) -> bool:
    return found.operations > SLACK * pin[0] or found.moved / PASS > SLACK * pin[1]


@pytest.mark.parametrize("spec", PINS)
def test_operations_and_passes_do_not_grow(spec: str) -> None:
    for verb, found, pin in zip(("compress", "contract"), counted(make(spec)), PINS[spec], strict=True):
        told = f"{verb}: {found.operations} operations, {found.moved / PASS:.2f} passes over x: {found.names}"
        assert not exceeded(found, pin), told


class OnePassMore(DitheredRows):
    """Reads x once more, and writes as much."""

    name = "one_pass_more"

    def keep(self, x, scores, source):
        return super().keep(x + 0.0, scores, source)

    def finish(self, saved, dy, source):
        return super().finish(saved, dy + 0.0, source)


@pytest.mark.parametrize("spec", PINS)
def test_one_more_pass_is_noticed(spec: str) -> None:
    """The pins are tight; where the code has become better they must follow."""
    estimator = make(spec)
    for found, pin in zip(
        counted(OnePassMore(estimator.slots, product=estimator.product)), PINS[spec], strict=True
    ):
        assert exceeded(found, pin)
