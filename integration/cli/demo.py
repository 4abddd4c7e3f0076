"""`wtacrs demo`."""

from __future__ import annotations

from pathlib import Path

from wtacrs.integration.cli.app import app
from wtacrs.integration.cli.options import OutOption, SeedOption
from wtacrs.integration.cli.output import console


@app.command(as_json=False)
def demo(
    out: OutOption = Path("runs/demo"),
    seed: SeedOption = 0,
) -> None:
    """Run every step offline: train exactly and with WTA-CRS, capture, compare, sweep, check, report."""
    from wtacrs.integration.studies.demo import run_demo
    from wtacrs.validation.files import check_folder

    check_folder("out", out)
    run_demo(out, seed=seed, console=console)
