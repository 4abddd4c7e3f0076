"""Estimators of installed packages: found by name, and broken ones told with their distribution."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import refused
from support.installed import install

from wtacrs.estimators import InputError, WtacrsWarning, available, lookup, make, spec
from wtacrs.estimators.core import entry_points, registry
from wtacrs.estimators.core.registry import find, unusable
from wtacrs.estimators.core.sizing import missing_size, sizeless
from wtacrs.integration.cli import main
from wtacrs.validation.benchmarks.bench import registered_entries

pytestmark = pytest.mark.usefixtures("unchecked")

MODULE = '''
"""Rows of Acme."""
from dataclasses import dataclass
from wtacrs.estimators import CRS, register

@dataclass(frozen=True, repr=False)
class Unregistered(CRS):
    """Draw as Acme does."""

@register("acme_entered")
@dataclass(frozen=True, repr=False)
class Entered(CRS): ...

@dataclass(frozen=True, repr=False)
class Flavoured(CRS):
    flavour: str

class Loose(CRS): ...
number = 3
'''
DECLARED = {
    "acme_plain": "acme_rows:Unregistered",
    "acme_entered": "acme_rows:Entered",
    "acme_flavoured": "acme_rows:Flavoured",
    "acme_alias": "acme_rows:Entered",
    "acme_loose": "acme_rows:Loose",
    "acme_number": "acme_rows:number",
    "acme_absent": "acme_rows:Absent",
    "acme_needs": "acme_needs:Anything",
    "crs": "acme_rows:Unregistered",
}
BROKEN = {
    "acme_alias": "is registered as 'acme_entered'",
    "acme_loose": "must be a dataclass(frozen=True, repr=False)",
    "acme_number": "must derive from wtacrs.estimators.Estimator",
    "acme_absent": "AttributeError: module 'acme_rows' has no attribute 'Absent'",
    "acme_needs": "ModuleNotFoundError: No module named 'absent_library'",
    "acme_twice": "is declared by two distributions, acme-estimators and other-estimators",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    available()  # a room is imported once, and must stay entered
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    (tmp_path / "acme_rows.py").write_text(MODULE)
    (tmp_path / "acme_needs.py").write_text("import absent_library\n")
    install(tmp_path, "acme-estimators", {**DECLARED, "acme_twice": "acme_rows:Unregistered"})
    install(
        tmp_path, "other-estimators", {"acme_twice": "acme_rows:Entered", "acme_plain": "acme_rows:Unregistered"}
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_rows", raising=False)
    entry_points._loaded.cache_clear()
    return tmp_path


def test_names_are_found_and_lead_back(installed: Path) -> None:
    for name in ("acme_plain", "acme_entered"):
        made = make(f"{name}(budget=0.3)")
        assert spec(made) == f"{name}(budget=0.3)"
        assert make(spec(made)) == made == pickle.loads(pickle.dumps(made))
        assert type(made) is lookup(name) is find(name)
        assert missing_size(f"quantized_rows(rows={name})") == "budget"
        assert spec(make(f"quantized_rows(rows={name}(budget=3))")).startswith(
            f"quantized_rows(rows={name}(budget=3)"
        )
        assert name in available()
    by_reference = make("acme_rows:Unregistered(budget=3)")
    assert spec(by_reference) == "acme_plain(budget=3)"


def test_nothing_is_imported_before_a_name_is_asked_for(installed: Path) -> None:
    make("wta_crs(budget=0.3)")
    assert "acme_rows" not in sys.modules
    make("acme_plain(budget=0.3)")
    assert "acme_rows" in sys.modules


def test_a_name_of_this_package_stays_its_own(installed: Path) -> None:
    assert lookup("crs").__module__ == "wtacrs.estimators.rows.crs"
    assert "crs" in unusable()


@pytest.mark.parametrize(("name", "reason"), BROKEN.items())
def test_a_broken_one_names_its_distribution_when_it_is_asked_for(installed: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        make(f"{name}(budget=0.3)")
    assert reason in str(caught.value)
    assert f"{name!r}" in str(caught.value)
    assert "acme-estimators" in str(caught.value)
    assert name not in available()
    assert find(name) is None
    assert sizeless(f"{name}(budget=0.3)") == name  # a stored result of it is read


def test_broken_ones_are_listed_and_fatal_to_nothing(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo"]) == 0
    printed = capsys.readouterr().out
    flat = " ".join(printed.replace("│", " ").split())
    assert "acme_plain" in printed
    assert "Draw as Acme does" in flat
    for name in (*BROKEN, "crs"):
        assert f"not usable: {unusable()[name]}" in " ".join(printed.split("parameters")[-1].split()), name
    assert "'acme_needs' of the distribution acme-estimators" in refused(capsys, "zoo", "acme_needs")
    assert main(["zoo", "acme_plain"]) == 0
    assert "Draw as Acme does" in capsys.readouterr().out


def test_one_that_needs_more_than_a_size_is_left_out_of_all(installed: Path) -> None:
    with pytest.warns(WtacrsWarning, match="acme_flavoured is left out: .*acme_flavoured needs flavour"):
        entries = registered_entries()
    assert "acme_plain(budget=0.3)" in {entry.estimator for entry in entries}


def test_another_process_finds_them(installed: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from wtacrs.estimators import make\n"
        "print(make('acme_entered(budget=3)'), make('acme_plain(budget=3)'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["acme_entered(budget=3)", "acme_plain(budget=3)"], done.stderr
