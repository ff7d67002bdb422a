"""``perdure policies``: which calls people are asked about, made and seen from a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.client import checked_id, connected
from perdure.cli.help import examples
from perdure.cli.output import print_fields, print_json
from perdure.cli.pages import After, Json, Limit, print_page
from perdure.cli.policy_shown import KINDS, who
from perdure.errors import InvalidRequestError
from perdure.interruptions import conditions

_ID = "01a20131-4acc-741f-9025-d037415ca254"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")

app = typer.Typer(
    help="Say which calls people are asked about, and who may decide. Needs a key of an admin.",
    no_args_is_help=True,
    epilog=examples(
        "perdure policies create 'large refunds' --tool 'refund*' --when '/cents gt 5000'",
        "perdure policies list",
        f"perdure policies delete {_ID}",
    ),
)


class Then(StrEnum):
    """What becomes of a call."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class OnExpire(StrEnum):
    """What becomes of a question nobody answered in time."""

    REJECT = "reject"
    APPROVE = "approve"
    ESCALATE = "escalate"
    FAIL = "fail"


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="policies")


@app.command("list", epilog=examples("perdure policies list", "perdure policies list --json"))
def list_policies(
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List policies in the order in which they are held against a call."""
    with connected() as client:
        page = client.get("/v1/policies", {"limit": limit, "after": after})
    print_page(
        page,
        ["id", "name", "tool", "agent", "when", "then", "who", "until"],
        lambda one: [
            one["id"],
            one["name"],
            ", ".join(one["tool"]),
            ", ".join(one["agent"]),
            "; ".join(conditions.in_words(one["when"])) or "-",
            one["then"],
            _who(one) if one["then"] == "ask" else "-",
            _until(one),
        ],
        empty="No policies. Make one: perdure policies create NAME --tool TOOL",
        as_json=as_json,
    )


@app.command(
    epilog=examples(
        "perdure policies create 'large refunds' --tool 'refund*' --when '/cents gt 5000' "
        "--decider group:finance --not-the-requester --required 2",
        "perdure policies create 'night shift' --agent support --expires-after 4h "
        "--on-expire escalate --escalate-to group:heads",
        "perdure policies create 'no shell' --tool shell --then deny --message 'Ask for a tool.'",
        "perdure policies create --file policy.json",
    )
)
def create(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="What it is called.")] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Tools it is about; all by default. May be repeated."),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Agents it is about; all by default. May be repeated."),
    ] = None,
    when: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'POINTER OPERATOR OPERAND'",
            help="What has to hold for the arguments, as '/cents gt 5000'. May be repeated.",
        ),
    ] = None,
    then: Annotated[Then | None, typer.Option(help="ask, unless said otherwise.")] = None,
    decider: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:NAME",
            help="Who may decide: role:…, group:… or subject:…. May be repeated.",
        ),
    ] = None,
    not_the_requester: Annotated[
        bool, typer.Option("--not-the-requester", help="Not whoever started the run.")
    ] = False,
    required: Annotated[
        int | None, typer.Option(metavar="N", help="So many different people; 1 by default.")
    ] = None,
    expires_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="As 90s, 30m, 4h or 2d.")
    ] = None,
    on_expire: Annotated[
        OnExpire | None, typer.Option(help="What becomes of it then: reject by default.")
    ] = None,
    escalate_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:NAME[,…]", help="Who is asked then; each time it is given, the next."
        ),
    ] = None,
    remind_every: Annotated[
        str | None, typer.Option(metavar="TIME", help="As 90s, 30m, 4h or 2d.")
    ] = None,
    message: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="For people who decide; for the model, of a denial."),
    ] = None,
    position: Annotated[
        int | None, typer.Option(metavar="N", help="Its place in order, from 0; else the last.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The policy as JSON; - reads stdin.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a policy; it counts for every call asked for from now on."""
    body: dict[str, Any] = {} if file is None else _read(file)
    given: dict[str, Any] = {
        "name": name,
        "tool": tool,
        "agent": agent,
        "when": conditions.parse(when) if when else None,
        "then": None if then is None else then.value,
        "deciders": _people(decider) if decider else None,
        "requester_may_decide": False if not_the_requester else None,
        "required": required,
        "expires_after": _seconds("--expires-after", expires_after),
        "on_expire": None if on_expire is None else on_expire.value,
        "escalate_to": [_people(one.split(",")) for one in escalate_to] if escalate_to else None,
        "remind_every": _seconds("--remind-every", remind_every),
        "message": message,
        "position": position,
    }
    body |= {key: value for key, value in given.items() if value is not None}
    if "name" not in body:
        raise InvalidRequestError("Give the policy a name: perdure policies create NAME …")
    with connected() as client:
        made = client.post("/v1/policies", body)
    if as_json:
        print_json(made)
        return
    print_fields(
        {
            "id": made["id"],
            "name": made["name"],
            "tool": ", ".join(made["tool"]),
            "agent": ", ".join(made["agent"]),
            "when": "\n".join(conditions.in_words(made["when"])) or None,
            "then": made["then"],
            "who": _who(made) if made["then"] == "ask" else None,
            "until": _until(made) if made["expires_after"] else None,
            "position": str(made["position"]),
        }
    )


@app.command(epilog=examples(f"perdure policies delete {_ID}"))
def delete(
    policy_id: Annotated[str, typer.Argument(metavar="ID", help="The policy's id.")],
    as_json: Json = False,
) -> None:
    """Let a policy count no more; what waits goes on by the rules it has."""
    id_ = checked_id("policy", policy_id)
    with connected() as client:
        client.delete(f"/v1/policies/{id_}")
    if as_json:
        print_json({"id": id_, "object": "policy", "deleted": True})
    else:
        print_fields({"deleted": id_})


def _read(file: Path) -> dict[str, Any]:
    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text()
        body = json.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{file} cannot be read as a policy: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequestError(f"{file} has to hold one JSON object.")
    return body


def _people(names: Sequence[str]) -> dict[str, list[str]]:
    people: dict[str, list[str]] = {}
    for one in names:
        kind, colon, name = one.strip().partition(":")
        if not colon or kind not in KINDS or not name:
            raise InvalidRequestError(
                f"{one!r} names nobody: write role:…, group:… or subject:…, as group:finance."
            )
        people.setdefault(KINDS[kind], []).append(name)
    return people


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidRequestError(f"{option}: {text!r} is no time: write 90s, 30m, 4h or 2d.")
    return float(found[1]) * _UNITS[found[2]]


def _who(policy: Mapping[str, Any]) -> str:
    return who(policy["deciders"], policy["required"], policy["requester_may_decide"])


def _until(policy: Mapping[str, Any]) -> str:
    if policy["expires_after"] is None:
        return "-"
    return f"{timedelta(seconds=policy['expires_after'])}, then {policy['on_expire']}"
