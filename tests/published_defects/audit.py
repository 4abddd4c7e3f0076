"""The audit of the checks: how often every kind of defect is found, how often a sound piece raises an alarm.

    python -m published_defects.audit

measures what has not been measured yet, and writes `docs/audit.json` and the page `docs/audit.md`; with `--page` it
writes the page alone, from the numbers that are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from published_defects.measured import MANY_SEEDS, SEEDS, tasks
from published_defects.page import page
from published_defects.results import Alarms, Audit, Found, Power, Silent, read
from wtacrs.estimators import InputError
from wtacrs.validation.files import check_folder
from wtacrs.validation.records.base import stamp
from wtacrs.validation.records.results import write_text
from wtacrs.validation.runner import Runner

RESULT, PAGE = Path("docs/audit.json"), Path("docs/audit.md")


def audit(out: Path, console: Console, *, jobs: int = 1, seeds: int = SEEDS, many: int = MANY_SEEDS) -> Audit:
    """Measure; what a former run has finished in the same folder is taken from there.

    Raises:
        InputError: on an unusable folder or number.
    """
    check_folder("out", out)
    work = tasks(seeds, many)
    found: dict[type, list] = {Found: [], Silent: [], Alarms: [], Power: []}
    told = lambda label, done, total: console.print(f"{done}/{total} {label}", highlight=False)  # noqa: E731
    for kind, kept in found.items():
        runner = Runner(jobs=jobs, folder=out, report=told)
        kept += runner.run(kind, [task for task in work if _KINDS[task.work.__name__] is kind])
    return Audit(
        stamp=stamp(seed=0),
        defects=found[Found],
        sound=found[Silent],
        alarms=found[Alarms],
        power=found[Power],
    )


_KINDS = {"_found": Found, "_silent": Silent, "_alarms": Alarms, "_power": Power}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results and the page; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m published_defects.audit", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("runs/audit"), help="folder of what is finished")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="checks of every piece")
    parser.add_argument("--many", type=int, default=MANY_SEEDS, help="checks of every law")
    parser.add_argument("--page", action="store_true", help="write the page from the numbers that are there")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        if given.page:
            result = read(given.root / RESULT)
        else:
            result = audit(given.out, Console(), jobs=given.jobs, seeds=given.seeds, many=given.many)
            write_text(given.root / RESULT, result.model_dump_json(indent=1) + "\n")
        write_text(given.root / PAGE, page(result))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {given.root / PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
