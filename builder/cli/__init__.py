"""The command line: `pybuild` starts here. Nothing heavy is imported before it is known what the user wants."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command that `args` (the process's own without them) name and exit with its status."""
    words = list(sys.argv[1:] if args is None else args)
    if words == ["--version"]:
        # The one command that scripts call to see whether pybuild is there: it costs an interpreter and nothing else.
        from builder.version import VERSION  # noqa: PLC0415

        sys.stdout.write(f"pybuild {VERSION}\n")
        sys.exit(0)
    from builder.cli.app import app  # noqa: PLC0415
    from builder.cli.errors import exit_status  # noqa: PLC0415

    sys.exit(exit_status(app, words))
