"""``perdure budgets``: how much runs may spend together, and what is spent."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from perdure.cli.client import checked_id, connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import print_fields, print_json, print_note
from perdure.cli.pages import After, Json, Limit, print_page

_ID = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"

Id = Annotated[str, typer.Argument(metavar="ID", help="The budget's id.")]
Usd = Annotated[
    str | None, typer.Option("--usd", metavar="AMOUNT", help="The most it may cost, in USD.")
]
Tokens = Annotated[
    int | None, typer.Option("--tokens", metavar="N", min=0, help="The most tokens, in and out.")
]
User = Annotated[str | None, typer.Option(metavar="ID", help="The budget of a user.")]
AgentName = Annotated[
    str | None, typer.Option("--agent", metavar="NAME", help="Of what an agent asks, in any run.")
]
Session = Annotated[str | None, typer.Option(metavar="ID", help="The budget of a session.")]

app = typer.Typer(
    help="Say how much may be spent, by whom, and see what is spent. Changes need an admin's key.",
    no_args_is_help=True,
    epilog=examples(
        "perdure budgets create --user alice --period month --usd 20",
        "perdure budgets list",
        f"perdure budgets change {_ID} --usd 30",
    ),
)


class Period(StrEnum):
    """Which time a budget is for."""

    TOTAL = "total"
    MONTH = "month"


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="budgets")


@app.command(
    epilog=examples(
        "perdure budgets create --user alice --period month --usd 20",
        "perdure budgets create --agent researcher --period month --tokens 5000000",
        "perdure budgets create --tenant --period month --usd 500 --name 'all of us'",
    )
)
def create(
    user: User = None,
    agent: AgentName = None,
    session: Session = None,
    tenant: Annotated[bool, typer.Option("--tenant", help="Of all runs together.")] = False,
    usd: Usd = None,
    tokens: Tokens = None,
    period: Annotated[
        Period, typer.Option(help="For all time, or anew each calendar month (UTC).")
    ] = Period.TOTAL,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is called.")] = None,
    as_json: Json = False,
) -> None:
    """Make a budget of a user, an agent, a session or of all runs together."""
    named = {"user_id": user, "agent": agent, "session_id": id_if_given("session", session)}
    given = [field for field, value in named.items() if value is not None]
    if len(given) + tenant != 1:
        raise typer.BadParameter("Give --user, --agent, --session or --tenant, one of them.")
    scope = "tenant" if tenant else given[0].removesuffix("_id")
    body = {"scope": scope, "period": period.value, "name": name, **named, **_limits(usd, tokens)}
    with connected() as client:
        made = client.post("/v1/budgets", {k: v for k, v in body.items() if v is not None})
    _show(made, as_json=as_json)


@app.command("list", epilog=examples("perdure budgets list", "perdure budgets list --user alice"))
def list_budgets(
    user: User = None,
    agent: AgentName = None,
    session: Session = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the budgets that runs share, with what is spent of each. Newest first."""
    query = {
        "user_id": user,
        "agent": agent,
        "session_id": id_if_given("session", session),
        "limit": limit,
        "after": after,
    }
    with connected() as client:
        page = client.get("/v1/budgets", query)
    print_page(
        page,
        ["id", "of", "period", "USD spent", "tokens spent", "name"],
        lambda one: [
            one["id"],
            _whose(one),
            one["period"],
            _of(one["spent_usd"], one["cost_usd"]),
            _of(one["spent_tokens"], one["total_tokens"]),
            one["name"] or "-",
        ],
        empty="No budgets. Make one: perdure budgets create --user ID --period month --usd 20",
        as_json=as_json,
    )


@app.command(epilog=examples(f"perdure budgets show {_ID}"))
def show(budget_id: Id, as_json: Json = False) -> None:
    """Show a budget: its limits, what is spent and what calls under way may take."""
    with connected() as client:
        found = client.get(f"/v1/budgets/{checked_id('budget', budget_id)}")
    _show(found, as_json=as_json)


@app.command(epilog=examples(f"perdure budgets change {_ID} --usd 30"))
def change(
    budget_id: Id,
    usd: Usd = None,
    tokens: Tokens = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is called.")] = None,
    as_json: Json = False,
) -> None:
    """Give a budget other limits, in the place of both it had. Runs that wait are tried again by
    approving what they wait for.
    """
    body = {"name": name, **_limits(usd, tokens)}
    body = {field: value for field, value in body.items() if value is not None}
    if not body:
        raise typer.BadParameter("Give --usd, --tokens or --name.")
    with connected() as client:
        changed = client.patch(f"/v1/budgets/{checked_id('budget', budget_id)}", body)
    _show(changed, as_json=as_json)


@app.command(epilog=examples(f"perdure budgets delete {_ID}"))
def delete(budget_id: Id) -> None:
    """Let a budget count no more."""
    found = checked_id("budget", budget_id)
    with connected() as client:
        client.delete(f"/v1/budgets/{found}")
    print_note(f"Budget {found} is deleted.")


def _limits(usd: str | None, tokens: int | None) -> dict[str, Any]:
    return {"cost_usd": usd, "total_tokens": tokens}


def _show(budget: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(budget)
        return
    print_fields(
        {
            "budget": budget["id"],
            "name": budget["name"] or None,
            "of": _whose(budget),
            "period": budget["period"],
            "since": budget["starts_at"],
            "USD spent": _of(budget["spent_usd"], budget["cost_usd"]),
            "tokens spent": _of(budget["spent_tokens"], budget["total_tokens"]),
            "raised": "by a decision, for this period" if budget["raised"] else None,
            "under way": f"{budget['reserved_usd']} USD, {budget['reserved_tokens']} tokens",
            "without a price": f"{budget['unpriced_requests']} requests"
            if budget["unpriced_requests"]
            else None,
        }
    )


def _whose(budget: Mapping[str, Any]) -> str:
    named = budget["user_id"] or budget["agent"] or budget["session_id"] or budget["run_id"]
    return str(budget["scope"]) if named is None else f"{budget['scope']} {named}"


def _of(spent: Any, limit: Any) -> str:
    return f"{spent}" if limit is None else f"{spent} of {limit}"
