"""``python -m benchmarks``: every measure, one after the other, on one server."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from rich.console import Console

from benchmarks import (
    conversations,
    growth,
    latency,
    parked,
    queries,
    readers,
    recovery,
    statements,
    streaming,
    takeover,
    throughput,
    turns,
)
from benchmarks.plan import QUICK, Plan
from benchmarks.report import Figure, print_table
from benchmarks.server import Server, running

Measure = Callable[[Server, Plan], Awaitable[list[Figure]]]
MEASURES: dict[str, Measure] = {
    module.NAME: module.measure
    for module in (
        turns,
        statements,
        throughput,
        recovery,
        takeover,
        latency,
        parked,
        streaming,
        readers,
        conversations,
        growth,
        queries,
    )
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=list(MEASURES),
        metavar="MEASURE",
        help=f"measure this only; may be given again ({', '.join(MEASURES)})",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--tool-bytes", type=int, default=1000, metavar="N", help="size of a tool's answer (1000)"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        help="where the server keeps its data; has to be a real disk (the temporary directory)",
    )
    return parser.parse_args(arguments)


def machine() -> dict[str, Any]:
    """Return what the figures were measured with."""
    packages = ("perdure", "openai-agents", "dbos", "dbos-openai-agents", "psycopg")
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


async def measured(names: Sequence[str], plan: Plan, directory: Path | None) -> list[Figure]:
    """Return the figures of the measures called ``names``, and say on the way what is measured."""
    figures: list[Figure] = []
    async with running(directory) as server:
        for name in names:
            print(f"{name} …", file=sys.stderr)
            figures += await MEASURES[name](server, plan)
    return figures


def main(arguments: Sequence[str]) -> None:
    """Measure and print; the exit code says nothing about the figures."""
    options = parse(arguments)
    plan = dataclasses.replace(QUICK if options.quick else Plan(), tool_bytes=options.tool_bytes)
    figures = asyncio.run(measured(options.only or list(MEASURES), plan, options.directory))
    if options.json:
        print(json.dumps({"machine": machine(), "figures": [f.as_json() for f in figures]}))
        return
    print_table(figures, Console())
    print(", ".join(f"{name} {value}" for name, value in machine().items()))


if __name__ == "__main__":
    main(sys.argv[1:])
