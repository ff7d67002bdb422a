"""The command line.

``app`` puts the commands together, one module each; ``target`` loads application files; ``client``
talks to a server; ``output`` shows things. What a command needs beyond that it imports when it is
called: the Agents SDK alone takes seconds.
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line of this process; ends it with 0 (done), 1 (failed) or 2 (misused)."""
    from perdure.cli.app import app

    app(prog_name="perdure")
    raise SystemExit(0)
