"""Hooks of the site: the gallery, files outside this folder that pages link to, and equations as MathML."""

from __future__ import annotations

import ast
import importlib
import inspect
import posixpath
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
_FENCED = re.compile(r"(^```.*?^```$|^~~~.*?^~~~$)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(^```.*?^```$|^~~~.*?^~~~$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_DISPLAY, _INLINE = (
    re.compile(r"^\$\$\n(.*?)\n\$\$$", re.MULTILINE | re.DOTALL),
    re.compile(r"(?<![\w$])\$([^$\n]+)\$(?![\w$])"),
)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(((?:\.\./)+)([^)#]+)\)")
_IN_TABLE = re.compile(r"^\|.*$", re.MULTILINE)
_SPAN = re.compile(r"`[^`\n]+`")
_API = re.compile(r"^<!-- api: ([\w.]+) -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Take the gallery into the site, and the files outside of it that its pages link to."""
    for picture in sorted((ROOT / "figures" / "gallery").glob("*.png")):
        files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
    linked = {
        target
        for page in files.documentation_pages()
        for image, target in _targets(page.content_string, posixpath.dirname(page.src_uri))
        if not image and not target.startswith("docs/")
    }
    for target in sorted(linked):
        files.append(File.generated(config, _page_of(target), content=_source(target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Equations, and links that leave the folder of the pages."""
    del config, files
    markdown = _API.sub(lambda found: _reference(found[1]), markdown)
    markdown = _IN_TABLE.sub(_plain_pipes, markdown)
    place = posixpath.dirname(page.file.src_uri)
    markdown = _outside(_FENCED, markdown, lambda part: _LINK.sub(lambda found: _link(found, place), part))
    return _outside(_CODE, markdown, _written)


def _outside(code: re.Pattern[str], markdown: str, change: Callable[[str], str]) -> str:
    """The text with what is no code changed."""
    return "".join(part if i % 2 else change(part) for i, part in enumerate(code.split(markdown)))


def _reference(package: str) -> str:
    """A directive for every public class and function of a package, under the module that defines it."""
    module = importlib.import_module(package)
    objects = [getattr(module, name) for name in sorted(module.__all__)]
    return "\n\n".join(
        f"::: {each.__module__}.{each.__qualname__}"
        for each in objects
        if inspect.isclass(each) or inspect.isfunction(each)
    )


def _written(text: str) -> str:
    text = _DISPLAY.sub(lambda found: f"\n{convert(found[1], display='block')}\n", text)
    return _INLINE.sub(lambda found: convert(found[1]), text)


def _link(found: re.Match[str], place: str) -> str:
    image, text, up, path = found.groups()
    target = posixpath.normpath(posixpath.join("docs", place, up + path))
    if target.startswith("docs/"):
        return found[0]
    if image:
        back = posixpath.relpath("gallery", place or ".")
        return f"![{text}]({back}/{posixpath.basename(target)})"
    name = text.strip("`")
    anchor = f"#{name}" if target.endswith(".py") and name in dict(_parts(target)) else ""
    return f"[{text}]({posixpath.relpath(_page_of(target), place or '.')}{anchor})"


def _plain_pipes(row: re.Match[str]) -> str:
    """Code in a table says its pipes as they are: a backslash, which GitHub needs there, would be shown."""
    return _SPAN.sub(lambda code: code[0].replace("\\|", "|"), row[0])


def _targets(markdown: str, place: str) -> Iterator[tuple[bool, str]]:
    """Whether a link that goes up is a picture, and the file of the repository that it leads to.

    Raises:
        FileNotFoundError: if there is none.
    """
    for found in _LINK.finditer(_FENCED.sub("", markdown)):
        target = posixpath.normpath(posixpath.join("docs", place, found[3] + found[4]))
        if not (ROOT / target).is_file():
            raise FileNotFoundError(f"{place}: {target} is linked to and is no file")
        yield bool(found[1]), target


def _page_of(target: str) -> str:
    """Where the site shows a file of the repository."""
    return posixpath.basename(target).lower() if target.endswith(".md") else f"source/{target}.md"


def _source(target: str) -> str:
    """A file as a page: Markdown as it is, code with a heading for every function and class."""
    text = (ROOT / target).read_text(encoding="utf-8")
    if target.endswith(".md"):
        return text
    head = f"---\nsearch: {{exclude: true}}\n---\n# `{target}`\n\n"
    if not target.endswith(".py"):
        return f"{head}~~~\n{text}~~~\n"
    blocks = [f"## `{name}`\n\n~~~python\n{code}~~~\n" if name else f"~~~python\n{code}~~~\n"
              for name, code in _parts(target)]  # fmt: skip
    return head + "\n".join(blocks)


def _parts(target: str) -> list[tuple[str, str]]:
    """What a module begins with, under no name, and each of its functions and classes by name."""
    lines = (ROOT / target).read_text(encoding="utf-8").splitlines(keepends=True)
    tree = ast.parse("".join(lines))
    named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    starts = [min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1 for node in named]
    edges = [0, *starts, len(lines)]
    codes = ["".join(lines[one:other]).strip("\n") + "\n" for one, other in pairwise(edges)]
    return [
        (name, code)
        for name, code in zip(["", *(node.name for node in named)], codes, strict=True)
        if code.strip()
    ]
