"""Hooks of the site: figures of the gallery, links to files that are not pages, and equations as MathML."""

from __future__ import annotations

import importlib
import inspect
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
_CODE = re.compile(r"(^```.*?^```$|^~~~.*?^~~~$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_DISPLAY, _INLINE = (
    re.compile(r"^\$\$\n(.*?)\n\$\$$", re.MULTILINE | re.DOTALL),
    re.compile(r"(?<![\w$])\$([^$\n]+)\$(?![\w$])"),
)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(((?:\.\./)+)([^)#]+)\)")


_API = re.compile(r"^<!-- api: ([\w.]+) -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Take the gallery into the site."""
    for picture in sorted((ROOT / "figures" / "gallery").glob("*.png")):
        files.append(File.generated(config, f"gallery/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Equations, and links that leave the folder of the pages."""
    del config, files
    markdown = _API.sub(lambda found: _reference(found[1]), markdown)
    place = posixpath.dirname(page.file.src_uri)
    parts = _CODE.split(markdown)
    return "".join(part if i % 2 else _written(part, place) for i, part in enumerate(parts))


def _reference(package: str) -> str:
    """A directive for every public class and function of a package, under the module that defines it."""
    module = importlib.import_module(package)
    objects = [getattr(module, name) for name in sorted(module.__all__)]
    return "\n\n".join(
        f"::: {each.__module__}.{each.__qualname__}"
        for each in objects
        if inspect.isclass(each) or inspect.isfunction(each)
    )


def _written(text: str, place: str) -> str:
    text = _LINK.sub(lambda found: _link(found, place), text)
    text = _DISPLAY.sub(lambda found: f"\n{convert(found[1], display='block')}\n", text)
    return _INLINE.sub(lambda found: convert(found[1]), text)


def _link(found: re.Match[str], place: str) -> str:
    image, text, up, path = found.groups()
    target = posixpath.normpath(posixpath.join("docs", place, up + path))
    if target.startswith("docs/"):
        return found[0]
    if not (ROOT / target).exists():
        raise FileNotFoundError(f"{place}: {target} is linked to and does not exist")
    if image and target.startswith("figures/gallery/"):
        back = posixpath.relpath("gallery", place or ".")
        return f"![{text}]({back}/{posixpath.basename(target)})"
    return f"{text} (`{target}`)" if text.strip("`") != target else f"`{target}`"
