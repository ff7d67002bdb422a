"""The page of a decision link: what is asked, who decides, what was decided. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.visible import to_json
from perdure.web.pages.filling import draw, fields_to_fill
from perdure.web.pages.layout import own_text, page, text

__all__ = ["closed_page", "message_page", "question_page"]

_WORDS = {
    "approved": "approved",
    "rejected": "rejected",
    "answered": "answered",
    "expired": "not decided in time",
    "cancelled": "withdrawn",
}


def question_page(
    interruption: Mapping[str, Any],
    *,
    token: str,
    subject: str,
    decisions: Sequence[str],
    expires_at: str,
    problem: str | None = None,
    typed: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
) -> str:
    """Return the page that asks, with a form for ``decisions``; ``problem`` is what went wrong.

    ``interruption`` is as the API shows it, ``token`` the link's own, ``expires_at`` RFC 3339.
    ``typed`` is the form as it came, where it is shown again, and ``problems`` what is wrong with
    fields of it, by the form's names.
    """
    title = _title(interruption)
    given = typed or {}
    buttons = "\n".join(
        f'<button class="{one}" name="decision" value="{one}">{one.capitalize()}</button>'
        for one in decisions
    )
    said = f'<p class="said" role="alert">{text(problem)}</p>\n' if problem else ""
    asked = [field for one in decisions for field in fields_to_fill(interruption, one)]
    fields = draw(asked, given, problems or {})
    body = (
        f"<h1>{text(title)}</h1>\n{said}{_facts(interruption)}"
        '<form method="post" accept-charset="utf-8" autocomplete="off">\n'
        f'<input type="hidden" name="token" value="{text(token)}">\n{fields}'
        '<label for="message">A word with it (the agent reads it when you reject)</label>\n'
        '<textarea id="message" name="message" maxlength="10000">\n'
        f"{own_text(given.get('message', ''))}</textarea>\n"
        f'<div class="buttons">\n{buttons}\n</div>\n</form>\n'
        f'<p class="hint">You decide as {text(subject)}, once, until {_moment(expires_at)}. '
        "This page by itself decides nothing.</p>\n"
        f'<p class="digest">{text(interruption["digest"])}</p>'
    )
    return page(title, body)


def closed_page(interruption: Mapping[str, Any], *, mine: bool) -> str:
    """Return the page of a question that is closed; ``mine``: this link had a part in it."""
    tool, decision = _tool(interruption), interruption["decision"]
    how = _WORDS.get(interruption["status"], interruption["status"])
    title = f"{tool}: {how}"
    said = "Nobody decided it; there is nothing left to do here."
    if interruption["status"] == "cancelled":
        said = "The question no longer stands; there is nothing left to do here."
    if decision is not None:
        who = decision["by"]["subject"] or decision["by"]["type"]
        when = _moment(decision["at"])
        said = f"It was {text(how)} by {text(str(who))}, {when}."
        if not mine:
            said = f"Somebody else was first. {said}"
    message = (decision or {}).get("message")
    quoted = f'<p class="said">{text(message)}</p>\n' if message else ""
    return page(title, f"<h1>{text(title)}</h1>\n<p>{said}</p>\n{quoted}{_facts(interruption)}")


def message_page(title: str, *paragraphs: str) -> str:
    """Return a page that only says something."""
    said = "\n".join(f"<p>{text(one)}</p>" for one in paragraphs)
    return page(title, f"<h1>{text(title)}</h1>\n{said}")


def _facts(interruption: Mapping[str, Any]) -> str:
    tool = interruption["tool"] or {}
    arguments = tool.get("arguments")
    shown = tool.get("arguments_raw") if arguments is None else to_json(arguments, indent=2)
    rows = "".join(
        f"<dt>{name}</dt><dd>{value}</dd>\n"
        for name, value in (
            ("Agent", text(str(interruption["agent"]))),
            ("Tool", text(_tool(interruption))),
            ("Asked", _moment(interruption["requested_at"])),
            ("Run", text(interruption["run_id"])),
            ("It takes", _how_many(interruption)),
        )
        if value
    )
    if interruption["type"] in ("question", "budget"):
        # Its arguments are the question, and the fields below it.
        return f'<p class="said">{text(str(interruption["question"]))}</p>\n<dl>\n{rows}</dl>\n'
    return (
        f'<dl>\n{rows}</dl>\n<h2 class="hint">Arguments</h2>\n'
        f'<pre dir="ltr">{text(str(shown))}</pre>\n'
    )


def _how_many(interruption: Mapping[str, Any]) -> str:
    required, so_far = interruption["required"], len(interruption["decisions"])
    return f"{required} people; {so_far} so far" if required > 1 else ""


def _title(interruption: Mapping[str, Any]) -> str:
    if interruption["type"] == "question":
        return f"{interruption['agent']} asks"
    if interruption["type"] == "budget":
        return "May it spend more?"
    return f"{_tool(interruption)}: may it run?"


def _tool(interruption: Mapping[str, Any]) -> str:
    if interruption["type"] == "budget":
        return "More budget"
    return str((interruption["tool"] or {}).get("name", "The call"))


def _moment(rfc3339: str) -> str:
    shown = f"{rfc3339[:10]} {rfc3339[11:16]} UTC"
    return f'<time datetime="{text(rfc3339)}">{text(shown)}</time>'
