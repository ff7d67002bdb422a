"""Decision links: shown as often as anybody likes, used once, by whoever has the token."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from perdure.db import Connection, uuid7
from perdure.web import answers
from perdure.web.app import create_app
from tests.factories import Stop, enqueued, fetch, insert_run, insert_stop, insert_tenant
from tests.integration.api.conftest import ClientFor
from tests.integration.api.reading import pointers, read, read_list, refused

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=y>\u202e 1000\x1b[2J\u200b&amp;\"'"
VOID = {"meta", "input"}
KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "dl", "dt", "dd"),
    *("pre", "time", "form", "input", "label", "textarea", "div", "button", "select", "option"),
}


class Page(HTMLParser):
    """A page, strictly read: only known elements, each closed, no script, no foreign address."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.fields: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.buttons: list[str] = []
        self._label: str | None = None
        self._select = ""
        self._open: list[str] = []
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "noindex" in answer.headers["x-robots-tag"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.text.startswith("<!doctype html>\n")
        self.feed(answer.text)
        self.close()
        assert self._open == []
        assert not any(ord(c) < 32 and c != "\n" for c in answer.text)
        assert "\u202e" not in answer.text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in KNOWN
        given = dict(attrs)
        assert not any(name.startswith("on") or name in ("src", "href", "style") for name in given)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "input" and given.get("type") == "checkbox":
            self.kinds[str(given["name"])] = "checkbox"
            if "checked" in given:
                self.fields[str(given["name"])] = str(given["value"])
        elif tag == "input":
            self.fields[str(given["name"])] = str(given["value"])
            self.kinds[str(given["name"])] = str(given["type"])
        if tag in ("select", "textarea"):
            self._select = str(given["name"])
            self.kinds[self._select] = tag
            self.fields[self._select] = ""
        if tag == "option" and "selected" in given:
            self.fields[self._select] = str(given["value"])
        if tag == "label":
            self._label = str(given["for"])
            self.labels[self._label] = ""
        if tag == "button":
            self.buttons.append(str(given["value"]))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "label":
            self._label = None
        if tag == "textarea":
            # As a browser reads it: the first newline is not part of it.
            self.fields[self._select] = self.fields[self._select].removeprefix("\n")

    def names(self) -> dict[str, str]:
        """What fields are called in the form, by their labels."""
        return {label: name for name, label in self.labels.items()}

    def handle_data(self, data: str) -> None:
        if self._label is not None:
            self.labels[self._label] += data
        if self._open and self._open[-1] == "textarea":
            self.fields[self._select] += data
        if self._open and self._open[-1] != "style":
            self.text += data


@pytest.fixture
async def client(client_for: ClientFor) -> httpx.AsyncClient:
    """A client that may say who somebody else is."""
    return await client_for("admin", subject="ops")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    monkeypatch.setenv("PERDURE_SECRET_KEYS", f"s1:{key}")


async def _stop(conn: Connection, **fields: Any) -> Stop:
    return await insert_stop(conn, await insert_run(conn), **fields)


async def _link(client: httpx.AsyncClient, stop: Stop, **fields: Any) -> dict[str, Any]:
    body = {"subject": "bob@example.com", **fields}
    answer = await client.post(f"/v1/interruptions/{stop.id}/links", json=body)
    return read(answers.DecisionLink, answer, 201)


def _path(link: dict[str, Any]) -> str:
    return str(urlsplit(link["url"]).path)


async def _decide(
    person: httpx.AsyncClient, link: dict[str, Any], decision: str, message: str = "", **more: str
) -> httpx.Response:
    path = _path(link)
    fields = {"token": path.rpartition("/")[2], "decision": decision, "message": message, **more}
    return await person.post(path, data=fields, headers={"Origin": "null"})


async def test_a_link_shows_what_is_asked_and_decides_it_once(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await _stop(conn, arguments={"note": HOSTILE, "cents": 1999}, tool="refund<b>")
    link = await _link(client, stop)
    assert link["url"].startswith("http://api.test/d/")
    assert (link["subject"], link["decisions"]) == ("bob@example.com", ["approve", "reject"])
    # Scanners of mail fetch it as they like.
    for method in ("GET", "HEAD", "GET"):
        shown = await stranger.request(method, _path(link))
        assert shown.status_code == 200
    page = Page(shown)
    assert page.buttons == ["approve", "reject"]
    assert page.fields == {"token": _path(link).rpartition("/")[2], "message": ""}
    for text in (
        "refund<b>: may it run?",
        '"cents": 1999',
        r"</pre><script>alert(1)</script><img src=x onerror=y>\u202e 1000\u001b[2J\u200b&amp;",
        "You decide as bob@example.com, once",
        stop.digest,
    ):
        assert text in page.text
    row = await fetch(conn, "SELECT status FROM perdure.interruptions WHERE id = %s", stop.id)
    assert row["status"] == "pending"

    # What is no form of the page decides nothing.
    for wrong in (
        {"token": "x" * 43},
        {"decision": "answer"},
        {"decision": ""},
        {"message": "x" * 10_001},
        {"message": "a\0b"},
    ):
        answer = await _decide(stranger, link, **{"decision": "approve", **wrong})
        assert answer.status_code == 422, wrong
        Page(answer)
    for body, kind, status in (
        (b"{}", "application/json", 415),
        (b"token=%ff", "application/x-www-form-urlencoded", 422),
        (b"a=1&a=2", "application/x-www-form-urlencoded", 422),
        (b"", "application/x-www-form-urlencoded", 422),
    ):
        answer = await stranger.post(_path(link), content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, body

    # Of many at once one decides.
    given = await asyncio.gather(
        *(_decide(stranger, link, "approve", f"go\r\n{n} {HOSTILE[:9]}") for n in range(8))
    )
    assert sorted(one.status_code for one in given) == [303, *[409] * 7]
    [done] = [one for one in given if one.status_code == 303]
    after = await stranger.get(str(httpx.URL(link["url"]).join(done.headers["location"])))
    assert after.status_code == 200
    page = Page(after)
    assert (page.buttons, page.fields) == ([], {})
    assert "It was approved by bob@example.com" in page.text
    assert "Somebody else" not in page.text
    assert "</pre><sc" in page.text
    decided = (await client.get(f"/v1/interruptions/{stop.id}")).json()["decision"]
    assert decided["by"] == {"type": "link", "id": link["id"], "subject": "bob@example.com"}
    assert decided["source"] == "link 127.0.0.1"
    assert (decided["decision"], decided["digest"]) == ("approve", stop.digest)
    assert decided["message"].startswith("go\n")
    assert len(await enqueued(conn, stop.run_id)) == 1


async def test_a_link_that_can_decide_no_more_says_so_kindly(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, conn: Connection
) -> None:
    # Decided by somebody else: the page shows it, the form comes too late.
    stop = await _stop(conn)
    link, other = await _link(client, stop), await _link(client, stop, decisions=["reject"])
    shown = Page(await stranger.get(_path(other)))
    assert shown.buttons == ["reject"]
    assert (await _decide(stranger, other, "approve")).status_code == 422
    assert (await _decide(stranger, other, "reject", "no")).status_code == 303
    late = await stranger.get(_path(link))
    assert late.status_code == 200
    assert "Somebody else was first. It was rejected by bob@example.com" in Page(late).text
    late = await _decide(stranger, link, "approve")
    assert late.status_code == 409
    assert "It was rejected" in Page(late).text

    # Its time is over, or the question's.
    stop = await _stop(conn, expires_in=3600)
    link = await _link(client, stop, expires_in=86_400)
    row = await fetch(conn, "SELECT expires_at FROM perdure.interruptions WHERE id = %s", stop.id)
    assert link["expires_at"][:19] == row["expires_at"].isoformat()[:19]
    key = base64.b64decode(os.environ["PERDURE_SECRET_KEYS"].partition(":")[2])
    assert len(key) == 32
    await _end(conn, link, key)
    for answer in (await stranger.get(_path(link)), await _decide(stranger, link, "approve")):
        assert answer.status_code == 410
        assert "time is over" in Page(answer).text

    # Withdrawn with its run.
    stop = await _stop(conn)
    link = await _link(client, stop)
    await client.post(f"/v1/runs/{stop.run_id}/cancel")
    for answer in (await stranger.get(_path(link)), await _decide(stranger, link, "approve")):
        assert answer.status_code == 410
        assert "no longer stands" in Page(answer).text

    # No link at all; or one whose row somebody edited.
    stop, elsewhere = await _stop(conn), await _stop(conn)
    link = await _link(client, stop)
    token = _path(link).rpartition("/")[2]
    for wrong in ("x", "x" * 43, token[:-1], token + "A", token.swapcase(), "%00" * 43):
        answer = await stranger.get(f"/d/{wrong}")
        assert answer.status_code == 404, wrong
        Page(answer)
    for edit, old in (
        ("subject = 'mallory'", "subject"),
        ("groups = '{finance}'", "groups"),
        ("decisions = '{reject}'", "decisions"),
        ("expires_at = expires_at + interval '1 year'", "expires_at"),
        (f"digest = 'sha256:{'0' * 64}'", "digest"),
        (
            f"interruption_id = '{elsewhere.id}', run_id = '{elsewhere.run_id}'",
            "interruption_id, run_id",
        ),
    ):
        kept = await fetch(
            conn, f"SELECT {old} FROM perdure.decision_links WHERE id = %s", link["id"]
        )
        await conn.execute(f"UPDATE perdure.decision_links SET {edit}".encode())
        assert (await stranger.get(_path(link))).status_code == 404
        assert (await _decide(stranger, link, "approve")).status_code == 404
        back = ", ".join(f"{name} = %s" for name in kept)
        await conn.execute(
            f"UPDATE perdure.decision_links SET {back}".encode(), list(kept.values())
        )
    assert (await stranger.get(_path(link))).status_code == 200


async def _end(conn: Connection, link: dict[str, Any], secret: bytes) -> None:
    """Let a link's time be over, signed as it would have been."""
    from perdure.config import NamedKey
    from perdure.webhooks.tokens import Claims, sign

    row = await fetch(
        conn,
        "UPDATE perdure.decision_links SET expires_at = now() WHERE id = %s RETURNING *",
        link["id"],
    )
    claims = Claims(**{name: row[name] for name in Claims.__slots__})
    mac = sign(NamedKey("s1", secret), claims, bytes(row["token_hash"]))
    await conn.execute(
        "UPDATE perdure.decision_links SET mac = %s WHERE id = %s", (mac, link["id"])
    )


async def test_who_may_make_links_and_for_what(
    client: httpx.AsyncClient,
    client_for: ClientFor,
    app: FastAPI,
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = await _stop(conn)
    path, body = f"/v1/interruptions/{stop.id}/links", {"subject": "bob"}
    key = {"Idempotency-Key": "k"}
    first = await client.post(path, json=body, headers=key)
    again = await client.post(path, json=body, headers=key)
    assert read(answers.DecisionLink, first, 201) == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    # The token is in the answer and nowhere else.
    token = _path(first.json()).rpartition("/")[2]
    rows = await conn.execute(
        "SELECT to_jsonb(l)::text AS kept FROM perdure.decision_links l"
        " UNION ALL SELECT convert_from(body, 'UTF8') FROM perdure.idempotency_keys"
    )
    kept = [row["kept"] for row in await rows.fetchall()]
    assert len(kept) == 2
    assert not any(token in one for one in kept)

    reader = await client_for("runs:read")
    refused(await reader.post(path, json=body), 403, "forbidden")
    other = await client_for("admin", tenant_id=await insert_tenant(conn, "other"))
    refused(await other.post(path, json=body), 404, "not_found")
    refused(await client.post(f"/v1/interruptions/{uuid7()}/links", json=body), 404, "not_found")
    # For oneself; who is somebody else is for an admin to say.
    alice = await client_for("decisions:write", subject="alice", groups=["night"])
    own = await alice.post(path, json={})
    assert read(answers.DecisionLink, own, 201)["subject"] == "alice"
    row = await fetch(
        conn, "SELECT groups FROM perdure.decision_links WHERE id = %s", own.json()["id"]
    )
    assert row == {"groups": ["night"]}
    assert (await alice.post(path, json={"subject": "alice", "groups": []})).status_code == 201
    refused(await alice.post(path, json=body), 403, "forbidden")
    refused(await alice.post(path, json={"groups": ["night", "finance"]}), 403, "forbidden")
    vouched = await client.post(path, json={**body, "groups": ["finance"]})
    assert vouched.status_code == 201
    nobody = await client_for("decisions:write")
    answer = await nobody.post(path, json={})
    assert pointers(refused(answer, 422, "validation_error")) == ["/subject"]
    for wrong, pointer in (
        ({"subject": ""}, "/subject"),
        ({**body, "expires_in": 59}, "/expires_in"),
        ({**body, "expires_in": 31 * 86_400}, "/expires_in"),
        ({**body, "decisions": []}, "/decisions"),
        ({**body, "decisions": ["resolve"]}, "/decisions/0"),
    ):
        answer = await client.post(path, json=wrong)
        assert pointers(refused(answer, 422, "validation_error")) == [pointer]
    answer = await client.post(path, json={**body, "decisions": ["answer"]})
    assert pointers(refused(answer, 422, "validation_error")) == ["/decisions"]
    # Whom it was made for is in the audit, once; not what it is opened by.
    audit = read_list(answers.AuditEntry, await client.get("/v1/audit?kind=link.created&order=asc"))
    assert [one["details"]["subject"] for one in audit] == ["bob", "alice", "alice", "bob"]
    assert audit[0]["subject"] == {"type": "link", "id": first.json()["id"]}
    assert (audit[0]["actor"]["subject"], audit[0]["shown_digest"]) == ("ops", stop.digest)
    assert audit[3]["details"] == {
        "interruption_id": str(stop.id),
        "subject": "bob",
        "groups": ["finance"],
        "decisions": ["approve", "reject"],
        "expires_at": vouched.json()["expires_at"],
    }
    assert token not in str(audit)
    doubt = await _stop(conn, type="uncertain_effect")
    answer = await client.post(f"/v1/interruptions/{doubt.id}/links", json=body)
    refused(answer, 422, "not_supported")
    await client.post(f"/v1/runs/{stop.run_id}/cancel")
    refused(await client.post(path, json=body), 409, "invalid_state")

    # Behind an address of its own; and never without a key to sign with.
    settings = app.state.api.settings
    open_stop = await _stop(conn)
    object.__setattr__(settings, "public_url", "https://ask.example/perdure")
    assert (await _link(client, open_stop))["url"].startswith("https://ask.example/perdure/d/")
    object.__setattr__(settings, "secret_keys", ())
    answer = await client.post(f"/v1/interruptions/{open_stop.id}/links", json=body)
    assert "PERDURE_SECRET_KEYS" in refused(answer, 422, "not_supported")["detail"]


async def test_where_two_have_to_decide_each_has_a_link(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await _stop(conn)
    await conn.execute("UPDATE perdure.interruptions SET required = 2")
    bob, again = await _link(client, stop), await _link(client, stop)
    carol = await _link(client, stop, subject="carol@example.com")
    assert "2 people; 0 so far" in Page(await stranger.get(_path(bob))).text
    assert (await _decide(stranger, bob, "approve")).status_code == 303
    thanks = await stranger.get(_path(bob))
    assert (thanks.status_code, "Thank you" in Page(thanks).text) == (200, True)
    # One person is one, by whatever links.
    twice = await _decide(stranger, again, "approve")
    assert twice.status_code in (403, 409)
    assert Page(twice).buttons == ["approve", "reject"]
    assert (await client.get(f"/v1/interruptions/{stop.id}")).json()["status"] == "pending"
    assert "2 people; 1 so far" in Page(await stranger.get(_path(carol))).text
    assert (await _decide(stranger, carol, "approve")).status_code == 303
    closed = (await client.get(f"/v1/interruptions/{stop.id}")).json()
    assert closed["status"] == "approved"
    assert [one["by"]["subject"] for one in closed["decisions"]] == [
        "bob@example.com",
        "carol@example.com",
    ]
    # It was decided with the word of the first one too: the page says by whom it was closed.
    assert "carol@example.com" in Page(await stranger.get(_path(bob))).text


LIMITS: dict[str, Any] = {
    "type": "object",
    "properties": {"total_tokens": {"type": "integer", "description": "The new limit in tokens."}},
    "additionalProperties": False,
}
ADDRESS = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "description": HOSTILE},
        "cents": {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "null"}]},
        "weight": {"type": "number"},
        "country": {"$ref": "#/$defs/Country"},
        "insured": {"type": "boolean"},
        "signed": {"type": "boolean"},
        HOSTILE: {"type": "array"},
    },
    "required": ["street", "country", "insured", HOSTILE, "cents"],
    "$defs": {"Country": {"type": "string", "enum": ["DE", HOSTILE, "FR"]}},
}


async def test_a_question_is_answered_by_the_form_its_schema_draws(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, conn: Connection
) -> None:
    asked = {"type": "question", "tool": "ask_human", "question": f"Where to? {HOSTILE}"}
    stop = await _stop(conn, **asked, schema=ADDRESS)
    link = await _link(client, stop)
    assert link["decisions"] == ["answer", "reject"]
    page = Page(await stranger.get(_path(link)))
    assert page.buttons == ["answer", "reject"]
    assert "Where to? </pre><script>" in page.text
    # Required first, in their order; the token's field and the message's are the page's own.
    hostile = next(label for label in page.labels.values() if label.startswith("</pre>"))
    assert list(page.labels.values())[:5] == ["street", "country", "insured", hostile, "cents"]
    name = page.names()
    assert {label: page.kinds[key] for label, key in name.items()} == {
        "street": "text",
        "country": "select",
        "insured": "checkbox",
        hostile: "textarea",
        "cents": "text",
        "weight": "text",
        "signed": "select",
        "A word with it (the agent reads it when you reject)": "textarea",
    }

    def form(**typed: str) -> dict[str, str]:
        given = {"street": "Rue <1>", "country": "1", "hostile": "[1]", **typed}
        return {name.get(label, name[hostile]): value for label, value in given.items()}

    # What does not fit is shown again, with the field named and what was typed kept.
    kept = '"><b>\N{FAMILY}\u200d&amp;'
    for wrong, field, words in (
        ({"street": " "}, "street", "has to be filled in."),
        ({"country": ""}, "country", "has to be filled in."),
        ({"country": "3"}, "country", "has to be one of the choices."),
        ({"cents": kept}, "cents", "has to be a number, such as 12 or 12.5."),
        ({"cents": "4"}, "cents", "does not fit: 4 is less than the minimum of 5"),
        ({"cents": "1.5"}, "cents", "does not fit: 1.5 is not of type 'integer'"),
        ({"cents": "9" * 25}, "cents", "has a number beyond 64 bits."),
        ({"weight": "1e999"}, "weight", "has a number that is too large, or none."),
        ({"hostile": "\n[1"}, hostile, "has to be JSON: Expecting ',' delimiter"),
        ({"hostile": "[NaN]"}, hostile, "has a number that is too large, or none."),
        ({"hostile": "[" * 5000}, hostile, ""),
        ({"hostile": "[" * 70 + "]" * 70}, hostile, "is nested deeper than 64."),
        ({"hostile": '"no list"'}, hostile, "does not fit: 'no list' is not of type 'array'"),
        ({"signed": "2"}, "signed", "has to be one of the choices."),
    ):
        typed = form(**wrong)
        again = await _decide(stranger, link, "answer", f"said\n{kept}", **typed)
        assert again.status_code == 422, wrong
        page = Page(again)
        assert f"{field} {words}" in page.text
        assert again.text.count('aria-invalid="true"') == 1
        for key, value in typed.items():
            # What no option stands for is none that was chosen.
            assert page.fields[key] == (value if value != "3" and value != "2" else "")
        assert page.fields["message"] == f"said\n{kept}"
    answer = await _decide(stranger, link, "answer")
    assert answer.text.count('aria-invalid="true"') == 3
    assert (await _decide(stranger, link, "approve")).status_code == 422
    assert (await client.get(f"/v1/interruptions/{stop.id}")).json()["status"] == "pending"

    typed = form(insured="on", weight="2.50", signed="1", hostile='["\\u0041"]\r\n')
    given = await _decide(stranger, link, "answer", **typed)
    assert given.status_code == 303
    shown = Page(await stranger.get(_path(link)))
    assert "It was answered by bob@example.com" in shown.text
    decided = (await client.get(f"/v1/interruptions/{stop.id}")).json()["decision"]
    assert (decided["by"]["type"], decided["digest"]) == ("link", stop.digest)
    assert decided["answer"] == {
        "street": "Rue <1>",
        "country": HOSTILE,
        "insured": True,
        HOSTILE: ["A"],
        "cents": None,
        "weight": 2.5,
        "signed": False,
    }
    assert len(await enqueued(conn, stop.run_id)) == 1

    # Without a schema it is any text; what no form can say is JSON. Or it is rejected.
    for schema, typed_in, answered in (
        (None, "one\r\ntwo", "one\ntwo"),
        ({"oneOf": [{"type": "integer"}, {"type": "array"}]}, "[1, 2]", [1, 2]),
        ({"type": "string", "enum": ["no", "yes"]}, "1", "yes"),
    ):
        stop = await _stop(conn, **asked, schema=schema)
        link = await _link(client, stop)
        assert (await _decide(stranger, link, "answer", answer=typed_in)).status_code == 303
        decided = (await client.get(f"/v1/interruptions/{stop.id}")).json()["decision"]
        assert decided["answer"] == answered
    stop = await _stop(conn, **asked, schema=ADDRESS)
    link = await _link(client, stop)
    assert (await _decide(stranger, link, "reject", "Ask Carol.")).status_code == 303
    assert "It was rejected by bob" in Page(await stranger.get(_path(link))).text
    only = await _link(client, await _stop(conn, **asked), decisions=["answer"])
    assert Page(await stranger.get(_path(only))).buttons == ["answer"]
    assert (await _decide(stranger, only, "reject")).status_code == 422


async def test_a_budget_is_raised_by_the_form_of_its_limits(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, conn: Connection
) -> None:
    stop = await _stop(conn, type="budget", question="10 of 12 tokens are spent.", schema=LIMITS)
    made = await (
        await conn.execute(
            """
            INSERT INTO perdure.budgets (id, tenant_id, scope, run_id, total_tokens)
            SELECT %s, tenant_id, 'run', id, 12 FROM perdure.runs WHERE id = %s RETURNING id
            """,
            (uuid7(), stop.run_id),
        )
    ).fetchone()
    assert made is not None
    await conn.execute(
        "INSERT INTO perdure.budget_periods (budget_id, starts_at) VALUES (%s, '-infinity')",
        (made["id"],),
    )
    budget = {
        "id": str(made["id"]),
        "scope": "run",
        "starts_at": "-infinity",
        "reason": "reached",
        "cost_usd": None,
        "total_tokens": 12,
    }
    await conn.execute(
        "UPDATE perdure.interruptions SET tool = NULL, tool_call_id = NULL, budget = %s"
        " WHERE id = %s",
        (json.dumps(budget), stop.id),
    )
    link = await _link(client, stop)
    assert link["decisions"] == ["approve", "reject"]
    page = Page(await stranger.get(_path(link)))
    assert page.buttons == ["approve", "reject"]
    assert "10 of 12 tokens are spent." in page.text
    [field] = [key for label, key in page.names().items() if label == "total_tokens"]
    for typed, said in (("", "new limit"), ("11", "more than the limit"), ("many", "number")):
        again = await _decide(stranger, link, "approve", **{field: typed})
        assert again.status_code == 422
        assert said in Page(again).text
    assert (await _decide(stranger, link, "approve", **{field: "500"})).status_code == 303
    assert "More budget: approved" in Page(await stranger.get(_path(link))).text
    raised = await (
        await conn.execute("SELECT total_tokens FROM perdure.budget_periods")
    ).fetchone()
    assert raised == {"total_tokens": 500}


async def test_without_keys_a_page_without_an_origin_may_send_its_form_and_nothing_else(
    app: FastAPI,
) -> None:
    api = app.state.api
    local = create_app(
        pool=api.pool, registry=api.registry, waiters=api.waiters, loopback_only=True
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(local), base_url="http://127.0.0.1"
    ) as browser:
        headers = {"Origin": "null"}
        form = await browser.post(f"/d/{'x' * 43}", data={"token": "x"}, headers=headers)
        assert form.status_code == 404
        Page(form)
        refused(await browser.post("/v1/runs", json={}, headers=headers), 403, "forbidden")
        headers = {"Origin": "https://elsewhere.example"}
        answer = await browser.post(f"/d/{'x' * 43}", data={"token": "x"}, headers=headers)
        refused(answer, 403, "forbidden")
