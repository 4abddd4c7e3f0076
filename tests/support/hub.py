"""A hub that cannot be reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def told_without_hub(statement: str, home: Path) -> str:
    """The one line that a statement is refused in, in a process of its own whose hub refuses every connection.

    Args:
        statement: imports and calls, in one line.
        home: an empty folder for the hub's cache.
    """
    *imports, call = statement.split("; ")
    program = "\n".join([*imports, f"try: {call}", "except ValueError as error: print(error)"])
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    if "PYTHONPATH" in os.environ:
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert "no connection" in done.stdout
    return done.stdout
