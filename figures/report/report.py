"""One self-contained HTML page from a folder of results: tables, figures, and what they mean.

python -m wtacrs.figures.report.report FOLDER [OUT.html]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from wtacrs.estimators import InputError
from wtacrs.figures import command
from wtacrs.figures.report import sections
from wtacrs.figures.report.comparison_section import comparison
from wtacrs.figures.report.page import (
    Markup,
    code,
    definitions,
    document,
    paragraph,
    picture,
    section,
    table,
    text,
)
from wtacrs.figures.report.section_parts import Named
from wtacrs.validation.records.base import Record, Result
from wtacrs.validation.records.check import CheckResult
from wtacrs.validation.records.compare import ComparisonResult
from wtacrs.validation.records.noise import NoiseResult
from wtacrs.validation.records.results import load_result, write_text
from wtacrs.validation.records.sweep import SweepResult
from wtacrs.validation.records.theory import TheoryResult
from wtacrs.validation.records.training import TrainingResult

ResultT = TypeVar("ResultT", bound=Record)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of all results directly in a folder.

    Every figure is drawn anew from the JSON files and held by the page itself. A PNG file of the folder that
    is not one of these figures is shown at the end under its name. A kind of result that the folder does not
    hold is named in a sentence.

    Args:
        folder: holds result files (`*.json`) and possibly pictures (`*.png`); sub-folders are not read.
        out: the HTML file; default `report.html` in the folder.

    Returns:
        the path written.

    Raises:
        InputError: if the folder is missing, holds no result, or holds a JSON file that is not a result.
    """
    folder, results = Path(folder), read_results(folder)
    parts = [
        sections.training(_of_kind(results, TrainingResult)),
        comparison(_of_kind(results, ComparisonResult)),
        sections.sweeps(_of_kind(results, SweepResult)),
        sections.checks(_of_kind(results, CheckResult)),
    ]
    if noise := _of_kind(results, NoiseResult):
        parts.insert(3, sections.noise(noise))
    if theory := _of_kind(results, TheoryResult):
        parts.append(sections.theory(theory))
    own = {png for part in parts for png in part.pictures}
    title = f"wtacrs: results of {folder.resolve().name}"
    page = document(
        title,
        Markup(f"<h1>{text(title)}</h1>"),
        _introduction(),
        _stamps(results),
        *(part.html for part in parts),
        *_other_pictures(folder, own),
    )
    target = out if out is not None else folder / "report.html"
    try:
        return write_text(Path(target), page)
    except OSError as error:
        raise InputError(f"report file {target}: {error.strerror or error}") from None


def read_results(folder: Path) -> list[Named]:
    """All results directly in a folder, in the order of their file names.

    Raises:
        InputError: as `write_report`.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder}: not a folder; give one that holds result files (*.json)")
    files = sorted(path for path in folder.glob("*.json") if path.is_file())
    if not files:
        raise InputError(f"folder {folder}: holds no result file (*.json)")
    return [Named(path.name, load_result(path)) for path in files]


def _introduction() -> Markup:
    """What the numbers of the page mean."""
    lead = (
        "A linear layer's weight gradient is G = dYᵀX, a sum over n rows (tokens). An estimator keeps a "
        "compressed copy of X between the forward and the backward pass and returns an estimate Ĝ in place of G."
    )
    return Markup(
        paragraph(lead)
        + definitions([
            ("budget", "the fraction of the n rows that is kept; k is their number"),
            ("bias²", "‖EĜ − G‖² / ‖G‖², the part of the error that further draws on the same rows do not average out"),
            ("variance", "E‖Ĝ − EĜ‖² / ‖G‖², the part that averages out; MSE = bias² + variance"),
            ("scores", "the row sizes that decide who is kept: row norms ‖xᵢ‖ are known in the forward pass; the "
             "oracle's ‖xᵢ‖‖yᵢ‖ need dY as well and show what better scores would be worth; stale ones take ‖yᵢ‖ from an "
             "earlier state of the training"),
            ("|C|", "the number of largest rows (winners) that WTA-CRS keeps with certainty; the other "
             "k − |C| are drawn"),
            ("bytes", "what is stored between the passes, against the exact activation"),
            ("multiplications", "scalar multiplications in the matrix products of both passes, against the exact "
             "product; passes over single entries, sorting and packing are not counted"),
        ])
    )  # fmt: skip


def _stamps(results: Sequence[Named]) -> Markup:
    """What was run: versions, device, threads, seed and inputs of every file."""
    versions = [_versions(result) for _, result in results]
    common = len(set(versions)) == 1
    rows = []
    for (file, result), version in zip(results, versions, strict=True):
        s = result.stamp
        seed = "–" if s.seed is None else str(s.seed)
        inputs = "; ".join(f"{key} = {value}" for key, value in sorted(s.inputs.items())) or "–"
        row = [code(file), result.kind, s.device, str(s.threads), seed, inputs]
        rows.append(row if common else [*row, version])
    head = ["file", "kind", "device", "threads", "seed", "inputs", *([] if common else ["versions"])]
    listing = table(head, rows, kinds=["", "", "", "number", "number"])
    return section("What was run", *([paragraph(f"All with {versions[0]}.")] if common else []), listing)


def _versions(result: Result) -> str:
    s = result.stamp
    return f"wtacrs {s.wtacrs}, Python {s.python}, torch {s.torch}, numpy {s.numpy}"


def _of_kind(results: Sequence[Named], kind: type[ResultT]) -> list[tuple[str, ResultT]]:
    return [(name, result) for name, result in results if isinstance(result, kind)]


def _other_pictures(folder: Path, own: set[bytes]) -> list[Markup]:
    found = []
    for path in sorted(folder.glob("*.png")):
        content = path.read_bytes()
        if not content.startswith(PNG_SIGNATURE):
            raise InputError(f"picture file {path}: not a PNG")
        if content not in own:
            found.append(picture(content, path.stem, path.name))
    return [section("Other pictures in the folder", *found)] if found else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m wtacrs.figures.report.report`."""
    parser = command.parser("report", "Write one self-contained HTML page from a folder of results.")
    parser.add_argument("folder", type=Path, help="folder with result files (*.json)")
    parser.add_argument("out", type=Path, nargs="?", help="HTML file to write (default: FOLDER/report.html)")
    given = parser.parse_args(arguments)
    return command.run(lambda: write_report(given.folder, given.out))


if __name__ == "__main__":
    sys.exit(main())
