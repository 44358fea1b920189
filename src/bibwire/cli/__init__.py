"""The command line. One module a group of commands; what is heavy is imported inside them."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (None: those of the process) and return its exit code."""
    try:
        from bibwire.cli.app import main as run
    except KeyboardInterrupt:  # before there was anything to tell it in order
        return 130

    return run(arguments)
