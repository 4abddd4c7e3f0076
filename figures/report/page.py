"""Pieces of a self-contained HTML page: escaped text, tables, pictures inline; no script, nothing fetched."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #666; --line: #ddd; --paper: #fff; --shade: #f5f6f8;
  --good: #00734f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a5a5a5; --line: #3a3d42; --paper: #16181c;
  --shade: #1f2227; --good: #5fd3a6; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin-top: 2.4rem;
  border-bottom: 1px solid var(--line); padding-bottom: .2rem; } h3 { font-size: 1.02rem; margin-bottom: .3rem; }
p { max-width: 52rem; } .soft, figcaption { color: var(--soft); } dl { display: grid;
  grid-template-columns: max-content 1fr; gap: .15rem 1rem; } dt { font-weight: 600; } dd { margin: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .86rem; margin: .6rem 0 1rem; }
th, td { padding: .22rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { background: var(--shade); font-weight: 600; } th.group { text-align: center; }
td.number, th.number { text-align: right; } td code { white-space: nowrap; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 6px; padding: 8px; box-sizing: border-box; }
figcaption { max-width: 52rem; } summary { cursor: pointer; } code { font-size: .92em; }
"""


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


Cell = str | float | None


def text(value: object) -> Markup:
    """HTML of a piece of text; `Markup` passes as it is."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def number(value: float | None, error: float | None = None) -> str:
    """Three significant digits, with `± error` where there is one; a dash for None."""
    if value is None:
        return "–"
    return _digits(value) + (f" ± {_digits(error)}" if error is not None else "")


def percent(fraction: float) -> str:
    """A fraction as per cent with one decimal."""
    return f"{100 * fraction:.1f} %" if math.isfinite(fraction) else str(fraction)


def paragraph(content: str, kind: str = "") -> Markup:
    """One paragraph, of class `kind` if given."""
    return Markup(f"<p{_class(kind)}>{text(content)}</p>")


def code(content: str) -> Markup:
    """Text in the typewriter face."""
    return Markup(f"<code>{text(content)}</code>")


def section(title: str, *content: Markup) -> Markup:
    """A heading of second rank and what stands under it."""
    return Markup(f"<section><h2>{text(title)}</h2>\n" + "\n".join(content) + "\n</section>")


def heading(title: str) -> Markup:
    """A heading of third rank."""
    return Markup(f"<h3>{text(title)}</h3>")


def details(summary: str, *content: Markup) -> Markup:
    """A part that is folded away at first."""
    return Markup(f"<details><summary>{text(summary)}</summary>\n" + "\n".join(content) + "\n</details>")


def definitions(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Terms and what they mean."""
    return Markup("<dl>" + "".join(f"<dt>{text(t)}</dt><dd>{text(d)}</dd>" for t, d in pairs) + "</dl>")


def picture(png: bytes, alternative: str, caption: str) -> Markup:
    """A PNG inside the page, with its text for those who do not see it and one sentence of explanation."""
    data = base64.b64encode(png).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(alternative, quote=True)}">'
    return Markup(f"<figure>{image}<figcaption>{text(caption)}</figcaption></figure>")


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    groups: Sequence[tuple[str, int]] = (),
    kinds: Sequence[str] = (),
) -> Markup:
    """A table: columns of numbers are set to the right.

    Args:
        head: column titles.
        rows: cells; a float or None is printed by `number`, text is escaped.
        groups: titles over spans of columns, `(title, number of columns)`.
        kinds: class of each column where it is not to be told from the cell, for example "number".
    """
    top = "".join(f'<th class="group" colspan="{span}">{text(title)}</th>' for title, span in groups)
    top = f"<tr>{top}</tr>" if groups else ""
    titles = "".join(f"<th{_class(kind)}>{text(title)}</th>" for title, kind in _padded(head, kinds))
    body = "\n".join("<tr>" + "".join(_cell(c, k) for c, k in _padded(row, kinds)) + "</tr>" for row in rows)
    head_rows = f"<thead>{top}<tr>{titles}</tr></thead>"
    return Markup(f'<div class="scroll"><table>{head_rows}\n<tbody>\n{body}\n</tbody></table></div>')


def document(title: str, *content: Markup) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(content)
        + "\n</body>\n</html>\n"
    )


def _digits(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}"


def _padded(row: Sequence[Cell], kinds: Sequence[str]) -> Iterable[tuple[Cell, str]]:
    return zip(row, [*kinds, *[""] * (len(row) - len(kinds))], strict=True)


def _cell(content: Cell, kind: str) -> str:
    if content is None or isinstance(content, (int, float)):
        return f'<td class="number">{number(content)}</td>'
    return f"<td{_class(kind)}>{text(content)}</td>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
