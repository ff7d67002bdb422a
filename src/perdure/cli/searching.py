"""``perdure sessions search``: what was said, found by its words."""

from __future__ import annotations

import html
from typing import Annotated, Any

import typer

from perdure.cli.client import connected, id_if_given
from perdure.cli.help import examples
from perdure.cli.output import ago
from perdure.cli.pages import After, Json, Limit, print_page


def register(app: typer.Typer) -> None:
    """Add the command to those of ``perdure sessions``."""
    app.command(
        epilog=examples(
            'perdure sessions search "refund order"',
            "perdure sessions search '\"broken glass\" -window' --user alice",
        )
    )(search)


def search(
    words: Annotated[
        str, typer.Argument(metavar="WORDS", help='Words, "a phrase", or, -not; see docs.')
    ],
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only in this user's.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Only in it, and what it reads of others.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only with it; more than once.")
    ] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """Find items of conversations by their words, the best first."""
    query = {
        "q": words,
        "user_id": user,
        "session_id": id_if_given("session", session),
        "tag": tag or None,
        "limit": limit,
        "after": after,
    }
    with connected() as client:
        page = client.get("/v1/search", query)
    print_page(
        page,
        ["session", "no", "role", "said", "text"],
        _row,
        empty="Nothing was said like that.",
        as_json=as_json,
    )


def _row(item: dict[str, Any]) -> list[str]:
    marked = item["snippet"].replace("<mark>", "*").replace("</mark>", "*")
    text = " ".join(html.unescape(marked).split())
    return [
        item["session_id"],
        str(item["seq"]),
        item["role"] or "-",
        ago(item["created_at"]),
        text,
    ]
