"""Compare the README's numbers of the demo with a fresh run of it: `python -m readme_numbers.check --demo runs/demo`.

One seed on one thread leaves no noise: with the same libraries and processor the accuracies must be equal. Another
processor rounds sums in another order, and training ends elsewhere: there the accuracies must agree within five standard
errors of a difference.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from readme_numbers.experiments import NUMBERS
from readme_numbers.records import NumbersResult
from wtacrs.estimators import InputError
from wtacrs.validation.records.base import Stamp
from wtacrs.validation.records.results import load_result
from wtacrs.validation.records.training import TrainingResult

RUNS = ("exact", "wta_crs")
STANDARD_ERRORS = 5.0
_DECIDES = ("python", "torch", "numpy", "processor", "device", "threads", "seed")


def same_arithmetic(one: Stamp, other: Stamp) -> bool:
    """Whether two runs of one code must give the same numbers."""
    return all(getattr(one, name) == getattr(other, name) for name in _DECIDES)


def differences(stored: NumbersResult, runs: Sequence[TrainingResult]) -> list[str]:
    """What the stored table of the demo says otherwise than its runs: a line for every number that is off."""
    (table,) = [table for table in stored.tables if table.name == "training"]
    if len(table.rows) != len(runs):
        return [f"training: {len(table.rows)} rows are stored, and the demo has {len(runs)} runs"]
    return [
        line for row, run in zip(table.rows, runs, strict=True) if (line := _difference(row, run, stored.stamp))
    ]


def _difference(row: Sequence[str], run: TrainingResult, stamp: Stamp) -> str | None:
    told, found = float(row[1]), run.final
    accepted = 0.0
    if not same_arithmetic(stamp, run.stamp):
        accepted = STANDARD_ERRORS * math.sqrt(2.0 * told * (1.0 - told) / run.dev_size)
    if abs(told - round(found, 3)) <= accepted + 1e-9:
        return None
    return f"training, {row[0]}: {told:.3f} is stored, the fresh run gives {found:.3f} (accepted: ±{accepted:.3f})"


def demo_runs(folder: Path) -> list[TrainingResult]:
    """The training runs of a demo's folder.

    Raises:
        InputError: if one cannot be read.
    """
    return [cast(TrainingResult, load_result(folder / f"training-{name}.json")) for name in RUNS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what differs; 0 if nothing does, 1 if something does, 2 if it cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m readme_numbers.check", description=__doc__.partition("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="folder of a fresh `make demo`")
    parser.add_argument("--result", type=Path, default=NUMBERS, help="the stored numbers")
    given = parser.parse_args(arguments)
    try:
        stored, runs = cast(NumbersResult, load_result(given.result)), demo_runs(given.demo)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = differences(stored, runs)
    exactly = all(same_arithmetic(stored.stamp, run.stamp) for run in runs)
    how = "must be equal: same libraries, processor, thread and seed"
    if not exactly:
        how = f"measured on {stored.stamp.processor or 'a processor not noted'}: must agree within the sampling error"
    print("\n".join([f"demo against the README's numbers ({how})", *(found or ["every accuracy agrees"])]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
