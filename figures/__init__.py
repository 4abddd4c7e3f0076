"""Figures of results: nothing is computed here.

from wtacrs.figures import draw, save
from wtacrs.validation import load_result

save(draw(load_result("comparison.json"), "variance_bytes", size=(3.25, 2.5)), Path("fig.pdf"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wtacrs.figures.drawing import draw as draw
    from wtacrs.figures.report.report import write_report as write_report
    from wtacrs.figures.style import save as save

# public name to the module that holds it, which is imported when the name is first used
_HOMES = {"draw": "drawing", "save": "style", "write_report": "report.report"}

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:  # hidden from type checkers, for which it would make every misspelt name valid

    def __getattr__(name: str) -> Any:
        """A public name on its first use (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
