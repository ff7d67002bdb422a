"""``perdure approve``, ``reject``, ``answer``, ``resolve``: decisions on what waits for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import click
import typer

from perdure.cli.answering import fill_in, typed
from perdure.cli.client import Client, ServerError, checked_id, connected
from perdure.cli.grants import Scope, remembered
from perdure.cli.help import examples
from perdure.cli.output import (
    ago,
    can_ask,
    print_fields,
    print_json,
    print_text,
    to_json,
)
from perdure.cli.pages import Json
from perdure.cli.policy_shown import asked_of_people, decided_in_words
from perdure.cli.runs_shown import as_text, evidence_text, limits_text, new_limit_text
from perdure.errors import InvalidRequestError

Id = Annotated[str, typer.Argument(metavar="ID", help="The interruption's id, from the inbox.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_DECISIONS = {
    "tool_approval": ("approve", "reject"),
    "question": ("answer", "reject"),
    "uncertain_effect": ("resolve",),
    "budget": ("approve", "reject"),
}
_ID = "01a20131-4acc-741f-9025-d037415ca254"


class Outcome(StrEnum):
    """What became of an effect nobody recorded."""

    DONE = "done"
    NOT_DONE = "not_done"
    ABANDON = "abandon"


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    app.command(
        epilog=examples(
            f"perdure approve {_ID}",
            f"perdure approve {_ID} --yes --message 'checked with the customer'",
            f"perdure approve {_ID} --digest sha256:ff778790…",
            f"""perdure approve {_ID} --arguments '{{"order_id": "42", "cents": 500}}'""",
            f"perdure approve {_ID} --edit",
            f"""perdure approve {_ID} --arguments '{{"cost_usd": "5.00"}}'""",
            f"perdure approve {_ID} --remember run --until 2h",
            f"perdure approve {_ID} --remember user --until 7d --when '/cents lte 5000'",
        ),
    )(approve)
    app.command(
        epilog=examples(
            f"perdure reject {_ID} --message 'Ask for the receipt first.'",
        ),
    )(reject)
    app.command(
        epilog=examples(
            f"perdure answer {_ID} 'The one in the left drawer.'",
            f"perdure answer {_ID}",
            f"""perdure answer {_ID} '{{"street": "Rue 1", "country": "FR"}}' --json""",
        ),
    )(answer)
    app.command(
        epilog=examples(
            f"perdure resolve {_ID} --outcome done --result 'refund no. 7'",
            f"perdure resolve {_ID} --outcome not_done",
        ),
    )(resolve)


def approve(
    interruption_id: Id,
    yes: Yes = False,
    digest: Annotated[
        str | None,
        typer.Option(
            metavar="SHA256:…", help="Approve only what has this digest; else nothing is decided."
        ),
    ] = None,
    message: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Kept with the decision.")
    ] = None,
    arguments: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Execute it with these instead of the model's; of a budget: its new limit.",
        ),
    ] = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Change the arguments in your editor first.")
    ] = False,
    remember: Annotated[
        Scope | None,
        typer.Option(help="Approve later calls of the tool too, for this; with --until."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="2h|TIME", help="When that ends: 90s, 15m, 2h, 7d, or an RFC 3339 time."
        ),
    ] = None,
    when: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only with such arguments: '/cents lte 5000'; may be given more than once. "
            "By default with the same ones.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Approve a call, after showing what would be executed.

    On a terminal it asks. The decision names the digest of what was shown: if that has changed,
    nothing is decided. With other arguments the tool runs with those, and the model is told.
    """
    body: dict[str, Any] = {
        "decision": "approve",
        "message": message,
        "remember": remembered(remember, until, when or []),
    }
    if edit and arguments is not None:
        raise typer.BadParameter("--edit and --arguments exclude each other.")
    if edit:
        body["arguments"] = _edited(interruption_id)
    elif arguments is not None:
        body["arguments"] = _object(arguments)
    what = "Approve" if remember is None else f"Approve, and later calls for the {remember} too"
    _decide(interruption_id, body, what, digest=digest, yes=yes, as_json=as_json)


def reject(
    interruption_id: Id,
    message: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; the model reads it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Reject a call: it is not executed, and the model told so."""
    body = {"decision": "reject", "message": message}
    _decide(interruption_id, body, "Reject", yes=True, as_json=as_json)


def answer(
    interruption_id: Id,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="JSON|TEXT",
            help="The answer; on a terminal it is asked for, field by field.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Answer what a run asks a person; it goes on with the answer."""
    with connected() as client:
        shown = client.get(f"/v1/interruptions/{checked_id('interruption', interruption_id)}")
    _check_kind(shown, "answer")
    if text is None:
        if not can_ask():
            raise typer.BadParameter("Give the answer: perdure answer ID 'TEXT or JSON'.")
        _show(shown)
    filled = fill_in(shown["schema"]) if text is None else typed(shown["schema"], text)
    body = {"decision": "answer", "answer": filled}
    _decide(interruption_id, body, "Answer", yes=True, as_json=as_json)


def resolve(
    interruption_id: Id,
    outcome: Annotated[
        Outcome,
        typer.Option(
            help="done: it happened; not_done: it did not, call it again; abandon: fail the run."
        ),
    ],
    result: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|TEXT", help="With done: what the call returned; the model reads it."
        ),
    ] = None,
    message: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Kept with the decision.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Say what became of a call whose outcome nobody recorded.

    Look at the system the tool talks to before you answer: not_done calls it again.
    """
    body: dict[str, Any] = {"decision": "resolve", "outcome": outcome.value, "message": message}
    if result is not None:
        if outcome is not Outcome.DONE:
            raise typer.BadParameter("--result belongs to --outcome done.")
        body["result"] = _json_or_text(result)
    _decide(interruption_id, body, f"Resolve as {outcome.value}", yes=yes, as_json=as_json)


def _decide(
    text: str,
    body: Mapping[str, Any],
    what: str,
    *,
    digest: str | None = None,
    yes: bool,
    as_json: bool,
) -> None:
    interruption_id = checked_id("interruption", text)
    path = f"/v1/interruptions/{interruption_id}"
    with connected() as client:
        shown = client.get(path)
        _check_kind(shown, str(body["decision"]))
        if shown["status"] == "pending":
            # To stderr, where the question is asked: stdout has the result alone.
            _show(shown, instead=body.get("arguments"))
            if not yes and can_ask():
                typer.confirm(f"{what}?", abort=True, err=True)
        sent = {
            name: value for name, value in body.items() if value is not None or name == "answer"
        }
        decided = _send(client, path, sent | {"digest": digest or shown["digest"]})
    if as_json:
        print_json(decided)
        return
    if given := (decided["decision"] or {}).get("remember"):
        print_text(f"Remembered. Revoke it: perdure grants revoke {given}")
    print_text(f"{decided_in_words(decided)} See the run: perdure runs show {shown['run_id']}")


def _send(client: Client, path: str, body: Mapping[str, Any]) -> Any:
    try:
        return client.post(f"{path}/decision", body)
    except ServerError as error:
        recorded = error.problem.get("decision")
        if error.reason != "already_decided" or not isinstance(recorded, Mapping):
            raise
        by = recorded.get("by") or {}
        who = by.get("subject") or by.get("type") or "somebody"
        raise ServerError(
            f"{error.message} It is: {recorded.get('decision')} by {who} at {recorded.get('at')}.",
            error.reason,
            error.problem,
        ) from error


def _check_kind(interruption: Mapping[str, Any], decision: str) -> None:
    asked = interruption["type"]
    if interruption["status"] != "pending" or decision in _DECISIONS.get(asked, (decision,)):
        return
    if asked == "question":
        raise InvalidRequestError(
            f"Interruption {interruption['id']} asks a question: "
            f"perdure answer {interruption['id']} 'TEXT or JSON', or reject."
        )
    if asked == "uncertain_effect":
        raise InvalidRequestError(
            f"Interruption {interruption['id']} asks what became of a call, not whether to make "
            f"it: perdure resolve {interruption['id']} --outcome done|not_done|abandon"
        )
    if asked == "budget":
        raise InvalidRequestError(
            f"Interruption {interruption['id']} asks for more budget: "
            f"perdure approve {interruption['id']} --arguments "
            f"'{new_limit_text(interruption['budget'])}', or reject."
        )
    raise InvalidRequestError(
        f"Interruption {interruption['id']} asks whether to make a call: "
        f"perdure approve {interruption['id']}, or reject."
    )


def _edited(text: str) -> Any:
    interruption_id = checked_id("interruption", text)
    with connected() as client:
        tool = client.get(f"/v1/interruptions/{interruption_id}")["tool"] or {}
    edited = click.edit(to_json(tool.get("arguments"), indent=2) + "\n", extension=".json")
    if edited is None:
        raise typer.Abort
    return _object(edited)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"The arguments are no JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("The arguments have to be a JSON object.")
    return value


def _show(interruption: Mapping[str, Any], *, instead: Any = None) -> None:
    tool = interruption["tool"] or {}
    print_fields(
        {
            "question": interruption["type"],
            "status": interruption["status"],
            "run": interruption["run_id"],
            "agent": interruption["agent"],
            "tool": tool.get("name"),
            "arguments": _shown_arguments(tool) if tool else None,
            "instead": None if instead is None else as_text(instead),
            "asks": interruption["question"],
            "limits": _limits(interruption["budget"]),
            "answer": as_text(interruption["schema"])
            if interruption["type"] == "question" and interruption["schema"] is not None
            else None,
            "known": "\n".join(map(evidence_text, interruption["evidence"])) or None,
            "waiting": ago(interruption["requested_at"]),
            **asked_of_people(interruption),
            "digest": interruption["digest"],
        },
        as_note=True,
    )


def _limits(budget: Mapping[str, Any] | None) -> str | None:
    return None if budget is None else limits_text(budget)


def _shown_arguments(tool: Mapping[str, Any]) -> str:
    arguments = tool.get("arguments")
    return as_text(tool.get("arguments_raw") if arguments is None else arguments)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
