"""Docstrings to plain sentences: reStructuredText reduced to its running text, library names masked."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

MASK = "library"
"""The neutral word that stands where a library was named."""

_SKIPPED_SECTIONS = frozenset(
    {
        *("parameters", "other parameters", "arguments", "args", "keyword args", "inputs", "shape"),
        *("returns", "return", "yields", "outputs", "raises", "warns", "warnings", "receives"),
        *("attributes", "methods", "see also", "references", "examples", "example"),
    }
)
_TEXT_DIRECTIVES = frozenset({"note", "notes", "warning", "caution", "important", "tip", "hint", "attention"})

_NAMED = re.compile(
    r"(?<![\w.\-/])[\w.\-/]*(?:torch|numpy|scipy|scikit|matplotlib|mpl_|mplot|pyplot|pylab|python)(?:[\w.\-/]*\w)?"
    r"|\b_?(?:mpl|npy)\w*|\b(?:np|sp|plt)_\w+"
    r"|\b(?:aten|c10|np|sp|plt|py)\b(?:[.:/\-]+\w+)*"
    r"|\b[\w/]+\.pyi?\b",
    re.IGNORECASE,
)
_ROLE = re.compile(r":[\w:+\-]+:`(?P<role>[^`]*)`|``(?P<literal>[^`]*)``|`(?P<plain>[^`]*)`_{0,2}")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}(?=[^\s*])([^*]*?[^\s*])\*{1,2}(?![\w*])")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|etc|al|Eq|Fig|Ref|Sec|[A-Z])\.)$")
_PLAIN_WORD = re.compile(r"^[\"'(]?[a-z]+[\"'),.;:!?]*$")


def plain_sentences(docstring: str) -> Iterator[str]:
    """Yield the sentences of a docstring, masked; tables, code, doctests and directives are left out."""
    for paragraph in _paragraphs(inspect.cleandoc(docstring).splitlines()):
        text = mask_names(_plain(" ".join(paragraph.split())))
        for sentence in _split(text):
            if _is_plain(sentence):
                yield sentence


def mask_names(text: str) -> str:
    """Replace every mention of one of the libraries, dotted names included, by the word ``library``."""
    return _NAMED.sub(MASK, text)


def normalised(text: str) -> str:
    """Fold what does not make a sentence another one: case, digits, punctuation and spacing."""
    return " ".join(re.sub(r"[^a-z0]+", " ", re.sub(r"\d+", "0", text.casefold())).split())


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Unindented running text: no parameter tables, code, doctests; notes and warnings give up their text."""
    block: list[str] = []
    skipping = False
    position = 0
    while position <= len(lines):
        line = lines[position] if position < len(lines) else ""
        following = lines[position + 1] if position + 1 < len(lines) else ""
        if _is_rule(following) and line.strip():
            skipping = line.strip().rstrip(":").casefold() in _SKIPPED_SECTIONS
            position += 2
            continue
        directive = re.match(r"\.\.\s+([\w\-]+)::\s*(.*)$", line)
        if directive:
            end = _block_end(lines, position)
            if directive[1] in _TEXT_DIRECTIVES and not skipping:
                inner = inspect.cleandoc("\n".join([directive[2], *lines[position + 1 : end]])).splitlines()
                yield from _paragraphs(inner)
            position = end
            continue
        if line.strip() and not line[0].isspace():
            block.append(line)
        else:
            if block and not skipping:
                yield " ".join(block)
            block = []
            if line.strip():
                position = _block_end(lines, position)
                continue
        position += 1


def _is_rule(line: str) -> bool:
    return bool(re.fullmatch(r"[-=~^\"*]{3,}", line.strip()))


def _block_end(lines: list[str], position: int) -> int:
    """The first line after ``position`` that is neither blank nor indented."""
    position += 1
    while position < len(lines) and (not lines[position].strip() or lines[position][0].isspace()):
        position += 1
    return position


def _plain(text: str) -> str:
    """Inline RST to its text: ``:func:`~a.b```, literals, links, emphasis."""

    def inner(match: re.Match[str]) -> str:
        if match["literal"] is not None:
            return match["literal"]
        shown = match["role"] if match["role"] is not None else match["plain"]
        shown = re.sub(r"\s*<[^>]*>$", "", shown)
        return shown.rpartition(".")[2] if shown.startswith("~") else shown

    return _EMPHASIS.sub(r"\1", _ROLE.sub(inner, text)).replace("::", ":").replace("]_", "]")


def _split(text: str) -> Iterator[str]:
    pending = ""
    for piece in _SENTENCE_END.split(text):
        pending = f"{pending} {piece}".strip()
        if not _ABBREVIATION.search(pending):
            yield pending
            pending = ""
    if pending:
        yield pending


def _is_plain(text: str) -> bool:
    words = text.split()
    if not (8 <= len(words) <= 40 and 40 <= len(text) <= 240):
        return False
    if not text[0].isupper() or text[-1] not in ".!?" or text[-2:] == "..":
        return False
    if re.search(r">>>|[\\{}|=`$^#]|\.\. |https?:|@", text) or "Copyright" in text:
        return False
    return sum(bool(_PLAIN_WORD.match(word)) for word in words) >= 0.6 * len(words)
