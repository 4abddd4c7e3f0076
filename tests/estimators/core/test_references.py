"""References to somebody's own code wherever a registered name may stand, and specs that lead back to it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.paths import TESTS

from wtacrs.estimators import CRS, ControlVariate, InputError, available, lookup, make, spec
from wtacrs.estimators.core import registry
from wtacrs.estimators.core.references import is_reference, load_reference
from wtacrs.estimators.core.sizing import budget_of, missing_size, resized, sized, sizeless
from wtacrs.estimators.core.specs import Spec, parse

pytestmark = pytest.mark.usefixtures("unchecked")

FILE = """
from dataclasses import dataclass
from typing import ClassVar
from wtacrs.estimators import CRS, ControlVariate, Estimator, Traits, register
from neighbour import Theirs

@dataclass(frozen=True, repr=False)
class Mine(CRS):
    flavour: str = "plain"

    def __post_init__(self):
        super().__post_init__()
        if self.flavour == "bitter":
            raise ValueError("too bitter")

@register("entered")
@dataclass(frozen=True, repr=False)
class Entered(CRS): ...

class Bare(CRS): ...

@dataclass(frozen=True)
class Loud(CRS): ...

class Box:
    Inner = Mine

def build(budget=0.5): return Mine(budget)
def sized_by_caller(budget, flavour="plain"): return Mine(budget, flavour)
def of_the_zoo(k): return CRS(budget=k)
def mixed(budget=0.25): return ControlVariate(rows=Mine(budget))
def of_the_neighbour(): return Theirs(budget=3)
def open_to_all(**anything): return CRS(**anything)
def local():
    @dataclass(frozen=True, repr=False)
    class Hidden(CRS): ...
    return Hidden(budget=3)
def fails(): raise ZeroDivisionError("boom")
def text(): return "crs"
def product(x, dy): return dy.T @ x
instance = Mine(budget=7)
number = 3
class Other: ...
"""
NEIGHBOUR = """
from dataclasses import dataclass
from wtacrs.estimators import CRS

@dataclass(frozen=True, repr=False)
class Theirs(CRS): ...
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's file in the current folder; what it registers is forgotten afterwards."""
    available()  # a room is imported once, and must stay entered
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    return path


MADE = [
    ("mine.py:Mine(budget=0.3)", 'mine.py:Mine(budget=0.3, flavour="plain")'),
    ('mine.py:Mine(flavour="a b", budget=3)', 'mine.py:Mine(budget=3, flavour="a b")'),
    ("mine.py:Entered(budget=0.3)", "mine.py:Entered(budget=0.3)"),
    ("mine.py:Box.Inner(budget=2)", 'mine.py:Box.Inner(budget=2, flavour="plain")'),
    ("mine.py:build", 'mine.py:Mine(budget=0.5, flavour="plain")'),
    ("mine.py:build()", 'mine.py:Mine(budget=0.5, flavour="plain")'),
    ("mine.py:build(budget=0.3)", 'mine.py:Mine(budget=0.3, flavour="plain")'),
    ("mine.py:of_the_zoo(k=5)", "crs(budget=5)"),
    ("mine.py:open_to_all(budget=5)", "crs(budget=5)"),
    ("mine.py:of_the_neighbour", "mine.py:Theirs(budget=3)"),
    ("mine.py:CRS(budget=5)", "crs(budget=5)"),
    ("mine.py:instance", 'mine.py:Mine(budget=7, flavour="plain")'),
    ("mine.py:instance(budget=9)", 'mine.py:Mine(budget=9, flavour="plain")'),
    ("mine:Mine(budget=0.3)", 'mine:Mine(budget=0.3, flavour="plain")'),
    (
        "quantized_rows(bits=2, rows=mine.py:Mine(budget=0.3))",
        'quantized_rows(rows=mine.py:Mine(budget=0.3, flavour="plain"), bits=2, group=None, rounding="dithered")',
    ),
    (
        "quantized_rows(bits=2, rows=mine.py:build)",
        'quantized_rows(rows=mine.py:Mine(budget=0.5, flavour="plain"), bits=2, group=None, rounding="dithered")',
    ),
    (
        "mine.py:mixed",
        'control_variate(rows=mine.py:Mine(budget=0.25, flavour="plain"), base="mean+lowrank", rank=8)',
    ),
]


@pytest.mark.parametrize(("text", "expected"), MADE)
def test_what_a_reference_makes_and_the_spec_that_leads_back(file: Path, text: str, expected: str) -> None:
    before = list(sys.path)
    made = make(text)
    assert sys.path == before
    assert spec(made) == expected
    again = make(spec(made))
    assert again == made
    assert type(again) is type(made)
    assert hash(again) == hash(made)
    assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    assert made.contract(made.compress(x, generator=torch.Generator().manual_seed(1)), x).shape == (8, 8)
    sys.modules.pop("mine", None)


@pytest.mark.parametrize(
    "path",
    ["a b/mine.py", "a (1)/mine.py", "a,b/mine.py", "a=b/mine.py", 'it"s/mine.py', "a[0]/mine.py", "ü/mine.py"],
)
def test_any_path_can_be_written(file: Path, path: str) -> None:
    Path(path).parent.mkdir()
    Path(path).write_text(FILE)
    sys.modules.pop("neighbour", None)
    quoted = '"' + path.replace('"', '\\"') + ':Mine"(budget=3)'
    made = make(quoted)
    assert make(spec(made)) == made
    assert spec(made).startswith('"') == (path != "ü/mine.py")
    nested = make(f"quantized_rows(rows={quoted})")
    assert make(spec(nested)) == nested
    assert nested.rows == made  # type: ignore[attr-defined]
    assert parse(str(parse(quoted))) == parse(quoted)
    assert parse(sizeless(quoted)).name == f"{path}:Mine"
    if not path.startswith(("a (", 'it"s', "a=b", "a[", "a,b")):
        assert make(f"{path}:Mine(budget=3)") == made  # no quotes are needed at the beginning


def test_sizes_are_substituted_as_in_registered_names(file: Path) -> None:
    assert missing_size("mine.py:Mine") == missing_size("mine.py:sized_by_caller") == "budget"
    assert missing_size("mine.py:build") is None
    assert missing_size("mine.py:instance") is None
    assert missing_size("quantized_rows(rows=mine.py:Mine)") == "budget"
    mine = lookup("mine.py:Mine")
    assert sized("mine.py:Mine", 0.2) == mine(budget=0.2)  # type: ignore[call-arg]
    assert sized('mine.py:sized_by_caller(flavour="odd")', 4) == mine(budget=4, flavour="odd")  # type: ignore[call-arg]
    assert spec(sized("quantized_rows(rows=mine.py:Mine)", 0.2)).startswith(
        "quantized_rows(rows=mine.py:Mine(budget=0.2"
    )
    assert budget_of(make("mine.py:build")) == 0.5
    assert budget_of("mine.py:build(budget=0.1)") == 0.1
    assert resized(make("mine.py:build"), 3) == mine(budget=3)  # type: ignore[call-arg]
    assert resized(make("quantized_rows(rows=mine.py:instance)"), 2).rows == mine(budget=2)  # type: ignore[attr-defined, call-arg]
    assert sizeless(make("mine.py:instance")) == sizeless("mine.py:Mine(budget=3)") == "mine.py:Mine"


def test_text_about_a_reference_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stored results say of themselves is read by figures and tables: no code of theirs runs there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    assert sizeless("trap.py:Mine(budget=3, flavour=2)") == "trap.py:Mine(flavour=2)"
    assert budget_of("trap.py:Mine(budget=3)") == 3
    with pytest.raises(InputError, match=r"trap\.py cannot be imported: SystemExit: imported"):
        make("trap.py:Mine(budget=3)")


def test_a_registered_class_keeps_its_name_beside_its_reference(file: Path) -> None:
    entered = make("mine.py:Entered(budget=3)")
    assert make("entered(budget=3)") == entered
    assert type(entered).name == "entered"
    assert spec(make("entered(budget=3)")) == "mine.py:Entered(budget=3)"  # no other process knows the name


def test_a_class_derived_from_a_registered_one_has_a_name_of_its_own(file: Path) -> None:
    with pytest.raises(InputError, match=r"^Mine: budget=0 must be"):
        make("mine.py:Mine(budget=0)")


def test_another_process_makes_the_same(file: Path) -> None:
    """What workers get is pickled, by the reference; a module's name finds the current folder there too."""
    texts = ["mine.py:Mine(budget=0.3)", "mine.py:mixed", "mine.py:Entered(budget=2)", "mine:Mine(budget=4)"]
    made = [make(text) for text in texts]
    Path("made.pickle").write_bytes(pickle.dumps(made))
    script = "import pickle; print(*pickle.load(open('made.pickle', 'rb')), sep='\\n')"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [repr(estimator) for estimator in made]
    sys.modules.pop("mine", None)


def test_the_example_of_contributing_by_reference() -> None:
    """A process of its own: the example registers a name."""
    script = (
        "from wtacrs.estimators import make, spec\n"
        "made = make('support/third_party.py:Stratified(budget=0.3)')\n"
        "assert spec(made) == 'support/third_party.py:Stratified(budget=0.3)', spec(made)\n"
        "assert make('stratified(budget=0.3)') == made\n"
        "from wtacrs.validation.properties.mechanics import spec_round_trip\n"
        "from wtacrs.validation.properties.property import CheckContext\n"
        "assert spec_round_trip(CheckContext(made, 1e-6, 0)) == spec(made)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=TESTS, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unchanged_file_is_imported_once_and_a_changed_one_anew(file: Path) -> None:
    assert load_reference("mine.py:Mine") is load_reference(f"{file}:Mine")
    first = make("mine.py:Mine(budget=3)")
    file.write_text(FILE.replace('flavour: str = "plain"', 'flavour: str = "changed"'))
    sys.modules.pop("neighbour", None)
    assert make("mine.py:Mine(budget=3)") != first
    assert spec(make("mine.py:Mine(budget=3)")) == 'mine.py:Mine(budget=3, flavour="changed")'


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("mine.py", "'mine.py' is not of the form PATH.py:NAME or package.module:NAME"),
        ("mine.py:", "'mine.py:' is not of the form PATH.py:NAME"),
        ("missing.py:Mine(budget=3)", "missing.py: no such file in "),
        ("/nowhere/missing.py:Mine", "/nowhere/missing.py: no such file"),
        ("quantized_rows(rows=missing.py:Mine)", "missing.py: no such file in "),
        ("mine.py:Mnie(budget=3)", "mine.py has no 'Mnie'; did you mean 'Mine'?"),
        ("no.such.module:Mine", "no.such.module cannot be imported: ModuleNotFoundError"),
        ("syntax.py:f", "syntax.py cannot be imported: SyntaxError"),
        ("relative.py:f", "with no known parent package; name it as package.module:NAME"),
        (
            "mine.py:Mine(bugdet=3)",
            "mine.py:Mine has no field 'bugdet' (did you mean budget?); it has: budget, flavour",
        ),
        ("mine.py:Mine", "mine.py:Mine needs budget, as in mine.py:Mine(budget=…)"),
        (
            "mine.py:build(bugdet=3)",
            "mine.py:build has no argument 'bugdet' (did you mean budget?); it has: budget",
        ),
        ("mine.py:product", "mine.py:product needs x, dy, as in mine.py:product(x=…); an Estimator class"),
        ("mine.py:Mine(0.3)", "write values with their names"),
        ('mine.py:Mine(budget=3, flavour="bitter")', "mine.py:Mine(…) raised ValueError: too bitter"),
        ("mine.py:instance(budget=0)", "budget=0 must be"),
        ("mine.py:fails", "mine.py:fails(…) raised ZeroDivisionError: boom"),
        ("mine.py:text", "mine.py:text(…) returned str: an Estimator class, an estimator or a function"),
        ("mine.py:number", "mine.py:number is of type int: an Estimator class"),
        ("mine.py:Other", "mine.py:Other is a class that does not derive from Estimator"),
        ("mine.py:Bare(budget=3)", "mine.py:Bare: Bare must be a dataclass(frozen=True, repr=False)"),
        ("mine.py:Loud(budget=3)", "mine.py:Loud: Loud must be a dataclass(frozen=True, repr=False)"),
        ("mine.py:local", "Hidden, which another process could not find: define it at the top of mine.py"),
        ("a (1)/mine.py:Mine(budget=3)", 'a path with spaces or brackets stands in quotes, as in "my code/'),
        ('quantized_rows(rows="mine.py:Mine")', "rows='mine.py:Mine'"),
    ],
)
def test_a_wrong_reference_is_refused_in_one_line(file: Path, text: str, fragment: str) -> None:
    Path("syntax.py").write_text("def f(:\n")
    Path("relative.py").write_text("from .neighbour import Theirs\n")
    with pytest.raises(InputError) as caught:
        make(text)
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("crs", False),
        ("crs(budget=0.3)", False),
        ("crs(budget=0.3", False),
        ('wta_crs(budget=0.3, winners="a:b")', False),
        ("quantized_rows(rows=mine.py:Mine(budget=0.3))", False),
        ("file.py:name", True),
        ("file.py:name(budget=0.3)", True),
        ('"a b/file.py:name"(budget=0.3)', True),
        ("a/b c (1)/file.py:name", True),
        ("file.py", True),
        ("package.module:name", True),
    ],
)
def test_references_and_specs_are_told_apart(text: str, expected: bool) -> None:
    assert is_reference(text) is expected


def test_strings_are_left_as_they_are() -> None:
    assert parse("theirs(winners=\"a.py:b\", other='c:d')").fields == {"winners": "a.py:b", "other": "c:d"}
    assert CRS.reference is ControlVariate.reference is None


PATHS = st.text(min_size=1, max_size=12).map(lambda text: f"{text}.py:Mine")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
FIELDS = st.dictionaries(st.sampled_from(["budget", "rows", "k", "kind"]), VALUES, max_size=3)
SPECS = st.builds(Spec, st.one_of(PATHS, st.sampled_from(["crs", "mine"])), FIELDS)
NESTED = st.builds(lambda outer, inner: Spec(outer.name, {**outer.fields, "inner": inner}), SPECS, SPECS)


@given(st.one_of(SPECS, NESTED))
def test_what_is_written_is_read_whatever_the_path(written_spec: Spec) -> None:
    assert parse(str(written_spec)) == written_spec


@given(st.text(alphabet="ab.py:()=,\"' \\/#1\n", max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except InputError:
        return
    assert parse(str(found)) == found
