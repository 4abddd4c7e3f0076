"""Small tables of costs for plans, and what listing every plan finds in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hypothesis import strategies as st

from wtacrs.integration.planning.moments import noise_of, peak_of, seconds_of
from wtacrs.validation.records.plan import BlockCosts, Choice, CostTable, OptionCosts, RestCosts

_SIZES = st.integers(0, 60)


@st.composite
def options(draw: st.DrawFn, place: int) -> OptionCosts:
    """The first one without noise, as the stock one is."""
    kept = draw(st.integers(-5, 40))
    return OptionCosts(
        choice=Choice(lean=None if place == 0 else f"way {place}"),
        kept=kept,
        forward=max(kept, 0) + draw(_SIZES),
        backward=draw(_SIZES),
        seconds=draw(st.integers(1, 20)),
        noise=0 if place == 0 else draw(st.integers(0, 20)),
        group=draw(st.sampled_from([None, None, "a", "b"])) if place else None,
    )


@st.composite
def tables(draw: st.DrawFn) -> CostTable:
    """Up to three blocks of up to three choices, whose costs are small integers, with one or two output layers."""
    count = draw(st.integers(1, 3))
    blocks = [
        BlockCosts(
            name=f"b{i}",
            gradients=draw(st.integers(0, 30)),
            options=[draw(options(place)) for place in range(draw(st.integers(1, 3)))],
        )
        for i in range(count)
    ]

    def sizes(length: int) -> list[int]:
        return draw(st.lists(_SIZES, min_size=length, max_size=length))

    heads = [None, "forward"][: draw(st.integers(1, 2))]
    rest = [
        RestCosts(
            head=head,
            forward=sizes(count),
            between=sizes(count + 1),
            backward=sizes(count),
            until=sizes(count),
            seconds=draw(st.integers(0, 10)),
        )
        for head in heads
    ]
    return CostTable(fixed={"parameters": draw(_SIZES)}, blocks=blocks, rest=rest)


def every_plan(table: CostTable) -> Iterator[tuple[int, float, float]]:
    """Peak, seconds and noise of every plan whose blocks are of one group."""
    for chosen in itertools.product(*(block.options for block in table.blocks)):
        if len({option.group for option in chosen} - {None}) > 1:
            continue
        for place, rest in enumerate(table.rest):
            yield peak_of(table, chosen, place)[0], seconds_of(chosen, rest), noise_of(chosen)
