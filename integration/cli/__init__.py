"""The `wtacrs` command line: a module per command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; what goes wrong while it is imported is one line too."""
    try:
        import wtacrs.integration.cli.commands  # noqa: F401
        from wtacrs.integration.cli.app import run_app
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ImportError as error:
        print(f"error: wtacrs cannot be imported: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return run_app(arguments)
