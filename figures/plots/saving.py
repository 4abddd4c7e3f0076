"""What a training step keeps as one part after another is made lean: which part saves how much.

wtacrs draw --figure saving front.json OUT.png
"""

from __future__ import annotations

from pathlib import Path

from wtacrs.figures import style
from wtacrs.figures.sheet import Sheet
from wtacrs.validation.records.base import expect
from wtacrs.validation.records.front import FrontResult


def draw(result: FrontResult, path: str | Path) -> Path:
    """Write the figure as PNG and return its path; errors as in `build`."""
    return style.save(build(result), path)


def build(result: FrontResult) -> Sheet:
    """The figure as an object: a bar for what is kept after each part, with what the part has saved in another colour.

    Raises:
        InputError: if the result is of another kind, or its saving is not decomposed.
    """
    expect(result, FrontResult, "the argument result")
    if not result.parts:
        raise style.NothingToDraw("the saving of this result is not decomposed")
    stock = result.parts[0].kept
    with style.figure(9.2, 1.7 + 0.36 * len(result.parts)) as fig:
        (axes,) = fig.panels()
        before = stock
        for y, entry in enumerate(result.parts):
            axes.barh(y, entry.kept / 1e6, height=0.62, color="#0072b2")
            saved = before - entry.kept
            axes.barh(
                y, abs(saved) / 1e6, left=min(before, entry.kept) / 1e6, height=0.62,
                color="#e69f00" if saved >= 0 else "#d55e00",
            )  # fmt: skip
            told = f"{entry.kept / stock:.2f}" + (f"  ({-saved / stock:+.2f})".replace("-", "−") if y else "")
            place = max(before, entry.kept) / 1e6, y
            axes.annotate(told, place, xytext=(4, 0), textcoords="offset points", va="center", fontsize="small")
            before = entry.kept
        names = [entry.part if not y else f"+ {entry.part}" for y, entry in enumerate(result.parts)]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0.0, 1.18 * max(entry.kept for entry in result.parts) / 1e6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("MB (10⁶ bytes) kept for the backward pass; in orange what the part has saved")
        fig.heading(
            f"{style.shorten(result.model, 40)}, {result.layers} layers, {result.batch_size} × {result.tokens} tokens: "
            "what saves how much, one part after another"
        )
    return fig
