"""A plan as a table for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from wtacrs.validation.records.plan import Plan
from wtacrs.validation.records.units import megabytes


def plan_table(plan: Plan) -> Table:
    """What is done with every block, and what that is predicted to cost."""
    table = Table(
        title=f"Plan for {megabytes(plan.memory)} MB: {escape(plan.model)}, {escape(plan.task)}, {plan.batch_size} × "
        f"{plan.tokens} tokens",
        title_justify="left",
        caption="kept: once the forward pass of the block is over; noise: over the minibatch's variance",
        caption_justify="left",
    )
    table.add_column("block", overflow="fold")
    table.add_column("choice", overflow="fold")
    for column in ("MB kept", "ms", "noise"):
        table.add_column(column, justify="right")
    for block in plan.blocks:
        cells = (megabytes(block.kept), f"{1e3 * block.seconds:.1f}", f"{block.noise:.3g}")
        table.add_row(escape(block.name), escape(str(block.choice)), *cells, end_section=block is plan.blocks[-1])
    table.add_row(
        "output layer", "stock" if plan.head is None else f"lean, {plan.head}", "", "", "", end_section=True
    )
    table.add_row(
        "whole step", "peak and time", megabytes(plan.peak), f"{1e3 * plan.seconds:.1f}", f"{plan.noise:.3g}"
    )
    if (alike := plan.beside) is not None:
        for name, one in (("as planned", plan), (f"all {alike.estimator}", alike)):
            cells = (megabytes(one.kept), f"{1e3 * one.seconds:.1f}", f"{one.noise:.3g}")
            table.add_row("kept by all blocks", escape(name), *cells)
    table.add_row("stock step", "", megabytes(plan.stock_peak), f"{1e3 * plan.stock_seconds:.1f}", "0")
    return table
