"""One self-contained HTML page from a folder of results: tables, figures, and what they mean.

wtacrs draw FOLDER [OUT.html]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wtacrs.estimators import InputError
from wtacrs.figures.kinds import view_of, views
from wtacrs.figures.sections.blocks import (
    Block,
    Cell,
    Code,
    Definitions,
    Named,
    Paragraph,
    Picture,
    Section,
    Table,
    number,
)
from wtacrs.validation.records.base import Result
from wtacrs.validation.records.results import load_result, write_text

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEMPLATE = "report.html.j2"


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of all results directly in a folder.

    Every figure is drawn anew from the JSON files and held by the page itself. A PNG file of the folder that
    is not one of these figures is shown at the end under its name. Training runs, comparisons, sweeps and checks that
    the folder does not hold are named in a sentence.

    Args:
        folder: holds result files (`*.json`) and possibly pictures (`*.png`); sub-folders are not read.
        out: the HTML file; default `report.html` in the folder.

    Returns:
        the path written.

    Raises:
        InputError: if the folder is missing, holds no result, or holds a JSON file that is not a result.
    """
    folder, results = Path(folder), read_results(folder)
    sections = [_stamps(results)]
    for kind, view in views().items():
        mine = [named for named in results if named.result.kind == kind]
        if mine or view.expected:
            sections.append(view.section(mine))
    own = {png for section in sections for png in section.pictures}
    sections += _other_pictures(folder, own)
    title = f"wtacrs: results of {folder.resolve().name}"
    target = Path(out) if out is not None else folder / "report.html"
    try:
        return write_text(target, _page(title, _introduction(), sections))
    except OSError as error:
        raise InputError(f"report file {target}: {error.strerror or error}") from None


def read_results(folder: Path) -> list[Named[Result]]:
    """All results directly in a folder, in the order of their file names.

    Raises:
        InputError: as `write_report`.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder}: not a folder; give one that holds result files (*.json)")
    files = sorted(path for path in folder.glob("*.json") if path.is_file())
    if not files:
        raise InputError(f"folder {folder}: holds no result file (*.json)")
    results = [Named(path.name, load_result(path)) for path in files]
    for _, result in results:
        view_of(result.kind)  # a kind without a section is refused, not left out
    return results


def _page(title: str, introduction: Sequence[Block], sections: Sequence[Section]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    template = environment.get_template(TEMPLATE)
    return template.render(title=title, introduction=introduction, sections=sections, number=number)


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


def _other_pictures(folder: Path, own: set[bytes]) -> list[Section]:
    section = Section("Other pictures in the folder")
    for path in sorted(folder.glob("*.png")):
        content = path.read_bytes()
        if not content.startswith(PNG_SIGNATURE):
            raise InputError(f"picture file {path}: not a PNG")
        if content not in own:
            section.add(Picture(content, path.stem, path.name))
    return [section] if section.blocks else []
