"""The claims of the theory: their numbers bear them out, other numbers would not, and files keep them whole."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.paths import ROOT

from wtacrs.estimators import InputError
from wtacrs.validation.records.results import load_result, write_result
from wtacrs.validation.records.theory import Claim, Requirement, Series, TheoryResult
from wtacrs.validation.seeds import LARGEST_SEED
from wtacrs.validation.theory.claims import CLAIMS, theory

pytestmark = pytest.mark.usefixtures("unchecked_module")  # many thousand draws

# beyond every number of the claims
FAR = 1e12


@pytest.fixture(scope="module")
def result() -> TheoryResult:
    return theory(seed=0)


def claim(
    *,
    smaller: str | float = "a",
    larger: str | float = "b",
    where: str = "every point",
    a=(1.0, 2.0),
    b=(2.0, 3.0),
) -> Claim:
    series = [Series(label="a", x=[0.0, 1.0], y=list(a)), Series(label="b", x=[0.0, 1.0], y=list(b))]
    requirement = Requirement(text="a below b", smaller=smaller, larger=larger, where=where)  # type: ignore[arg-type]
    return Claim(
        name="n", title="t", statement="s", status="true", source="x", method="closed form", x_name="x", y_name="y",
        series=series, requirements=[requirement],
    )  # fmt: skip


def tampered(of: Claim, label: str, y: list[float]) -> Claim:
    return of.model_copy(
        update={"series": [s.model_copy(update={"y": y}) if s.label == label else s for s in of.series]}
    )


# verdicts


@pytest.mark.parametrize("name", CLAIMS)
def test_the_numbers_bear_the_claim_out(name: str, result: TheoryResult) -> None:
    (found,) = [c for c in result.claims if c.name == name]
    assert found.broken == []
    assert found.verdict == ("holds" if found.status == "true" else "false, by counter-example")
    assert all(math.isfinite(y) for s in found.series for y in s.y)


def seeds() -> Iterator[Any]:
    """One beside 0; two more are slow, and none of them of the costliest claim.

    There rounding of a variance near 0, under seed 88, once passed for an excess.
    """
    for name in CLAIMS:
        yield name, 88 if name == "without-replacement" else LARGEST_SEED
        if name != "without-replacement":
            yield from (pytest.param(name, seed, marks=pytest.mark.slow) for seed in (1, 2))


@pytest.mark.parametrize(("name", "seed"), seeds())
def test_it_does_not_hang_on_the_seed(name: str, seed: int) -> None:
    assert theory([name], seed=seed).claims[0].broken == []


@pytest.mark.parametrize("name", CLAIMS)
def test_every_requirement_can_fail_and_is_then_named(name: str, result: TheoryResult) -> None:
    (found,) = [c for c in result.claims if c.name == name]
    for requirement in found.requirements:
        side, value = (
            (requirement.smaller, FAR) if isinstance(requirement.smaller, str) else (requirement.larger, -FAR)
        )
        assert isinstance(side, str)
        length = next(len(s.y) for s in found.series if s.label == side)
        broken = tampered(found, side, [value] * length)
        assert requirement.text in broken.broken
        assert broken.verdict == "not borne out"
        assert not result.model_copy(update={"claims": [broken]}).holds


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("take-all", "paper's rule"),
        ("without-replacement", "Sampford"),
        ("ipps-optimum", "heavy-tailed rows"),
        ("wta-condition", "WTA-CRS"),
        ("any-scores", "WTA-CRS: bias²"),
        ("mask-hint", "CRS, floor: bias²"),
        ("mask-cost", "conditional Poisson"),
        ("plain-floor", "pivotal, δ of the tail"),
    ],
)
def test_one_wrong_point_is_enough_where_every_point_must_agree(
    name: str, label: str, result: TheoryResult
) -> None:
    (found,) = [c for c in result.claims if c.name == name]
    y = list(next(s.y for s in found.series if s.label == label))
    y[len(y) // 3] *= 0.5 if name == "ipps-optimum" else 1.0
    y[len(y) // 3] += {"ipps-optimum": 0.0, "any-scores": 1e-15, "mask-hint": 1e-15, "mask-cost": 0.011}.get(
        name, 100.0
    )
    assert not tampered(found, label, y).holds


@pytest.mark.parametrize(
    ("where", "a", "holds"),
    [
        ("every point", (1.0, 4.0), False),
        ("some point", (1.0, 4.0), True),
        ("some point", (4.0, 4.0), False),
        ("first point", (1.0, 4.0), True),
        ("first point", (4.0, 1.0), False),
        ("last point", (4.0, 1.0), True),
        ("last point", (1.0, 4.0), False),
        ("nine points in ten", (1.0, 4.0), False),
        ("every point", (2.0, 3.0), True),
        ("every point", (math.nan, 1.0), False),
        ("some point", (math.nan, math.nan), False),
    ],
)
def test_where_a_requirement_must_be_met(where: str, a: tuple[float, float], holds: bool) -> None:
    assert claim(where=where, a=a).holds is holds


def test_nine_in_ten_allows_one_of_ten_and_not_two() -> None:
    def found(wrong: int) -> bool:
        series = Series(label="a", x=list(range(10)), y=[5.0] * wrong + [0.0] * (10 - wrong))
        nine = Requirement(text="r", smaller="a", larger=1.0, where="nine points in ten")
        return claim().model_copy(update={"series": [series], "requirements": [nine]}).holds

    assert found(1)
    assert not found(2)


def test_factor_and_slack() -> None:
    tight = Requirement(text="r", smaller="a", larger="b", factor=2.0)
    assert not claim().model_copy(update={"requirements": [tight]}).holds
    assert claim().model_copy(update={"requirements": [tight.model_copy(update={"slack": 1.0})]}).holds


def test_the_pages_count_the_claims(result: TheoryResult) -> None:
    true = sum(found.status == "true" for found in result.claims)
    page, commands = (ROOT / "docs" / place for place in ("theory.md", "how-to/command-line.md"))
    told = page.read_text(encoding="utf-8")
    assert f"computes {len(CLAIMS)} claims" in told
    assert f" {true} are true." in told
    assert f"\n{len(CLAIMS) - true} only look true" in told
    assert f"| `wtacrs theory` | {len(CLAIMS)} claims" in commands.read_text(encoding="utf-8")


# what is written


def test_a_theory_comes_back_with_its_verdicts(result: TheoryResult, tmp_path: Path) -> None:
    again = load_result(write_result(tmp_path / "theory.json", result))
    assert isinstance(again, TheoryResult)
    assert again == result
    assert again.holds


@pytest.mark.parametrize(("former", "current"), [("price", "oracle-ratio"), ("exact-rule", "optimal-rule")])
def test_claims_of_older_files_come_back_under_their_names_of_today(
    former: str, current: str, result: TheoryResult, tmp_path: Path
) -> None:
    path = write_result(tmp_path / "theory.json", result)
    path.write_text(path.read_text().replace(f'"name": "{current}"', f'"name": "{former}"'))
    assert f'"name": "{former}"' in path.read_text()
    assert load_result(path) == result


def test_verdicts_are_computed_from_the_numbers_of_the_file(result: TheoryResult, tmp_path: Path) -> None:
    path = write_result(tmp_path / "theory.json", result)
    content = json.loads(path.read_text())
    (poisson,) = [c for c in content["claims"] if c["name"] == "poisson"]
    assert not {"verdict", "holds"} & set(poisson)
    for series in poisson["series"]:
        series["y"].reverse()
    path.write_text(json.dumps(content))
    again = load_result(path)
    assert isinstance(again, TheoryResult)
    assert [c.name for c in again.claims if not c.holds] == ["poisson"]


def test_claims_that_cannot_be_judged_are_refused(tmp_path: Path, result: TheoryResult) -> None:
    with pytest.raises(ValidationError, match="names no series"):
        claim(smaller="c")
    with pytest.raises(ValidationError, match="names no series"):
        claim(smaller=1.0, larger=2.0)
    with pytest.raises(ValidationError, match="has 1 x and 2 y"):
        Series(label="a", x=[0.0], y=[1.0, 2.0])
    with pytest.raises(ValidationError, match="at least 1 item"):
        Series(label="a", x=[], y=[])
    good = claim().model_dump()
    with pytest.raises(ValidationError, match="different x"):
        Claim(**good | {"series": [good["series"][0], good["series"][1] | {"x": [0.0, 2.0]}]})
    with pytest.raises(ValidationError, match="two series have one label"):
        Claim(**good | {"series": [good["series"][0]] * 2})
    content = json.loads(result.model_dump_json())
    content["claims"][0]["series"][0]["y"].pop()
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"x\.json does not fit the schema"):
        load_result(tmp_path / "x.json")


# how they are computed


def test_a_claim_is_a_function_of_the_seed_alone(result: TheoryResult) -> None:
    told: list[tuple[str, int, int]] = []
    again = theory(["topk", "take-all"], seed=0, progress=lambda *done: told.append(done))
    assert list(again.claims) == [next(c for c in result.claims if c.name == n) for n in ("topk", "take-all")]
    assert told == [("topk", 1, 2), ("take-all", 2, 2)]
    assert theory(["take-all"], seed=1).claims[0] != again.claims[1]


def test_misuse_names_the_argument() -> None:
    with pytest.raises(InputError, match="unknown claim 'nothing'; there are: ipps-optimum"):
        theory(["nothing"])
    for seed in (-1, 2**63):
        with pytest.raises(InputError, match=f"seed={seed} must be"):
            theory(["topk"], seed=seed)
