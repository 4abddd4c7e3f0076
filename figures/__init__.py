"""Figures of results: nothing is computed here.

from wtacrs.figures import draw, save
from wtacrs.validation import load_result

save(draw(load_result("comparison.json"), against="bytes", size="column", title=False), "fig.pdf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wtacrs.estimators.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from wtacrs.figures.drawing import draw as draw
    from wtacrs.figures.report.report import write_report as write_report
    from wtacrs.figures.style import save as save

# public name to the module that holds it, which is imported when the name is first used
_HOMES = {"draw": "drawing", "save": "style", "write_report": "report.report"}

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:  # hidden from type checkers, for which it would make every misspelt name valid
    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
