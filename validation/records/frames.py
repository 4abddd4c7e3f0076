"""Rows as pandas data frames and as HTML; pandas is imported where a frame is asked for, and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wtacrs.estimators.core.errors import InputError
from wtacrs.validation.records.flat import DType, Row

if TYPE_CHECKING:
    from pandas import DataFrame

_PLAIN = {"int": "int64", "float": "float64", "bool": "bool"}
_WITH_GAPS = {"int": "Int64", "float": "float64", "bool": "boolean"}


def frame_of(rows: Sequence[Row], dtypes: Mapping[str, DType], attributes: Mapping[str, Any]) -> DataFrame:
    """A data frame of rows; what is missing is NaN, or <NA> in columns of integers and booleans.

    Args:
        rows: with values by column.
        dtypes: of the columns that are known beforehand; others are inferred.
        attributes: of the frame.

    Raises:
        InputError: if pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError(
            "to_frame() needs pandas: `pip install pandas`, or `pip install 'wtacrs[train]'`; to_rows() needs nothing"
        ) from None
    columns = list(dict.fromkeys([*dtypes, *(key for row in rows for key in row)]))
    frame = pandas.DataFrame(list(rows), columns=columns)
    for name, dtype in dtypes.items():
        if dtype in _PLAIN:
            gaps = any(row.get(name) is None for row in rows)
            frame[name] = frame[name].astype((_WITH_GAPS if gaps else _PLAIN)[dtype])
    frame.attrs.update(attributes)
    return frame


def html_table(rows: Sequence[Row], title: str, most: int = 10) -> str:
    """The first rows as an HTML table under a title, for notebooks."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_shown(row.get(name)))}</td>" for name in columns) + "</tr>"
        for row in rows[:most]
    )
    rest = f"<p>… {len(rows) - most:,} more rows</p>" if len(rows) > most else ""
    return f"<p><code>{html.escape(title)}</code></p><table><tr>{head}</tr>{body}</table>{rest}"


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
