"""Kill, pause and cut off workers at random while they run agents, and count what came of it.

Real worker processes run agents on an embedded Postgres of their own. Workers are killed with
SIGKILL and replaced, paused with SIGSTOP for a while (some longer than their lease), and the
database is stopped in immediate mode and started again. Every effect is a line in a file outside
of the database, so that nothing is believed that the records say about themselves. A scripted
person approves, and answers what is in doubt by looking into that file.

Exit code 0: no run was lost, failed or came to another result, and no effect was repeated
silently or left out. 1: the table says what was; 2: wrong options.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from chaos.page import print_table
from chaos.perdure_side import PerdureSide
from chaos.plain_side import PlainSide
from chaos.plan import Plan
from chaos.side import Side
from chaos.trial import to_stderr, trial

EXAMPLES = """\
examples:
  python -m chaos                                          a minute and a half: 100 kills
  python -m chaos --kills 1000 --stops 60 --restarts 15 --runs 2400 --seed 7
  python -m chaos --seed 7 --kills 20 --stops 0            the same seed gives the same blows
  python -m chaos --plain                                  plain DBOS steps under the same blows
  python -m chaos --both --json > figures.json             both, one after the other
  python -m chaos.page figures.json                        … and into docs/reliability.md
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Plan()

    def number(name: str, help: str, kind: type = int) -> None:
        value = getattr(default, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=kind, default=value, metavar="N", help=f"{help} ({value})"
        )

    number("kills", "workers killed with SIGKILL")
    number("stops", "workers paused with SIGSTOP and let go on")
    number("restarts", "times the database is stopped at once and started again")
    number("runs", "runs, begun at random moments of the whole time")
    number("workers", "worker processes at any time")
    number("seed", "what everything random is drawn from")
    number("every", "mean seconds between two blows", float)
    number("longest-stop", "seconds a worker is paused at most", float)
    number("patience", "seconds without any movement before what is left counts as lost", float)
    parser.add_argument("--plain", action="store_true", help="try plain DBOS instead")
    parser.add_argument("--both", action="store_true", help="try both, one after the other")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--keep", action="store_true", help="keep the logs and the database")
    parser.add_argument("--directory", type=Path, help="where the server keeps its data")
    options = parser.parse_args(arguments)
    for name in ("kills", "stops", "restarts"):
        if getattr(options, name) < 0:
            parser.error(f"--{name}: at least 0")
    for name in ("runs", "workers", "every", "longest_stop", "patience"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: more than 0")
    return options


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan the options describe."""
    names = {field.name for field in dataclasses.fields(Plan)} - {"shortest_stop"}
    plan = Plan(**{name: getattr(options, name) for name in names})
    return dataclasses.replace(plan, shortest_stop=min(plan.shortest_stop, plan.longest_stop))


def machine() -> dict[str, Any]:
    """Return what a trial was made with."""
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("perdure", "openai-agents", "dbos")},
    }


def main(arguments: Sequence[str]) -> int:
    """Hold the trials and print what came of them; returns the exit code."""
    options = parse(arguments)
    # That the database is away is what is meant to be.
    logging.disable(logging.WARNING)
    plan = plan_of(options)
    sides: list[type[Side]] = []
    if options.both or not options.plain:
        sides.append(PerdureSide)
    if options.both or options.plain:
        sides.append(PlainSide)
    verdicts = [
        asyncio.run(
            trial(side, plan, directory=options.directory, keep=options.keep, say=to_stderr)
        )
        for side in sides
    ]
    trials = [verdict.as_json() for verdict in verdicts]
    if options.json:
        print(
            json.dumps({"machine": machine(), "plan": dataclasses.asdict(plan), "trials": trials})
        )
    else:
        print_table(trials, Console(width=max(100, Console().width)))
        print(", ".join(f"{name} {value}" for name, value in machine().items()))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
