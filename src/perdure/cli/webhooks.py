"""``perdure webhooks``: who is told what happens, over the API."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from perdure.cli.client import checked_id, connected
from perdure.cli.help import examples
from perdure.cli.output import (
    ago,
    print_fields,
    print_json,
    print_note,
    print_text,
)
from perdure.cli.pages import After, Json, Limit, print_page

_ID = "01a20131-4acc-741f-9025-d037415ca254"
_WAIT_SECONDS = 30

app = typer.Typer(
    help="Tell other systems what happens: make webhooks, see what became of their deliveries.",
    no_args_is_help=True,
    epilog=examples(
        "perdure webhooks create https://example.com/hooks --event interruption.created",
        f"perdure webhooks test {_ID}",
        f"perdure webhooks deliveries {_ID} --status failed",
    ),
)

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id.")]


class Status(StrEnum):
    """How a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def register(parent: typer.Typer) -> None:
    """Add the commands to those of ``perdure``."""
    parent.add_typer(app, name="webhooks")


@app.command(
    epilog=examples(
        "perdure webhooks create https://example.com/hooks",
        "perdure webhooks create https://example.com/hooks --event run.failed --description ops",
        "perdure webhooks create https://example.com/hooks --link-subject refunds@example.com",
    ),
)
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are sent.")],
    event: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EVENT",
            help="What it is told of, such as interruption.created; may be given more than once. "
            "By default everything.",
        ),
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    link_subject: Annotated[
        str | None,
        typer.Option(
            metavar="WHO", help="Send with each question a link by which this person decides it."
        ),
    ] = None,
    link_group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A group they belong to, for policies; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a webhook and print its secret: once, receivers verify messages with it."""
    body: dict[str, Any] = {"url": url, "events": event or ["*"], "description": description}
    if link_subject is not None:
        body |= {"link_subject": link_subject, "link_groups": link_group or []}
    with connected() as client:
        webhook = client.post("/v1/webhooks", body)
    if as_json:
        print_json(webhook)
        return
    print_fields({"id": webhook["id"], "url": webhook["url"], "secret": webhook["secret"]})
    print_note(f"The secret is not shown again. Try it: perdure webhooks test {webhook['id']}")


@app.command(
    "list", epilog=examples("perdure webhooks list", "perdure webhooks list --limit 100 --json")
)
def list_webhooks(
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List webhooks, the newest first."""
    with connected() as client:
        page = client.get("/v1/webhooks", {"limit": limit, "after": after})
    print_page(
        page,
        ["id", "state", "events", "description", "url"],
        lambda one: [
            one["id"],
            "enabled" if one["enabled"] else "disabled",
            ",".join(one["events"]),
            one["description"] or "-",
            one["url"],
        ],
        empty="There are no webhooks. Make one: perdure webhooks create URL",
        as_json=as_json,
        notes=lambda shown: [
            f"{one['id']}: {one['disabled_reason']}" for one in shown if not one["enabled"]
        ],
    )


@app.command(epilog=examples(f"perdure webhooks delete {_ID}"))
def delete(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Delete a webhook and its deliveries."""
    webhook_id = checked_id("webhook", webhook_id)
    with connected() as client:
        client.delete(f"/v1/webhooks/{webhook_id}")
    if as_json:
        print_json({"id": webhook_id, "object": "webhook", "deleted": True})
    else:
        print_text(f"Webhook {webhook_id} is deleted.")


@app.command(
    epilog=examples(
        f"perdure webhooks deliveries {_ID}",
        f"perdure webhooks deliveries {_ID} --status failed --json",
    ),
)
def deliveries(
    webhook_id: WebhookId,
    status: Annotated[Status | None, typer.Option(help="Only deliveries that stand so.")] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List what a webhook was told, the newest first."""
    path = f"/v1/webhooks/{checked_id('webhook', webhook_id)}/deliveries"
    query = {"status": None if status is None else status.value, "limit": limit, "after": after}
    with connected() as client:
        page = client.get(path, query)
    print_page(
        page,
        ["id", "status", "age", "attempts", "event", "answer"],
        lambda one: [
            one["id"],
            one["status"],
            ago(one["created_at"]),
            str(one["attempt"]),
            one["event"],
            _answer(one),
        ],
        empty="There are no such deliveries." if status else "Nothing was told to it yet.",
        as_json=as_json,
        notes=lambda shown: [
            f"\nSend one again: perdure webhooks resend {one['id']}"
            for one in shown
            if one["status"] == "failed"
        ][:1],
    )


@app.command(epilog=examples(f"perdure webhooks resend {_ID}"))
def resend(
    delivery_id: Annotated[str, typer.Argument(metavar="ID", help="The delivery's id.")],
    as_json: Json = False,
) -> None:
    """Send a delivery again, with the same id and the same content."""
    path = f"/v1/deliveries/{checked_id('delivery', delivery_id)}"
    with connected() as client:
        delivery = client.post(f"{path}/resend")
    if as_json:
        print_json(delivery)
    else:
        print_text(f"Delivery {delivery['id']} is sent again.")


@app.command("test", epilog=examples(f"perdure webhooks test {_ID}"))
def send_test(webhook_id: WebhookId, as_json: Json = False) -> None:
    """Send the event webhook.test and say what came back; exit code 1 if it was not taken."""
    path = f"/v1/webhooks/{checked_id('webhook', webhook_id)}/test"
    with connected() as client:
        delivery = client.post(path)
        # Long enough for an attempt that takes its time, and a worker that does too.
        delivery = client.get(f"/v1/deliveries/{delivery['id']}", wait=_WAIT_SECONDS)
    if as_json:
        print_json(delivery)
    elif delivery["status"] == "delivered":
        print_text(f"Delivered in {delivery['latency_ms']} ms: {_answer(delivery)}")
    elif delivery["attempts"]:
        print_text(f"Not delivered: {_answer(delivery)}")
    else:
        print_text(f"Delivery {delivery['id']} was not tried yet. Is a worker running?")
    if delivery["status"] != "delivered":
        raise typer.Exit(1)


def _answer(delivery: Mapping[str, Any]) -> str:
    if delivery["status"] == "delivered":
        return str(delivery["status_code"])
    said = delivery["error"] or "-"
    waits = delivery["next_attempt_at"]
    return f"{said} Next attempt at {waits}." if waits and delivery["attempts"] else said
