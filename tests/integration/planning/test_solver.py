"""The integer program beside a list of all plans, its limits, and what it says where there is no plan."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cost_tables import every_plan, tables

from wtacrs.estimators import InputError
from wtacrs.integration.planning import solver
from wtacrs.integration.planning.moments import moments_of, peak_of
from wtacrs.integration.planning.solver import (
    GAP,
    STEP,
    STEPS,
    Front,
    _chosen,
    alike_plans,
    least_memory,
    solve,
    stock_solution,
)
from wtacrs.validation.records.plan import BlockCosts, Choice, CostTable, OptionCosts, RestCosts

_PRICE = 70 * 1.1e-4  # of memory and the other, in the seconds or the noise of the largest plan of these tables


def option(name: str, kept: int, seconds: float, noise: float = 0.0, backward: int = 0) -> OptionCosts:
    return OptionCosts(
        choice=Choice(estimator=name), kept=kept, forward=kept, backward=backward, seconds=seconds, noise=noise
    )


def table(*blocks: list[OptionCosts], gradients: int = 0, fixed: int = 0) -> CostTable:
    count = len(blocks)
    nothing = RestCosts(
        forward=[0] * count, between=[0] * (count + 1), backward=[0] * count, until=[0] * count, seconds=0.0
    )
    made = [BlockCosts(name=f"b{i}", gradients=gradients, options=found) for i, found in enumerate(blocks)]
    return CostTable(fixed={"parameters": fixed}, blocks=made, rest=[nothing])


THREE = [option("exact", 100, 1.0), option("half", 50, 1.2, 1.0), option("few", 10, 1.1, 9.0)]


def test_one_block_by_hand() -> None:
    assert solve(table(THREE), 100, noise_ceiling=10.0).options[0].choice.estimator == "exact"
    assert solve(table(THREE), 99, noise_ceiling=10.0).options[0].choice.estimator == "few"
    assert solve(table(THREE), 99, noise_ceiling=2.0).options[0].choice.estimator == "half"
    assert solve(table(THREE), 99, time_ceiling=1.15).options[0].choice.estimator == "few"


@pytest.mark.parametrize("limit", [1000, 1001, 10**9])
@pytest.mark.parametrize("ceiling", [{"noise_ceiling": 10.0}, {"time_ceiling": 9.0}])
def test_a_peak_outside_of_the_blocks_leaves_the_best_plan(ceiling: dict[str, float], limit: int) -> None:
    """The end of the backward pass needs most, whatever the block does: nothing is gained by a slower plan."""
    made = table(THREE)
    made = made.model_copy(update={"rest": [made.rest[0].model_copy(update={"until": [1000]})]})
    assert solve(made, limit, **ceiling).options[0].choice.estimator == "exact"


def test_a_mixed_plan_by_hand() -> None:
    """Of two equal blocks one is checkpointed and the other exact: its backward pass needs what it computes again."""
    choices = [option("exact", 100, 1.0), option("again", 10, 1.4, backward=95)]
    found = solve(table(choices, choices), 115, noise_ceiling=0.0)
    assert sorted(str(o.choice.estimator) for o in found.options) == ["again", "exact"]
    assert (found.peak, found.seconds) == (110, 2.4)


def test_a_program_that_forgets_the_backward_pass_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: without those moments both blocks are checkpointed, whose second runs need more than is told."""
    choices = [option("exact", 100, 1.0), option("again", 10, 1.4, backward=95)]
    made = table(choices, choices)
    assert least_memory(made).peak == min(peak for peak, _, _ in every_plan(made)) == 110
    monkeypatch.setattr(solver, "moments_of", lambda made: list(moments_of(made))[:5])
    assert least_memory(made).peak == 115


def test_moments_in_the_order_of_time() -> None:
    """A table of two blocks, summed by hand."""
    first = [OptionCosts(choice=Choice(), kept=7, forward=11, backward=13, seconds=0, noise=0)]
    second = [OptionCosts(choice=Choice(), kept=17, forward=19, backward=23, seconds=0, noise=0)]
    rest = RestCosts(forward=[1, 2], between=[3, 4, 5], backward=[6, 8], until=[9, 10], seconds=0)
    blocks = [BlockCosts(name=n, gradients=g, options=o) for n, g, o in (("a", 100, first), ("b", 200, second))]
    made = CostTable(fixed={"parameters": 1000, "batch": 500}, blocks=blocks, rest=[rest])
    alive = [solver.peak_of(made, [first[0], second[0]], 0)]
    assert [moment.name for moment in moments_of(made)] == [
        "the forward pass before a", "the forward pass of a", "the forward pass before b", "the forward pass of b",
        "the output layer and the loss", "the backward pass of b", "the backward pass after b",
        "the backward pass of a", "the end of the backward pass",
    ]  # fmt: skip
    # 3 | 1 + 11 | 7 + 4 | 7 + 2 + 19 | 24 + 5 | 24 + 8 + 23 | 7 + 200 + 10 | 7 + 200 + 6 + 13 | 300 + 9
    assert alive == [(1500 + 309, "the end of the backward pass")]
    assert peak_of(made.model_copy(update={"blocks": [b.model_copy(update={"gradients": 0}) for b in blocks]}),
                   [first[0], second[0]], 0) == (1500 + 55, "the backward pass of b")  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(0, 40))
def test_as_good_as_the_best_of_all_plans(made: CostTable, ceiling: int) -> None:
    front = Front(made, noise_ceiling=float(ceiling))
    plans = [(peak, seconds) for peak, seconds, noise in every_plan(made) if noise <= ceiling]
    assert least_memory(made, noise_ceiling=float(ceiling)).peak <= 1.005 * min(peak for peak, _ in plans)
    for limit, found in front.points:
        best = min((seconds for peak, seconds in plans if peak <= limit), default=None)
        assert found.peak <= limit
        assert found.noise <= ceiling
        assert (found.peak, found.seconds) in plans
        assert best is not None
        assert found.seconds <= (1 + GAP) * best + _PRICE


def in_the_update(count: int = 4) -> CostTable:
    """Blocks that keep little beside the gradients of all of them, which are there when the backward pass ends."""
    choices = [
        option("exact", 9, 1.0),
        option("lean", 5, 1.3),
        option("half", 4, 1.1, 1.0),
        option("again", 0, 2.3, backward=9),
    ]
    return table(*[choices] * count, gradients=1000)


@pytest.mark.parametrize("ceiling", [{"noise_ceiling": 9.0}, {"time_ceiling": 50.0}])
def test_a_peak_in_the_update_costs_no_time(ceiling: dict[str, float]) -> None:
    """All plans have the peak of the stock step, so that the best one is the fastest, and without noise."""
    made = in_the_update()
    assert {peak for peak, _, _ in every_plan(made)} == {4000}
    front = Front(made, noise_ceiling=ceiling.get("noise_ceiling"), time_ceiling=ceiling.get("time_ceiling"))
    for memory in (4000, 4001, 10**9):
        found = front.at(memory)
        assert (found.peak, found.moment) == (4000, "the end of the backward pass")
        assert (found.seconds, found.noise) == (4.0, 0.0)
    assert [limit for limit, _ in front.points] == [4000]
    with pytest.raises(InputError, match="in the end of the backward pass"):
        front.at(3999)


def test_of_plans_without_noise_the_fastest_is_taken() -> None:
    """Memory is ample and the ceiling of time is loose: what is slower saves nothing that is asked for."""
    choices = [option("exact", 100, 1.0), option("again", 10, 1.33, backward=105), option("half", 50, 0.9, 3.0)]
    found = Front(table(*[choices] * 12), time_ceiling=1.4 * 12).at(10**9)
    assert {o.choice.estimator for o in found.options} == {"exact"}


@given(st.integers(1, 30), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_a_plan_at_a_ceiling_is_within_it(blocks: int, random: Random) -> None:
    """Costs are rounded in the program, and the sum of the only plan must not fail for it."""
    made = table(*[[option("exact", 9, 1 + random.random(), 1 + random.random())] for _ in range(blocks)])
    one = stock_solution(made)
    assert Front(made, time_ceiling=one.seconds).at(10**9) == one
    assert Front(made, noise_ceiling=one.noise).at(10**9) == one
    with pytest.raises(InputError, match="no plan is under it"):
        Front(made, time_ceiling=one.seconds * (1 - 1e-4))


def test_no_noise_is_none() -> None:
    """A ceiling of zero has no slack, however little noise a choice adds."""
    choices = [option("exact", 9, 1.0), option("code", 1, 0.5, 1e-9), option("few", 1, 0.4, 1e3)]
    assert {o.choice.estimator for o in solve(table(choices, choices), 100, noise_ceiling=0.0).options} == {
        "exact"
    }


def test_the_first_of_plans_with_the_lowest_peak_may_be_slow() -> None:
    """Planted: what the lowest peak alone decides on is any of them."""
    assert {seconds for peak, seconds, _ in every_plan(in_the_update()) if peak == 4000} > {4.0, 4 * 2.3}


def test_the_first_point_is_the_best_within_the_lowest_peak() -> None:
    """The forward pass of a large block makes the lowest peak; the others need not save to stay within it."""
    large = [option("exact", 500, 1.0), option("again", 300, 1.5)]
    small = [option("exact", 20, 1.0), option("lean", 15, 1.3), option("again", 0, 2.3)]
    made = table(small, large, small, small, gradients=110)
    plans = [(peak, seconds) for peak, seconds, _ in every_plan(made)]
    least = min(peak for peak, _ in plans)
    fastest = min(seconds for peak, seconds in plans if peak == least)
    assert fastest < max(seconds for peak, seconds in plans if peak == least)
    limit, first = Front(made, noise_ceiling=0.0).points[0]
    assert limit == least == first.peak
    assert first.seconds == pytest.approx(fastest, rel=GAP)


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(0, 40), st.integers(0, 400))
def test_the_first_point_beside_all_plans(made: CostTable, whole: int, gradients: int) -> None:
    """With gradients that may make the peak; no plan needs less than the first point, and none within it is better."""
    made = made.model_copy(update={"blocks": [b.model_copy(update={"gradients": gradients}) for b in made.blocks]})
    ceiling = whole + 0.5  # noise is whole: no plan is at the ceiling
    plans = [(peak, seconds) for peak, seconds, noise in every_plan(made) if noise <= ceiling]
    limit, first = Front(made, noise_ceiling=ceiling).points[0]
    assert limit == first.peak <= 1.005 * min(peak for peak, _ in plans)
    assert first.seconds <= (1 + GAP) * min(seconds for peak, seconds in plans if peak <= limit) + _PRICE


@settings(max_examples=15, deadline=None)
@given(tables(), st.floats(1.0, 2.0))
def test_least_noise_under_a_ceiling_of_time(made: CostTable, factor: float) -> None:
    ceiling = math.floor(factor * stock_solution(made).seconds) + 0.5  # costs are whole: no plan is at the ceiling
    plans = [(peak, noise) for peak, seconds, noise in every_plan(made) if seconds <= ceiling]
    for limit, found in Front(made, time_ceiling=ceiling).points:
        best = min(noise for peak, noise in plans if peak <= limit)
        assert found.seconds <= ceiling
        assert found.noise <= (1 + GAP) * best + _PRICE


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(0, 40), st.lists(st.integers(1, 500), min_size=2, max_size=12))
def test_less_memory_never_asks_for_a_higher_peak(made: CostTable, ceiling: int, asked: list[int]) -> None:
    front = Front(made, noise_ceiling=float(ceiling))
    lowest = front.points[0][0]
    plans = {memory: front.at(memory) for memory in asked if memory >= lowest}  # in any order
    peaks = [plans[memory].peak for memory in sorted(plans)]
    assert peaks == sorted(peaks)
    assert all(plan.peak <= memory for memory, plan in plans.items())
    again = Front(made, noise_ceiling=float(ceiling))
    assert all(again.at(memory).peak == plans[memory].peak for memory in sorted(plans))
    for memory in asked:
        if memory < lowest:
            with pytest.raises(InputError, match="no plan needs less than"):
                front.at(memory)


@settings(max_examples=15, deadline=None)
@given(tables(), st.integers(0, 40), st.randoms(use_true_random=False))
def test_monotone_between_limits_however_bad_the_plans_are(made: CostTable, ceiling: int, random: Random) -> None:
    """Programs that are solved as badly as can be: any plan of a peak within the limit."""
    every = sorted({(peak, seconds) for peak, seconds, noise in every_plan(made) if noise <= ceiling})
    front = Front(made, noise_ceiling=float(ceiling))
    plain = stock_solution(made)

    def badly(objective: str, limit: int, ceilings: object) -> solver.Solution:
        peak, seconds = random.choice([plan for plan in every if plan[0] <= limit])
        return solver.Solution(plain.options, plain.rest, peak, "", seconds, 0.0)

    front._program.best = badly  # type: ignore[assignment, method-assign]
    least = front.points[0][0]
    amounts = list(range(max(least, 1), front.points[-1][0] + 2))
    random.shuffle(amounts)
    peaks = {memory: front.at(memory).peak for memory in amounts}
    assert [peaks[m] for m in sorted(peaks)] == sorted(peaks.values())
    assert all(peak <= memory for memory, peak in peaks.items())


def test_memory_between_two_limits_is_used() -> None:
    """Twenty blocks that may keep 1000 or 0 bytes: as many keep them as there is memory for."""
    choices = [option("exact", 1000, 1.0), option("again", 0, 1.5)]
    made = table(*[choices] * 20)
    front = Front(made, noise_ceiling=0.0)
    for memory in range(1000, 20_000, 997):
        kept = front.at(memory).peak
        assert memory - 1000 - STEP * memory < kept <= memory
        assert kept % 1000 == 0


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12))
def test_monotone_however_bad_the_plans_are(pairs: list[tuple[int, int]]) -> None:
    """Plans of any peak below their limit: what is found for each limit alone does rise and fall."""
    limits = sorted({limit for limit, _ in pairs})
    plain = stock_solution(table([option("exact", 0, 1.0)]))
    found = [
        (limit, solver.Solution(plain.options, plain.rest, min(peak, limit), "", 1.0, 0.0))
        for limit, (_, peak) in zip(limits, pairs, strict=False)
    ]
    chosen = [plan.peak for _, plan in _chosen(found)]
    assert chosen == sorted(chosen)
    assert all(peak <= limit for peak, limit in zip(chosen, limits, strict=True))


def test_without_that_choice_it_is_not_monotone() -> None:
    """Planted: two plans that are alike, of which the larger limit is given the lower peak."""
    plain = stock_solution(table([option("exact", 0, 1.0)]))
    found = [
        (limit, solver.Solution(plain.options, plain.rest, p, "", 1.0, 0.0)) for limit, p in ((50, 50), (60, 40))
    ]
    assert [plan.peak for _, plan in found] == [50, 40]
    assert [plan.peak for _, plan in _chosen(found)] == [40, 40]


def test_groups_are_of_the_whole_model() -> None:
    one = [option("exact", 100, 1.0), option("x", 10, 1.0).model_copy(update={"group": "a"})]
    other = [option("exact", 100, 1.0), option("y", 10, 1.0).model_copy(update={"group": "b"})]
    assert least_memory(table(one, other)).peak == 110
    assert least_memory(table(one, one)).peak == 20


def test_choices_that_are_beaten_in_everything_are_left_out() -> None:
    worse = option("worse", 60, 1.3, 1.0)
    kept = solver._without_dominated(table([*THREE, worse])).blocks[0].options
    assert list(kept) == THREE


def test_large_sums_are_rounded_up() -> None:
    """A unit is a millionth of the sum; the peak that is told is never below the real one."""
    sizes = [option("exact", 3_333_333_333, 1.0), option("half", 1_666_666_667, 1.2, 1.0)]
    made = table(sizes, sizes, gradients=777_777, fixed=1_234_567_891)
    found = stock_solution(made)
    real = peak_of(made, found.options, 0)[0]
    assert real <= found.peak <= 1.00001 * real
    assert solve(made, found.peak - 1, noise_ceiling=9.0).peak < real


def test_no_plan() -> None:
    made = table(THREE, fixed=1000)
    with pytest.raises(
        InputError, match=r"no plan needs less than 0\.001 MB, in the .* pass of b0; 0\.001 MB are"
    ):
        solve(made, 1009, noise_ceiling=10.0)
    with pytest.raises(InputError, match=r"with noise_ceiling=2 no plan needs less than .* without it"):
        solve(made, 1049, noise_ceiling=2.0)
    with pytest.raises(InputError, match=r"time_ceiling=0\.5 s: no plan is under it"):
        solve(made, 5000, time_ceiling=0.5)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({}, "one of them must be given"),
        ({"noise_ceiling": 1.0, "time_ceiling": 1.0}, "one of them must be given"),
        ({"noise_ceiling": -1.0}, "noise_ceiling=-1.0 must be"),
        ({"time_ceiling": float("nan")}, "time_ceiling=nan must be"),
    ],
)
def test_unusable_ceilings(arguments: dict[str, float], fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        solve(table(THREE), 100, **arguments)


@pytest.mark.parametrize("memory", [0, -1, True])
def test_unusable_memory(memory: int) -> None:
    with pytest.raises(InputError, match="must be a positive number of bytes"):
        solve(table(THREE), memory, noise_ceiling=1.0)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    Front(table(THREE), noise_ceiling=10.0, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (STEPS - 1, STEPS)


def budgets(kept: tuple[int, int, int], noise: tuple[float, float]) -> list[OptionCosts]:
    """A block that is exact, half or few."""
    exact = option("none", kept[0], 1.0).model_copy(update={"choice": Choice()})
    return [exact, option("half", kept[1], 1.1, noise[0]), option("few", kept[2], 1.2, noise[1])]


def test_no_more_is_kept_than_one_estimator_would_keep() -> None:
    """By hand: 100 bytes alike; noise tells in the first block, so that the second one pays for it."""
    made = table(budgets((100, 50, 0), (5.0, 50.0)), budgets((100, 50, 0), (0.1, 0.3)))
    alike = {one.estimator: one for one in alike_plans(made)}
    assert (alike["half"].kept, alike["half"].noise, alike["half"].peak) == (100, 5.1, 100)
    assert (alike["few"].kept, alike["few"].noise, alike["few"].seconds) == (0, 50.3, 2.4)
    found = Front(made, time_ceiling=100.0, kept_as=Choice(estimator="half")).at(10**9)
    assert [o.choice.estimator for o in found.options] == [None, "few"]
    assert (sum(o.kept for o in found.options), found.noise) == (100, 0.3)
    assert Front(made, time_ceiling=100.0).at(10**9).noise == 0.0  # without the limit all is exact
    with pytest.raises(
        InputError, match=r"kept_as='quarter' is no choice of every block; choices are exact; half"
    ):
        Front(made, time_ceiling=100.0, kept_as=Choice(estimator="quarter"))
    with pytest.raises(InputError, match="no plan that keeps no more than few would is under it"):
        Front(made, time_ceiling=2.3, kept_as=Choice(estimator="few"))


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(0, 2))
def test_within_the_kept_bytes_no_plan_has_less_noise(made: CostTable, place: int) -> None:
    """Beside a list of all plans; bytes are counted one by one, so that the limit is exact."""
    choices = [option.choice for option in made.blocks[0].options]
    wanted = choices[place % len(choices)]
    there = [[o for o in block.options if o.choice == wanted] for block in made.blocks]
    if not all(there):
        return
    limit = sum(found[0].kept for found in there)
    found = Front(made, time_ceiling=1e6, kept_as=wanted).at(10**9)
    assert sum(o.kept for o in found.options) <= limit
    plans = [
        sum(o.noise for o in chosen)
        for chosen in itertools.product(*(block.options for block in made.blocks))
        if len({o.group for o in chosen} - {None}) <= 1 and sum(o.kept for o in chosen) <= limit
    ]
    assert found.noise <= (1 + GAP) * min(plans) + _PRICE
