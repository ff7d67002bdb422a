"""``perdure runs checkpoints`` and ``diff``: looked at, and beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from perdure.cli.client import checked_id, connected, id_if_given
from perdure.cli.compared import answered, asked
from perdure.cli.help import examples
from perdure.cli.output import (
    Part,
    ago,
    print_beside,
    print_fields,
    print_json,
    print_note,
    print_table,
    print_text,
    shortened,
    to_json,
)
from perdure.cli.pages import After, Json, Limit, print_page

__all__ = ["register"]

_ID = "01a20131-4a27-77ae-b605-6e01616eb463"
_SHOWN = 200
_NONE_YET = (
    "No checkpoints yet: one is saved where a run waits, hands off, has come a long way, or ends."
)

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``perdure runs``."""
    app.command(
        epilog=examples(
            f"perdure runs checkpoints {_ID}",
            f"perdure runs checkpoints {_ID} 2 --json | jq .state.current_agent",
        )
    )(checkpoints)
    app.command(
        epilog=examples(
            f"perdure runs diff {_ID}",
            f"perdure runs diff {_ID} --with 01a20131-5c07-7d11-8a64-9be0e9c1f2aa",
            f"perdure runs diff {_ID} --from 1 --to 3",
        )
    )(diff)


def checkpoints(
    run_id: RunId,
    seq: Annotated[
        int | None, typer.Argument(metavar="[SEQ]", min=1, help="Show this one.")
    ] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List a run's checkpoints, the first first, or show one."""
    path = f"/v1/runs/{checked_id('run', run_id)}/checkpoints"
    with connected() as client:
        if seq is None:
            page = client.get(path, {"limit": limit, "after": after})
        else:
            one = client.get(f"{path}/{seq}")
            step = {} if as_json else client.get(f"{path}/diff", {"to": seq, "limit": 100})
    if seq is None:
        print_page(
            page,
            ["seq", "kind", "agent", "turn", "bytes", "age", "id"],
            lambda row: [
                str(row["seq"]) + ("*" if row["is_active"] else ""),
                row["kind"],
                row["current_agent"],
                str(row["turn"]),
                str(row["size_bytes"]),
                ago(row["created_at"]),
                row["id"],
            ],
            empty=_NONE_YET,
            as_json=as_json,
        )
    elif as_json:
        print_json(one)
    else:
        print_fields(
            {
                "checkpoint": f"{one['seq']} ({one['kind']})",
                "agent": one["current_agent"],
                "turn": str(one["turn"]),
                "saved": f"{one['created_at']} ({ago(one['created_at'])} ago)",
                "state": f"{one['size_bytes']} bytes, SDK {one['sdk_version']}: see --json",
            }
        )
        print_text("")
        _print_step(step)


def diff(
    run_id: RunId,
    other: Annotated[
        str | None,
        typer.Option("--with", metavar="ID", help="The other run; else what it was forked from."),
    ] = None,
    from_seq: Annotated[
        int | None,
        typer.Option("--from", metavar="SEQ", min=0, help="Of one run: the earlier checkpoint."),
    ] = None,
    to_seq: Annotated[
        int | None,
        typer.Option("--to", metavar="SEQ", min=0, help="Of one run: the later checkpoint."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a run beside the one it was forked from, or two checkpoints of one run."""
    of_one = from_seq is not None or to_seq is not None
    if of_one and other is not None:
        raise typer.BadParameter(
            "compare two runs, or two checkpoints of one.", param_hint="--with"
        )
    path = f"/v1/runs/{checked_id('run', run_id)}"
    with connected() as client:
        if of_one:
            query: dict[str, Any] = {"from": from_seq, "to": to_seq, "limit": 100}
            found = client.get(f"{path}/checkpoints/diff", query)
        else:
            found = client.get(f"{path}/diff", {"with": id_if_given("run", other)})
    if as_json:
        print_json(found)
    elif of_one:
        _print_step(found)
    else:
        _print_runs(found)


def _print_step(found: Mapping[str, Any]) -> None:
    """Print what came about between two checkpoints."""
    first = 0 if found["base"] is None else found["base"]["seq"]
    agents = found["agent"]
    moved = agents["base"] != agents["checkpoint"]
    print_fields(
        {
            "since": f"checkpoint {first}" if first else "the run's beginning",
            "agent": f"{agents['base']} -> {agents['checkpoint']}" if moved else None,
            "turns": str(found["turns"]),
            "usage": _usage(found["usage"]),
            "context": "\n".join(map(_step_text, found["context"])) or None,
        }
    )
    if found["items"]:
        print_text("")
        print_table(
            ["item", "type", "agent", "text"],
            [
                [
                    str(one["seq"]),
                    one["type"],
                    one["agent"] or one["role"] or "-",
                    shortened(one["text"] or to_json(one["item"]), _SHOWN),
                ]
                for one in found["items"]
            ],
        )
    if found["has_more"]:
        print_note("There are more items: perdure runs show, or the API with after.")


def _print_runs(found: Mapping[str, Any]) -> None:
    base, run = found["base"], found["run"]
    rows: list[tuple[Sequence[Part], Sequence[Part]]] = [
        ([(base["id"], "cyan")], [(run["id"], "cyan")]),
        ([(_headline(base), "dim")], [(_headline(run), "dim")]),
    ]
    for turn in found["turns"]:
        rows.append(([("", "")], [("", "")]))
        if turn["input"]["base"] is not None or turn["input"]["run"] is not None:
            rows.append((asked(turn, "base"), asked(turn, "run")))
        rows.append((answered(turn, "base"), answered(turn, "run")))
    usage = found["usage"]
    rows.append(([("", "")], [("", "")]))
    rows.append(([(_usage(usage["base"]), "dim")], [(_usage(usage["run"]), "dim")]))
    print_beside(rows)
    print_note(f"They share their first {found['shared_items']} items.")
    if found["truncated"]:
        print_note("One of them has more items than were compared.")


def _headline(run: Mapping[str, Any]) -> str:
    parts = [run["status"], run["current_agent"], run["model"]]
    return ", ".join(part for part in parts if part)


def _usage(usage: Mapping[str, Any]) -> str:
    cost = usage["cost_usd"]
    told = f"{usage['requests']} requests, {usage['total_tokens']} tokens"
    return told if cost is None else f"{told}, {cost} USD"


def _step_text(step: Mapping[str, Any]) -> str:
    sides = [to_json(step[name]) for name in ("previous", "new") if name in step]
    return f"{step['op']} {step['path'] or '/'}: {' -> '.join(sides)}"
