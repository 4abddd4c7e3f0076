"""Bytes of a training step as a table for the terminal, and in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from wtacrs.validation.records.memory import MemoryResult, StepMemory


def memory_table(result: MemoryResult) -> Table:
    """Types of layers by way of training; below the totals, their share of the exact one, and the peak."""
    table = Table(
        title=f"Megabytes kept for the backward pass: {short_name(result.model)}, {result.task}, {result.batch_size} × "
        f"{result.tokens} tokens, {result.precision}; parameters: {megabytes(result.parameters)}",
        title_justify="left",
    )
    table.add_column("kept by", overflow="fold")
    for step in result.steps:
        table.add_column(step.name, justify="right", overflow="fold")
    exact = result.steps[0]
    kept = [{entry.name: entry.bytes for entry in step.saved} for step in result.steps]
    names = list(dict.fromkeys(name for found in kept for name in found))
    for name in names:
        end = name == names[-1]
        table.add_row(name, *(megabytes(found[name]) if name in found else "–" for found in kept), end_section=end)
    table.add_row("all", *(megabytes(step.total) for step in result.steps))
    table.add_row("of exact", *(f"{step.total / exact.total:.1%}" for step in result.steps), end_section=True)
    table.add_row("peak, with gradients", *(megabytes(step.peak) for step in result.steps))
    table.add_row("of exact", *(f"{step.peak / exact.peak:.1%}" for step in result.steps))
    return table


def memory_sentences(result: MemoryResult) -> Iterator[str]:
    """What estimators save of what is theirs and of all, and what they cannot touch."""
    exact = result.steps[0]
    others = [f"{entry.name} {megabytes(entry.bytes)}" for entry in exact.saved if not entry.ours]
    yield (
        f"exact: linear layers alone keep {megabytes(exact.ours)} of {megabytes(exact.total)} MB "
        f"({exact.ours / exact.total:.1%}); no estimator of ours touches {', '.join(others)}"
    )
    for step in result.steps[1:]:
        if not step.checkpointing:
            yield f"{step.name}: {_less(step.ours, exact.ours)} in linear layers, {_changes(step, exact)}"
        else:
            yield f"{step.name}: {_changes(step, exact)}"


def _changes(step: StepMemory, exact: StepMemory) -> str:
    return f"{_less(step.total, exact.total)} in all, {_less(step.peak, exact.peak)} at the peak of the step"


def _less(size: int, exact: int) -> str:
    share = 1 - size / exact if exact else 0.0
    return f"{abs(share):.1%} {'less' if share >= 0 else 'more'}"


def short_name(model: str) -> str:
    """A folder by its last two parts, a name of the hub as it is.

    >>> short_name("/home/of/someone/models/t5"), short_name("google/t5-v1_1-small")
    ('models/t5', 'google/t5-v1_1-small')
    """
    return "/".join(model.split("/")[-2:]) if model.startswith(("/", "~", ".")) else model


def megabytes(size: int) -> str:
    """Bytes in units of 10⁶, with three digits where they are few.

    >>> megabytes(23_044), megabytes(2_424_832), megabytes(1_234_567_890)
    ('0.023', '2.42', '1,235')
    """
    value = size / 1e6
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}"
