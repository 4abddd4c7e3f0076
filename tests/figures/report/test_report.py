"""The report holds the numbers of the results, explains itself, and needs nothing but its one file."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from statistics import median

import pytest
from support import figure_examples as examples

from wtacrs.estimators import InputError
from wtacrs.figures import style
from wtacrs.figures.plots import winner_sweep
from wtacrs.figures.report import report
from wtacrs.figures.report.report import write_report
from wtacrs.figures.sections import training
from wtacrs.figures.sections.blocks import Code, Named, Paragraph, Table
from wtacrs.validation.records.results import write_result
from wtacrs.validation.records.training import StepCost
from wtacrs.validation.summaries.series import series
from wtacrs.validation.summaries.sweep import regret

NASTY = "enc<script>alert('x')</script>&\"q\""
RUNS = ("exact", "wta_crs(budget=0.3)", "crs(budget=0.1)")
VOID = {"meta", "source", "img", "br"}


class Outline(HTMLParser):
    """Tags with their attributes, balance, and the text of all cells by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "a & b"
    layers = (NASTY, *examples.LAYERS[:3])
    write_result(path / "compare.json", examples.comparison(layers))
    write_result(path / "sweep.json", examples.sweep(layers))
    write_result(path / "check.json", examples.check())
    for i, text in enumerate(RUNS):
        write_result(path / f"train{i}.json", examples.training(text, seed=i))
    winner_sweep.draw(examples.sweep(layers), path / "already drawn.png")
    with style.figure(2, 2) as fig:
        fig.subplots().plot([1, 2], [2, 1])
    style.save(fig, path / "extra.png")
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_the_page_is_balanced_html_and_written_in_the_folder(folder: Path, outline: Outline) -> None:
    assert outline.open == []
    assert (folder / "report.html").is_file()
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_the_same_results_give_the_same_bytes(folder: Path, page: str, tmp_path: Path) -> None:
    assert write_report(folder, tmp_path / "deep" / "again.html").read_text(encoding="utf-8") == page


def test_nothing_outside_the_file_is_referred_to(page: str, outline: Outline) -> None:
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    for tag, attributes in outline.tags:
        assert tag not in ("link", "iframe")
        assert tag != "script" or not attributes
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


def test_text_from_results_is_escaped(page: str, outline: Outline) -> None:
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&#34;q&#34;" in page
    assert any(NASTY in row for row in outline.rows)
    assert "<h1>wtacrs: results of a &amp; b</h1>" in page


def test_pictures_are_inside_drawn_once_and_described(folder: Path, outline: Outline) -> None:
    images = [attributes for tag, attributes in outline.tags if tag == "img"]
    content = [base64.b64decode((a["src"] or "").partition("base64,")[2]) for a in images]
    assert all(c.startswith(report.PNG_SIGNATURE) for c in content)
    # training, error, ratio to the oracle, |C| and its regret, and one not ours
    assert len(content) == len(set(content)) == 6
    assert (folder / "already drawn.png").read_bytes() in content
    assert content[-1] == (folder / "extra.png").read_bytes()
    assert all(a["alt"] for a in images)
    assert sum(tag == "figcaption" for tag, _ in outline.tags) == 6


def test_training_table_holds_the_runs(outline: Outline) -> None:
    for i, text in enumerate(RUNS):
        run = examples.training(text, seed=i)
        wanted = [
            "planes", "linear", run.estimator, str(i), "12", "12", "200", "100", "accuracy", f"{run.majority:.3f}",
            f"{run.best:.3f}", f"{run.final:.3f}", "3.0", "1", "–", "–",
            f"train{i}.json",
        ]  # fmt: skip
        assert wanted in outline.rows


def test_training_table_says_what_a_step_keeps() -> None:
    run = examples.training(RUNS[0]).model_copy(update={"kept_bytes": 2_000_000, "exact_bytes": 30_000_000})
    table = next(block for block in training.section([("run", run)]).blocks if isinstance(block, Table))
    (row,) = table.rows
    cells = dict(zip(table.head, row, strict=True))
    assert (cells["MB kept"], cells["by stock linear layers"]) == ("2.00", "30.0")


def test_comparison_table_holds_the_medians(outline: Outline) -> None:
    rows = examples.comparison((NASTY, *examples.LAYERS[:3])).rows
    for name, budget in (("crs", 0.3), ("topk", 0.1), ('wta_crs(winners="optimal")', 0.5)):
        wanted = [name, f"{budget:g}"]
        for kind in ("row-norms", "oracle"):
            mine = [r for r in rows if (series(r.estimator), r.budget, r.scores) == (name, budget, kind)]
            assert len(mine) == 4
            for moment in ("bias_squared", "variance", "mse", "mse_of_mean"):
                value = median(getattr(r, moment) for r in mine)
                wanted.append("0" if value == 0 else f"{value:.3g}")
        (row,) = [r for r in outline.rows if r[:2] == wanted[:2]]
        assert row[:2] + row[4:12] == wanted
        assert row[2] == f"{100 * mine[0].saved_bytes / mine[0].exact_bytes:.1f} %"
        assert row[3] == f"{100 * mine[0].macs / (40 * 6 * 5):.1f} %"
        assert row[12:] == ["closed form", "4"]
    (measured,) = [r for r in outline.rows if r[:2] == ["shrunk", "0.1"]]
    assert measured[3] == "–"
    assert " ± " in measured[6]
    assert measured[8:] == ["–", "–", "–", "–", "Monte Carlo", "4"]


def test_every_comparison_row_is_in_the_details(page: str, outline: Outline) -> None:
    rows = examples.comparison((NASTY, *examples.LAYERS[:3])).rows
    assert f"All {len(rows)} rows, layer by layer" in page
    listed = [tuple(r[:3]) for r in outline.rows]
    for row in rows:
        assert (row.layer, row.estimator, row.scores) in listed
    full = [r for r in outline.rows if r[:3] == [NASTY, "shrunk(budget=0.3)", "row-norms"]]
    assert full[0][-3:] == ["–", "1,200", "Monte Carlo, 50 draws"]
    kept = [r for r in outline.rows if r[:3] == [NASTY, "crs(budget=0.3)", "row-norms"]]
    assert kept[0][-3:] == ["360", "1,200", "closed form"]


def test_sweep_tables_hold_choices_and_regrets(outline: Outline) -> None:
    found = examples.sweep((NASTY, *examples.LAYERS[:3])).sweeps
    for s in found:
        (row,) = [r for r in outline.rows if r[:6] == ["small", s.layer, s.scores, "0.3", "40", "12"]]
        assert row[6:11] == [
            str(s.paper), f"{s.variance[s.paper] / s.variance[s.best]:.3f}", str(s.optimal),
            f"{s.variance[s.optimal] / s.variance[s.best]:.3f}", str(s.best),
        ]  # fmt: skip
    oracle = [s for s in found if s.scores == "oracle"]
    (summary,) = [r for r in outline.rows if r[:4] == ["small", "oracle", "0.3", "4"]]
    assert summary[5:7] == [f"{f([regret(s, s.paper) for s in oracle]):.3f}" for f in (median, max)]


def test_verdicts_and_stamps_are_shown(outline: Outline) -> None:
    assert ["topk(budget=0.3)", "✓ holds", "1", "0", "0", "1", "0", "check.json"] in outline.rows
    assert ["full budget", "✓ holds", "k = n"] in outline.rows
    (row,) = [r for r in outline.rows if r[:2] == ["compare.json", "comparison"]]
    assert row[2] == "cpu"
    assert row[4:] == ["0", "captures = layers.safetensors"]


def test_different_versions_are_told_per_file(tmp_path: Path) -> None:
    old = examples.check()
    write_result(tmp_path / "new.json", old)
    write_result(
        tmp_path / "old.json", old.model_copy(update={"stamp": old.stamp.model_copy(update={"torch": "1.0"})})
    )
    outline = Outline(write_report(tmp_path).read_text(encoding="utf-8"))
    (row,) = [r for r in outline.rows if r[0] == "old.json"]
    assert "torch 1.0," in row[-1]


def test_kinds_without_results_have_no_section(tmp_path: Path) -> None:
    write_result(tmp_path / "check.json", examples.check())
    page = write_report(tmp_path).read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Verdict", "Properties", "Files", "What was run", "Terms"]
    assert "No training run is here" in page


def test_every_run_is_in_the_table_paired_or_not(tmp_path: Path) -> None:
    for name, seed in (("exact", 0), ("crs(budget=0.1)", 0), ("crs(budget=0.3)", 7)):
        write_result(tmp_path / f"{name}.json", examples.training(name, seed=seed))
    outline = Outline(write_report(tmp_path).read_text(encoding="utf-8"))
    found = {row[-1]: row for row in outline.rows if len(row) == 12 and row[-1].endswith(".json")}
    assert len(found) == 3
    assert found["crs(budget=0.1).json"][6:8] != ["–", "–"]
    for alone in ("exact.json", "crs(budget=0.3).json"):
        assert found[alone][6:8] == ["–", "–"]


def test_a_failed_property_is_a_failed_verdict(tmp_path: Path) -> None:
    result = examples.check()
    broken = [v.model_copy(update={"status": "broken"}) for v in result.verdicts]
    write_result(tmp_path / "check.json", result.model_copy(update={"verdicts": broken}))
    outline = Outline(write_report(tmp_path).read_text(encoding="utf-8"))
    assert ["topk(budget=0.3)", "✗ broken", "0", "2", "0", "0", "0", "check.json"] in outline.rows


def test_tasks_get_figures_of_their_own_and_an_empty_history_a_sentence(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", examples.training("exact"))
    write_result(tmp_path / "b.json", examples.training("exact", task="other"))
    lost = examples.training("exact", task="lost").model_copy(update={"history": []})
    write_result(tmp_path / "c.json", lost)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<img") == 2
    assert "No figure “Training curves, linear on lost”: " in page


def _missing(folder: Path) -> Path:
    return folder / "absent"


def _empty(folder: Path) -> Path:
    return folder


def _malformed(folder: Path) -> Path:
    (folder / "x.json").write_text("{", encoding="utf-8")
    return folder


def _foreign(folder: Path) -> Path:
    (folder / "x.json").write_text('{"kind": "recipe", "stamp": {}}', encoding="utf-8")
    return folder


def _bad_choice(folder: Path) -> Path:
    one = examples.winner_sweep("a", 0, "oracle").model_copy(update={"paper": 99})
    write_result(folder / "x.json", examples.sweep(()).model_copy(update={"sweeps": [one]}))
    return folder


def _bad_picture(folder: Path) -> Path:
    write_result(folder / "x.json", examples.check())
    (folder / "y.png").write_text("no picture", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (_missing, "not a folder"),
        (_empty, "holds no result file"),
        (_malformed, r"x\.json: is not JSON"),
        (_foreign, r"x\.json holds a result of kind 'recipe', which is not known"),
        (_bad_choice, "paper=99 must be one of its numbers of winners"),
        (_bad_picture, r"y\.png: not a PNG"),
    ],
)
def test_unusable_folders_are_refused_and_nothing_is_written(
    prepare: Callable[[Path], Path], told: str, tmp_path: Path
) -> None:
    folder = prepare(tmp_path)
    with pytest.raises(InputError, match=told):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_runs_alike_but_for_their_length_are_told_apart() -> None:
    whole = examples.training("wta_crs(budget=0.3)")
    cost = {name: StepCost(seconds=[1.0], kept_bytes=4) for name in ("step", "baseline")}
    runs = [whole.model_copy(update={"history": whole.history[:steps], **cost}) for steps in (3, 12)]
    section = training.section([Named(f"{place}.json", run) for place, run in enumerate(runs)])
    table = next(block for block in section.blocks if isinstance(block, Table))
    column = {title: [row[place] for row in table.rows] for place, title in enumerate(table.head)}
    assert column["steps"] == ["3", "12"]
    assert column["epochs"] == ["3", "12"]
    assert column["file"] == [Code("0.json"), Code("1.json")]
    notes = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    assert len(set(notes)) == len(notes) == 4
