"""Who did what when, read from the database: the ledger is the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure import jsonsafe
from perdure.cli.output import to_json
from perdure.db import Connection, load_sql

_SQL = load_sql("perdure.cli.demo", "timeline.sql")
_TIMELINE = _SQL["timeline"]
_EXECUTORS = _SQL["executors"]
_REPLY_COUNT = _SQL["reply_count"]
_NOW = _SQL["now"]

_HANDOFF = "transfer_to_"


@dataclass(frozen=True, slots=True)
class Happening:
    """A kill, which leaves no row of its own: when (by the database), which worker, and why."""

    at: datetime
    worker: int
    pid: int
    when: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line; ``at`` is aware, ``seconds`` counts from the first line."""

    at: datetime
    seconds: float
    kind: str
    who: str
    what: str


async def now(conn: Connection) -> datetime:
    """Return the database's time."""
    row = await (await conn.execute(_NOW)).fetchone()
    assert row is not None  # noqa: S101
    moment: datetime = row["now"]
    return moment


async def reply_count(conn: Connection, run_id: UUID) -> int:
    """Return how many model replies of a run are recorded."""
    row = await (await conn.execute(_REPLY_COUNT, {"run_id": run_id})).fetchone()
    return 0 if row is None else int(row["replies"])


async def read_timeline(
    conn: Connection, run_id: UUID, workers: Mapping[int, int], kills: Sequence[Happening]
) -> list[Entry]:
    """Return what happened to a run, in order. ``workers`` gives the number of each pid."""
    cursor = await conn.execute(_EXECUTORS)
    names = {row["id"]: f"worker {workers[row['pid']]}" for row in await cursor.fetchall()}
    cursor = await conn.execute(_TIMELINE, {"run_id": run_id})
    happened: list[tuple[datetime, str, str, str]] = []
    for row in await cursor.fetchall():
        data = jsonsafe.loads(row["data"])
        if "worker" in data:
            data["worker"] = names[data["worker"]]
        happened.append((row["at"], row["kind"], *_told(row["kind"], data)))
    happened += [
        (kill.at, "kill", f"worker {kill.worker}", f"kill -9 {kill.pid}, {kill.when}")
        for kill in kills
    ]
    happened.sort(key=lambda one: one[0])
    return [
        Entry(at, (at - happened[0][0]).total_seconds(), kind, who, what)
        for at, kind, who, what in happened
    ]


def _told(kind: str, data: Mapping[str, Any]) -> tuple[str, str]:
    """Return who did it and what."""
    match kind:
        case "accepted":
            return "customer", f'writes to {data["agent"]}: "{data["input"]}"'
        case "worker":
            return data["worker"], "begins"
        case "segment":
            return "run", f"segment {data['seq']} begins"
        case "rest":
            times = "once" if data["executions"] == 1 else f"{data['executions']} times"
            what = f"{data['outcome']}; begun {times}, epoch {data['epoch']}"
            return data["worker"], f"rests segment {data['seq']}: {what}"
        case "again":
            return data["tool"], f"begins again, attempt {data['attempt']}, with the same key"
        case "reply":
            return data["agent"], f"{_reply(data['output'])}  ({data['tokens']} tokens)"
        case "checkpoint":
            return "run", f"state {data['seq']} saved ({data['kind']})"
        case "question":
            return data["agent"], f"waits for approval of {_call(data['tool'])}"
        case "decision":
            return data["by"], f"{data['decision']}s {_call(data['tool'])}"
        case "tool":
            again = f", attempt {data['attempt']}" if data["attempt"] > 1 else ""
            return data["tool"], f"{data['status']}{again} ({data['effect']}): {_output(data)}"
        case _:
            return "run", str(data["status"])


def _reply(output: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for item in output:
        if item.get("type") == "function_call":
            name = str(item["name"])
            if name.startswith(_HANDOFF):
                parts.append(f"hands over to {name.removeprefix(_HANDOFF)}")
            else:
                parts.append(f"calls {name}({item['arguments']})")
        elif item.get("type") == "message":
            parts.append("says: " + " ".join(part.get("text", "") for part in item["content"]))
    return "; ".join(parts)


def _call(tool: Mapping[str, Any]) -> str:
    return f"{tool['name']}({to_json(tool['arguments'])})"


def _output(data: Mapping[str, Any]) -> str:
    output = data["output"]
    if output is None:
        return "-"
    return output["text"] if output["type"] == "text" else to_json(output["value"])
