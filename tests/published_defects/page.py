"""The page of the audit, from what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats

from published_defects.measured import COARSE, FINE, LEVEL
from published_defects.pieces import POOLED, Piece, all_pieces
from published_defects.results import Alarms, Audit, Found, Power, Silent
from wtacrs.validation.statistics.staged_means import STAGES

_HEAD = """# Audit of the checks

`make audit` measures what stands here, in `docs/audit.json`, and writes this page. It asks two things of `wtacrs check`:
does it find what is broken, and does it leave alone what is sound? The pieces of code are in `tests/published_defects/`,
one module per group. Each defect is of a kind that published code has, written afresh from a description. To see one:
`PYTHONPATH=tests wtacrs check published_defects.rows:clipped_weights`.
"""


def page(audit: Audit) -> str:
    """The page in Markdown."""
    return "\n".join([
        _HEAD,
        f"Measured with wtacrs {audit.stamp.wtacrs}, torch {audit.stamp.torch}, on one thread.\n",
        _defects(audit.defects),
        _sound(audit.sound),
        _alarms(audit.alarms),
        _power(audit.power),
    ])  # fmt: skip


def _defects(rows: Sequence[Found]) -> str:
    complete = sum(row.found == row.seeds for row in rows)
    text = f"""## Defects

Their law finds {complete} of {len(rows)} kinds at every seed, at level {LEVEL:g} for a whole check.

- *known*: the bias that follows by arithmetic from the code.
- *bias*: how far off the mean is, as a share, along the direction of the law that is off most; ± the error of one check;
  "–" where the law tests no mean. All are medians over the seeds that find it.
- *draws*, *s*: medians of one check of the law, which stops at the first stage that rejects.
- *other laws*: what one check of everything, to a bias of {_share(COARSE)}, finds broken beside this law.
"""
    head = ("kind", "what it does", "law", "known", "bias", "found", "draws", "s", "other laws")
    return text + "\n" + _table(head, 3, [_defect(row) for row in rows])


def _defect(row: Found) -> list[str]:
    piece = _piece(row.name)
    asked = f" (asked to rule out {_share(piece.ruled_out)})" if piece.ruled_out != FINE else ""
    others = [law for law in row.broken if law != piece.law]
    return [
        f"`{piece.group}.{row.name}`",
        piece.description,
        piece.law + asked,
        "–" if piece.bias is None else _share(piece.bias),
        "–" if row.bias is None or row.error is None else f"{_share(row.bias)} ± {_share(row.error)}",
        f"{row.found} of {row.seeds}",
        "–" if row.draws is None else str(row.draws),
        f"{row.seconds:.2g}",
        ", ".join(others) or "none",
    ]


def _sound(rows: Sequence[Silent]) -> str:
    alarms, checks = sum(row.alarms for row in rows), sum(row.seeds for row in rows)
    text = f"""## Sound pieces

{alarms} alarms in {checks} checks of everything at level {LEVEL:g}, which rule out biases of {_share(COARSE)}, and
three times that where one row dominates.

- *left*: the largest bias that any law at any seed left possible.
- *closer*: the same for one check that rules out biases of {_share(FINE)}, the default, with its outcome and its seconds.
"""
    head = ("piece", "what it does", "alarms", "undecided", "left", "s", "closer", "outcome", "s")
    cells = [
        [
            f"`{_piece(row.name).group}.{row.name}`",
            _piece(row.name).description,
            f"{row.alarms} in {row.seeds}",
            str(row.undecided),
            _share(row.ruled_out),
            f"{row.seconds:.2g}",
            _share(row.closer),
            row.outcome,
            f"{row.whole_seconds:.2g}",
        ]
        for row in rows
    ]
    return text + "\n" + _table(head, 2, cells)


def _alarms(rows: Sequence[Alarms]) -> str:
    levels = ", ".join(f"{level:g}" for level in sorted({row.level for row in rows}))
    text = f"""## False alarms of every law

Sound pieces at level {levels} of each law, which is high enough for alarms to be seen.

- *stages*: after which alarms are counted; each has an eleventh of the level. All problems together are one test.
- *expected at most*: the level of these stages times the checks.
- *would surprise*: a count that as many checks exceed with a probability below 0.001 if their level is this one.
"""
    head = ("law", "piece", "stages", "checks", "alarms", "expected at most", "would surprise")
    cells = [
        [
            row.law,
            f"`{row.name}`",
            str(row.stages),
            str(row.seeds),
            str(row.alarms),
            f"{reached(row) * row.seeds:.2g}",
            f"more than {surprising(row)}",
        ]
        for row in rows
    ]
    return text + "\n" + _table(head, 2, cells)


def reached(row: Alarms) -> float:
    """The level that the stages which were run have together; that of a law without stages is whole."""

    return row.level if row.law == POOLED else row.level * row.stages / STAGES


def surprising(row: Alarms) -> int:
    """The count that is exceeded with a probability below 0.001."""
    return int(stats.binom.isf(1e-3, row.seeds, reached(row)))


def _power(rows: Sequence[Power]) -> str:
    text = f"""## Power of every law

Planted pieces at level {LEVEL:g} for a whole check.
"""
    head = ("law", "piece", "found", "share", "draws")
    cells = [
        [
            row.law,
            f"`{row.name}`",
            f"{row.found} of {row.seeds}",
            _share(row.found / row.seeds),
            "–" if row.draws is None else str(row.draws),
        ]
        for row in rows
    ]
    return text + "\n" + _table(head, 2, cells)


def _piece(name: str) -> Piece:
    return all_pieces()[name]


def _share(value: float) -> str:
    """`12 %`, to two digits; large shares as multiples, and what is rounding alone as none."""
    if value >= 10:
        return f"{value:.0f} ×"
    if value < 1e-9:
        return "0 %"
    return f"{100 * value:.0f} %" if value >= 0.0995 else f"{100 * value:.2g} %"


def _table(head: Sequence[str], left: int, rows: Sequence[Sequence[str]]) -> str:
    rules = ["---"] * left + ["---:"] * (len(head) - left)
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rules, *rows])
