"""One self-contained HTML page from any results: the verdict, tables, figures, and what they mean.

wtacrs report DIR… [--out OUT.html]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wtacrs.estimators import InputError
from wtacrs.figures.kinds import views
from wtacrs.figures.report.finding import Found, find_results
from wtacrs.figures.report.verdict import Sentence, pairs, verdict
from wtacrs.figures.sections.blocks import (
    Block,
    Cell,
    Code,
    Definitions,
    Details,
    Named,
    Paragraph,
    Picture,
    Section,
    Table,
    number,
    percent,
)
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.memory import megabytes
from wtacrs.validation.records.results import write_text
from wtacrs.validation.records.training import TrainingResult
from wtacrs.validation.records.units import model_name

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEMPLATE = "report.html.j2"


def write_report(paths: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the page of all results in files and folders, sub-folders included.

    Its first section is the verdict. Every figure is drawn anew from the JSON files and held by the page itself. A PNG
    file of the folders that is not one of these figures is shown at the end under its name. Files that could not be read
    are named, and so are the commands that would measure what the verdict does not know.

    Args:
        paths: result files (`*.json`), and folders that hold them and possibly pictures (`*.png`).
        out: the HTML file; default `report.html` in the first folder, or beside the first file.

    Returns:
        the path written.

    Raises:
        InputError: if a path is missing, no result is found, or the page cannot be written.
    """
    given = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    found = find_results(given)
    sections = _runs(found.results)
    for kind, view in views().items():
        mine = [named for named in found.results if named.result.kind == kind]
        if mine:
            sections.append(view.section(mine))
    own = {png for section in sections for png in section.pictures}
    sections += [_files(found), _stamps(found.results), _terms(), *_other_pictures(found, own)]
    title = f"wtacrs: results of {', '.join(path.resolve().name for path in given)}"
    first = given[0] if given[0].is_dir() else given[0].parent
    target = Path(out) if out is not None else first / "report.html"
    try:
        return write_text(target, _page(title, verdict(found.results), sections))
    except OSError as error:
        raise InputError(f"report file {target}: {error.strerror or error}") from None


def _runs(results: Sequence[Named[Result]]) -> list[Section]:
    """Every training run, and the exact one beside it where there is one."""
    head = ("method", "task", "model", "seed", "metric", "final", "exact", "difference", "MB kept",
            "of stock linear layers", "time of a step, of exact", "file")  # fmt: skip
    beside = {pair.run.file: pair.exact.result for pair in pairs(results)}
    rows: list[list[Cell]] = []
    for file, mine in results:
        if not isinstance(mine, TrainingResult):
            continue
        exact = beside.get(file)
        rows.append([
            Code(mine.method), mine.task, model_name(mine.model),
            "–" if mine.stamp.seed is None else str(mine.stamp.seed), mine.metric, f"{mine.final:.3f}",
            None if exact is None else f"{exact.final:.3f}",
            None if exact is None else f"{mine.final - exact.final:+.3f}",
            None if mine.kept_bytes is None else megabytes(mine.kept_bytes),
            percent(mine.kept_bytes / mine.exact_bytes) if mine.kept_bytes and mine.exact_bytes else None,
            f"{median(mine.time_ratios):.2f}" if mine.time_ratios else None, Code(file),
        ])  # fmt: skip
    section = Section("Runs")
    caption = (
        "Every run, and the exact one of the same task, model, steps and seed where there is one; bytes beside those of "
        "stock linear layers, which keep their inputs, with the same lean neighbours where there are some"
    )
    section.add(Table(head, rows, numeric=(3, *range(5, 11)), caption=caption))
    return [section] if rows else []


def _files(found: Found) -> Section:
    """What was read, and what was not."""
    section = Section("Files")
    count = len(found.results)
    section.add(Paragraph(f"{count} result file{'' if count == 1 else 's'} read."))
    for name, why in found.unreadable:
        section.add(Paragraph(f"Not on the page: {name}: {why}."))
    for name, first in found.copies:
        section.add(Paragraph(f"{name} holds the same result as {first}, which is shown.", soft=True))
    for folder in found.unfinished:
        section.add(Paragraph(f"Run without a result file, unfinished unless it was written elsewhere: {folder}."))
    if found.others:
        names = Paragraph(", ".join(found.others), soft=True)
        section.add(Details(f"JSON files that are not results: {len(found.others)}", [names]))
    return section


def _terms() -> Section:
    section = Section("Terms")
    section.add(*_introduction())
    return section


def _page(title: str, sentences: Sequence[Sentence], sections: Sequence[Section]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    template = environment.get_template(TEMPLATE)
    return template.render(title=title, verdict=sentences, sections=sections, number=number)


def _introduction() -> list[Block]:
    """What the numbers of the page mean."""
    lead = (
        "A linear layer's weight gradient is G = dYᵀX, a sum over n rows (tokens). An estimator keeps a "
        "compressed copy of X between the forward and the backward pass and returns an estimate Ĝ in place of G."
    )
    terms = [
        ("budget", "the fraction of the n rows that is kept; k is their number"),
        ("bias²", "‖EĜ − G‖² / ‖G‖², the part of the error that further draws on the same rows do not average out"),
        ("variance", "E‖Ĝ − EĜ‖² / ‖G‖², the part that averages out; MSE = bias² + variance"),
        ("scores", "the row sizes that decide who is kept: row norms ‖xᵢ‖ are known in the forward pass; the "
         "oracle's ‖xᵢ‖‖yᵢ‖ need dY as well and show what better scores would be worth; stale ones take ‖yᵢ‖ from an "
         "earlier state of the training"),
        ("|C|", "the number of largest rows (winners) that WTA-CRS keeps with certainty; the other "
         "k − |C| are drawn"),
        ("bytes", "what one layer by itself stores between the passes, against the exact activation"),
        ("MACs", "multiply–accumulates in the matrix products of both passes, against the exact "
         "product; passes over single entries, sorting and packing are not counted"),
    ]  # fmt: skip
    return [Paragraph(lead), Definitions(terms)]


def _stamps(results: Sequence[Named[Result]]) -> Section:
    """What was run: one line per file; the versions once if they are all the same."""
    versions = [_versions(result) for _, result in results]
    common = len(set(versions)) == 1
    rows = []
    for (file, result), version in zip(results, versions, strict=True):
        s = result.stamp
        seed = "–" if s.seed is None else str(s.seed)
        inputs = "; ".join(f"{key} = {value}" for key, value in sorted(s.inputs.items())) or "–"
        row: list[Cell] = [Code(file), result.kind, s.device, str(s.threads), seed, inputs]
        rows.append(row if common else [*row, version])
    head = ["file", "kind", "device", "threads", "seed", "inputs", *([] if common else ["versions"])]
    section = Section("What was run")
    if common:
        section.add(Paragraph(f"All with {versions[0]}."))
    section.add(Table(head, rows, numeric=(3, 4)))
    return section


def _versions(result: Result) -> str:
    s = result.stamp
    return f"wtacrs {s.wtacrs}, Python {s.python}, torch {s.torch}, numpy {s.numpy}"


def _other_pictures(found: Found, own: set[bytes]) -> list[Section]:
    section = Section("Other pictures in the folder")
    for name, path in found.pictures:
        content = path.read_bytes()
        if not content.startswith(PNG_SIGNATURE):
            raise InputError(f"picture file {path}: not a PNG")
        if content not in own:
            text = f"Picture {path.stem} of the folder; what it shows is not known here"
            section.add(Picture(content, text, name))
    return [section] if section.blocks else []
