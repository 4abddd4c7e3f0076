"""The sentences about memory: what is saved, and that nothing is where nothing is."""

from __future__ import annotations

from collections.abc import Mapping

from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.memory import MemoryResult, StepMemory, TypeBytes, memory_sentences

SPEC = "crs(budget=0.3)"


def step(
    estimator: str, sizes: Mapping[str, int], *, checkpointing: bool = False, converted: int = 3
) -> StepMemory:
    saved = [TypeBytes(types=name.split(" + "), modules=1, bytes=size) for name, size in sizes.items()]
    return StepMemory(
        estimator=estimator,
        checkpointing=checkpointing,
        converted=0 if estimator == "exact" else converted,
        saved=saved,
        peak=2 * sum(sizes.values()),
    )


def sentences(*steps: StepMemory) -> list[str]:
    result = MemoryResult(
        stamp=stamp(seed=0),
        model="m",
        task="t",
        batch_size=1,
        tokens=1,
        precision="fp32",
        parameters=1,
        steps=steps,
    )
    return list(memory_sentences(result))


def test_a_conversion_that_saves_has_no_sentence_more() -> None:
    told = sentences(
        step("exact", {"Linear": 10**7, "GELU": 10**7}), step(SPEC, {"Linear": 3 * 10**6, "GELU": 10**7})
    )
    assert len(told) == 2
    assert told[1].startswith(f"{SPEC}: 70.0% less in linear layers alone, 35.0% less in all")


def test_a_conversion_that_costs_says_so() -> None:
    """ReLU keeps what the layers read: they alone keep nothing that could be kept less of."""
    told = sentences(step("exact", {"Linear + ReLU": 10**7}), step(SPEC, {"Linear": 3 * 10**6, "ReLU": 10**7}))
    assert told[1].startswith(f"{SPEC}: 3.00 MB more in linear layers alone, 30.0% more in all")
    assert told[2] == f"{SPEC}: 3 converted layers free nothing on balance, 3.00 MB more are kept than by exact"


def test_a_conversion_of_which_no_layer_trains_says_so() -> None:
    told = sentences(step("exact", {"GELU": 10**7}), step(SPEC, {"GELU": 10**7}, converted=0))
    assert told[1].startswith(f"{SPEC}: nothing less in linear layers alone, 0.0% less in all")
    assert told[2] == f"{SPEC}: no layer is estimated, as much is kept as by exact"


def test_with_checkpointing_the_measure_is_checkpointing() -> None:
    whole, blocks = {"Linear": 10**7, "GELU": 10**7}, {"Block": 10**6}
    told = sentences(
        step("exact", whole),
        step("exact", blocks, checkpointing=True),
        step(SPEC, blocks | {"Linear": 10**5}, checkpointing=True),
    )
    assert told[-1].endswith("0.10 MB more are kept than by exact + checkpointing")
    assert len(told) == 4
