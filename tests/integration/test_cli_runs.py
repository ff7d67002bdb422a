"""``perdure runs``, ``inbox`` and the decisions, against ``perdure serve``."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from agents import SQLiteSession
from agents.extensions.memory import AdvancedSQLiteSession
from typer.testing import CliRunner, Result

from perdure import PostgresSession
from perdure.cli.app import app
from tests.cli_support import PERDURE, SECONDS, environment, going, perdure, perdure_json
from tests.conftest import Server

APP = str(Path(__file__).parents[1] / "cli_app.py")
HOSTILE = "\x1b]0;owned\x07\x1b[2J pay \u202e001 \x9b31m\r\x08"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture(scope="module")
def served(server: Server, template: str) -> Iterator[dict[str, str]]:
    """The environment of clients of a server with a worker."""
    url = server.create(template=template)
    key = perdure_json("keys", "create", "--subject", "alice", env={"DATABASE_URL": url})["key"]
    arguments = ("serve", APP, "--worker", "--port", "0")
    with going(*arguments, env={"DATABASE_URL": url}) as process:
        address = process.address("Serving")
        yield {"PERDURE_URL": address, "PERDURE_API_KEY": key, "DATABASE_URL": url}
        assert process.stop() == 0, process.said
    server.drop(url)


Run = Callable[..., Any]


@pytest.fixture
def run(served: dict[str, str]) -> Run:
    return lambda *arguments, **options: perdure(*arguments, env=served, **options)


@pytest.fixture
def run_json(served: dict[str, str]) -> Run:
    return lambda *arguments, **options: perdure_json(*arguments, env=served, **options)


@pytest.fixture
def waiting(run_json: Run) -> dict[str, Any]:
    """A run that waits for an approval."""
    started = run_json("runs", "start", "echo", f"hello {uuid4()}", "--wait")
    assert started["status"] == "interrupted"
    return dict(started)


def test_the_way_of_a_run(run: Run, run_json: Run, waiting: dict[str, Any]) -> None:
    [question] = waiting["interruptions"]
    listed = run_json("inbox", "--run", waiting["id"])
    assert [one["id"] for one in listed["data"]] == [question["id"]]

    decided = run_json("approve", question["id"], "--message", "fine")
    assert decided["status"] == "approved"
    assert decided["decision"]["message"] == "fine"
    assert decided["decision"]["digest"] == question["digest"]
    assert decided["decision"]["by"]["subject"] == "alice"

    run("runs", "show", waiting["id"])
    assert run_json("inbox", "--run", waiting["id"])["data"] == []
    again = run("approve", question["id"], code=1)
    assert "is approved already" in again.stderr
    assert "It is: approve by alice at " in again.stderr


def test_saying_something(run: Run, run_json: Run, served: Any, waiting: dict[str, Any]) -> None:
    said = ("runs", "say", waiting["id"])
    key = ("--idempotency-key", str(uuid4()))
    added = run_json(*said, "-", *key, stdin="\x1b[2J Wait.\n")
    assert (added["status"], added["added_by"]["subject"]) == ("pending", "alice")
    assert added["input"] == [{"role": "user", "content": "\x1b[2J Wait."}]
    assert run(*said, "\x1b[2J Wait.", *key).stdout == f"{added['id']}\n"
    second = run(*said, "And more.").stdout.strip()
    assert run_json("runs", "show", waiting["id"])["status"] == "interrupted"
    run("approve", waiting["interruptions"][0]["id"])
    with httpx.Client(
        base_url=f"{served['PERDURE_URL']}/v1/runs",
        headers={"Authorization": f"Bearer {served['PERDURE_API_KEY']}"},
    ) as client:
        rested = client.get(waiting["id"], params={"wait": 30}).json()
        listed = client.get(f"{waiting['id']}/inputs").json()["data"]
    # It has something else to note now.
    [question] = rested["interruptions"]
    assert question["tool"]["arguments"] == {"text": "And more."}
    assert [(one["id"], one["status"]) for one in listed] == [
        (added["id"], "given"),
        (second, "given"),
    ]
    shown = run("runs", "show", waiting["id"]).stdout
    assert re.search(r"^alice +\d+ s +given +\S*\[2J Wait\.$", shown, re.MULTILINE), shown
    assert "\x1b" not in shown
    run("runs", "cancel", waiting["id"])
    too_late = run(*said, "Too late.", code=1)
    assert "is cancelled and cannot be given a message" in too_late.stderr
    assert "has to be text" in run(*said, "", code=1).stderr


def test_grants(run: Run, run_json: Run, waiting: dict[str, Any]) -> None:
    [question] = waiting["interruptions"]
    word = f"rent-{uuid4()}"
    approve = ("approve", question["id"])
    for misused in (["--until", "2h"], ["--remember", "agent"], ["--when", "/text eq x"]):
        assert "--remember" in run(*approve, *misused, code=2).stderr
    wrong = run(*approve, "--remember", "run", "--until", "2h", "--when", "/text max 5", code=1)
    assert "is no condition" in wrong.stderr
    assert "/remember/until" in run(*approve, "--remember", "run", "--until", "2y", code=1).stderr

    options = ("--remember", "agent", "--until", "2h", "--when", f"/text prefix {word}")
    approved = run(*approve, *options).stdout
    assert "Approved." in approved
    [grant_id] = re.findall(r"perdure grants revoke (\S+)", approved)
    assert run_json("runs", "start", "echo", f"{word} 1", "--wait")["status"] == "completed"
    table = run("grants", "list", "--tool", "note", "--agent", "echo", "--scope", "agent").stdout
    head, line = table.splitlines()
    assert head.split() == ["ID", "TOOL", "AGENT", "FOR", "UNTIL", "BY", "COVERS"]
    assert line.startswith(f"{grant_id}  note  echo   agent")
    assert line.endswith(f'alice  /text prefix "{word}"')
    assert [one["id"] for one in run_json("grants", "list")["data"]] == [grant_id]
    shown = run("grants", "show", grant_id).stdout
    assert re.search(r"^status +active$", shown, re.MULTILINE)
    assert re.search(r"^uses +1, the last ", shown, re.MULTILINE)
    assert f'{{"text": "{word} 1"}}' in shown
    document = run_json("grants", "show", grant_id)
    assert (document["uses"], len(document["last_uses"])) == (1, 1)

    assert re.search(
        r"^revoked .* by alice$", run("grants", "revoke", grant_id).stdout, re.MULTILINE
    )
    assert run_json("grants", "revoke", grant_id)["active"] is False
    assert run_json("runs", "start", "echo", f"{word} 2", "--wait")["status"] == "interrupted"
    assert run("grants", "list").stderr == "No such grants.\n"
    assert grant_id in run("grants", "list", "--over").stdout
    assert "perdure grants list" in run("grants", "show", "nonsense", code=2).stderr


def test_sessions(served: dict[str, str], run: Run, run_json: Run) -> None:
    headers = {"Authorization": f"Bearer {served['PERDURE_API_KEY']}"}
    with httpx.Client(base_url=served["PERDURE_URL"], headers=headers) as http:
        body = {"user_id": f"bob-{uuid4()}", "tags": ["t"]}
        made = http.post("/v1/sessions", json=body).json()
        said = [{"role": "user", "content": f"{n} {HOSTILE}"} for n in (1, 2, 3)]
        http.post(f"/v1/sessions/{made['id']}/items", json={"items": said}).raise_for_status()

    branch = run_json("sessions", "branch", made["id"], "--from", "2", "--title", "Another way")
    shown = run("sessions", "show", branch["id"], "--limit", "1")
    assert re.search(r"^title +Another way$", shown.stdout, re.MULTILINE)
    assert re.search(rf"^branch +of {made['id']} after item 2$", shown.stdout, re.MULTILINE)
    *_, head, line = shown.stdout.splitlines()
    assert (head.split(), line.split()[:2]) == (["NO", "ROLE", "SAID", "TEXT"], ["2", "user"])
    assert not CONTROL.search(shown.stdout)
    assert "There are earlier ones" in shown.stderr
    document = run_json("sessions", "show", made["id"])
    assert [one["item"] for one in document["items"]] == said
    found = run("sessions", "search", "pay", "--session", branch["id"])
    assert [line.split()[1] for line in found.stdout.splitlines()[1:]] == ["2", "1"]
    assert "*pay*" in found.stdout
    assert not CONTROL.search(found.stdout)
    assert run("sessions", "search", str(uuid4())).stderr == "Nothing was said like that.\n"

    to_it = ("--session", branch["id"], "--user", body["user_id"], "--task", "CHAT")
    started = run_json("runs", "start", "echo", "hello", *to_it, "--wait")
    queued = run_json("runs", "start", "echo", "again", *to_it[:4])
    refused = run("runs", "start", "echo", "no", *to_it[:4], "--when-busy", "reject", code=1)
    assert started["id"] in refused.stderr
    stands = run("sessions", "show", branch["id"]).stdout
    assert re.search("^stands +paused, waits for approval of note$", stands, re.MULTILINE)
    assert re.search(r"^waiting +1 run\(s\)$", stands, re.MULTILINE)
    assert re.search(r' note \{"text": "hello"\}$', stands, re.MULTILINE)
    shown = run("runs", "show", started["id"]).stdout
    assert re.search(rf"^session +{branch['id']}\ntask +CHAT$", shown, re.MULTILINE)
    listed = run_json("runs", "list", "--session", branch["id"], "--task", "CHAT")["data"]
    assert [(one["id"], one["task"]) for one in listed] == [(started["id"], "CHAT")]
    no_such = run("runs", "list", "--session", branch["id"], "--metadata", '{"ticket": "T-1"}')
    assert no_such.stderr == "No runs match.\n"
    for one in (queued, started):
        run("runs", "cancel", one["id"])

    listed = run("sessions", "list", "--user", body["user_id"], "--tag", "t", "--status", "active")
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == [
        branch["id"],
        made["id"],
    ]
    assert "branch(es)" in run("sessions", "delete", made["id"], "--hard", code=1).stderr
    assert run("sessions", "delete", made["id"], "--hard", "--cascade").stderr == "Erased.\n"
    assert run("sessions", "list", "--user", body["user_id"]).stderr == "No such sessions.\n"


async def test_sessions_taken_along(
    served: dict[str, str], run: Run, run_json: Run, tmp_path: Path
) -> None:
    """What the SDK wrote into a file of SQLite is brought here, out and in again."""

    def quick(*arguments: str, code: int = 0, stdin: str = "") -> Result:
        done = CliRunner().invoke(app, ["sessions", *arguments], env=served, input=stdin)
        assert done.exit_code == code, done.output
        return done

    def quick_json(*arguments: str, **options: Any) -> Any:
        return json.loads(quick(*arguments, "--json", **options).stdout)

    sdk, user = tmp_path / "conversations.db", f"bob-{uuid4()}"
    items: list[Any] = [
        {"role": "user", "content": f"{n} {HOSTILE}", "b": 1.0, "a": "\0"} for n in range(9)
    ]
    for name in ("first", "second"):
        session = SQLiteSession(name, sdk)
        await session.add_items(items)
        session.close()
    branching = AdvancedSQLiteSession(
        session_id="third", db_path=tmp_path / "advanced.db", create_tables=True
    )
    await branching.add_items(items)
    await branching.create_branch_from_turn(3, "other")
    await branching.add_items(items[:1])
    branching.close()

    def left() -> set[str]:
        return {one.name for one in tmp_path.iterdir()}

    def go_on(key: str) -> PostgresSession:
        return PostgresSession(key, user_id=user, url=served["DATABASE_URL"])

    async def read(key: str) -> list[Any]:
        async with go_on(key) as there:
            return await there.get_items()

    brought = run("sessions", "import-sqlite", str(sdk), "--user", user)
    assert brought.stdout.split() == ["sessions", "2", "items", "18"]
    assert [json.dumps(await read(key)) for key in ("first", "second")] == [json.dumps(items)] * 2
    done = quick_json("import-sqlite", str(tmp_path / "advanced.db"), "--user", user)
    assert [one["from"] for one in done["sessions"]] == ["third", "third/other"]
    assert (await read("third"), await read("third/other")) == (items, items[:2] + items[:1])
    async with go_on("first") as there:
        await there.pop_item()

    with sqlite3.connect(sdk) as conn:
        conn.execute("UPDATE agent_messages SET message_data = ? WHERE id = 12", (b"\xff",))
        conn.execute("UPDATE agent_messages SET session_id = 'new' WHERE session_id = 'second'")
        conn.execute("UPDATE agent_sessions SET session_id = 'new' WHERE session_id = 'second'")
    conn.close()
    arguments = ("import-sqlite", str(sdk), "--user", user)
    assert "is damaged" in quick(*arguments, code=1).stderr
    assert "Message 12 of session 'new'" in quick(*arguments, "--skip-taken", code=1).stderr
    refused = quick(*arguments, "--skip-damaged", code=1).stderr
    assert "the key 'first'" in refused
    done = quick_json(*arguments, "--skip-damaged", "--skip-taken")
    assert [done[f"{what}_count"] for what in ("session", "item", "skipped", "damaged")] == [
        *(1, 8, 1, 1)
    ]
    missing = quick(*arguments, "--table-messages", 'no"such', code=1).stderr
    assert 'no such table: no"such' in missing

    file = tmp_path / "sessions.jsonl"
    whole = run("sessions", "export", "--user", user)
    assert quick("export", "--user", user, "-o", str(file)).stderr.startswith("5 session")
    assert file.read_text() == whole.stdout
    assert "sessions.jsonl.part" not in left()
    said = quick_json("export", "--user", user, "--tag", "none", "-o", str(file) + "2")
    assert (said["sessions"], said["items"]) == (0, 0)
    assert "the key" in quick("import", str(file), code=1).stderr
    done = run_json("sessions", "import", "-", "--user", f"{user}-too", stdin=whole.stdout)
    assert (done["session_count"], done["item_count"]) == (5, 8 + 9 + 8 + 9 + 3)
    [first, *_] = done["sessions"]
    cut = whole.stdout.splitlines()[:3]
    warned = quick("import", "-", "--user", "third", stdin="\n".join(cut)).stderr
    assert "a part is missing" in warned
    assert "/lines/2" in quick("import", "-", code=1, stdin=cut[0] + "\n{").stderr
    assert first["id"] in quick("export", "--session", first["id"]).stdout
    assert "no session" in quick("export", "--session", str(uuid4()), code=1).stderr
    assert "--output" in quick("export", "--json", code=2).stderr
    for command in ("import", "import-sqlite"):
        assert "no file" in quick(command, "nowhere", code=2).stderr


def test_feedback(served: dict[str, str], run: Run) -> None:
    headers = {"Authorization": f"Bearer {served['PERDURE_API_KEY']}"}
    user = f"bob-{uuid4()}"
    with httpx.Client(base_url=served["PERDURE_URL"], headers=headers, timeout=SECONDS) as http:
        started = http.post("/v1/runs", json={"agent": "asker", "input": "hi"}).json()
        on = http.get(f"/v1/runs/{started['id']}", params={"wait": 60}).json()
        rated = {"run_id": on["id"], "rating": 4, "type": "accuracy", "comment": HOSTILE}
        http.post("/v1/feedback", json=rated).raise_for_status()
    assert "one of them" in run("feedback", "add", "--run", on["id"], code=2).stderr
    assert run("feedback", "list", "--user", user).stderr == "No such feedback.\n"
    given = ("--run", on["id"], "--user", user, "--dislike", "--comment", HOSTILE)
    shown = run("feedback", "add", *given).stdout
    assert re.search(r"^says +dislikes it$", shown, re.MULTILINE)
    assert re.search(rf"^version +{on['agent_version']}$", shown, re.MULTILINE)
    listed = run("feedback", "list", "--run", on["id"])
    head, disliked, liked = listed.stdout.splitlines()
    assert head.split() == ["ID", "AGE", "ON", "AGENT", "USER", "SAYS", "TYPE", "COMMENT"]
    assert (user in disliked, "dislikes it" in disliked, "4 of 5" in liked) == (True, True, True)
    assert not CONTROL.search(shown + listed.stdout)
    table = run("feedback", "summary", "--agent", "asker").stdout.splitlines()
    assert table[1].split() == [*("asker", on["agent_version"], "2", "4.00"), *"00010", "0", "1"]


def test_operations(served: dict[str, str], run: Run, run_json: Run) -> None:
    headers = {"Authorization": f"Bearer {served['PERDURE_API_KEY']}"}
    with httpx.Client(base_url=served["PERDURE_URL"], headers=headers, timeout=SECONDS) as http:
        run_id = http.post("/v1/runs", json={"agent": "echo", "input": HOSTILE}).json()["id"]
        [asked] = http.get(f"/v1/runs/{run_id}?wait=60").json()["interruptions"]
        http.post(
            f"/v1/interruptions/{asked['id']}/decision",
            json={"decision": "approve", "digest": asked["digest"]},
        ).raise_for_status()
        assert http.get(f"/v1/runs/{run_id}?wait=60").json()["status"] == "completed"
    target = f"note/{len(HOSTILE)}"
    table = run("operations", "list", "--run", run_id, "--target", target).stdout
    head, line = table.splitlines()
    assert head.split() == ["ID", "AGE", "RUN", "TOOL", "KIND", "TARGET", "CHANGED"]
    assert line.split()[3:9] == [run_id, "note", "WRITE", target, "~", "/text"]
    assert not CONTROL.search(table)
    [one] = run_json("operations", "list", "--run", run_id)["data"]
    assert one["new"] == {"text": HOSTILE}
    nothing = run("operations", "list", "--run", run_id, "--kind", "DELETE")
    assert "record_operation" in nothing.stderr


def test_a_session_is_replayed_and_compared(
    served: dict[str, str], run: Run, run_json: Run, tmp_path: Path
) -> None:
    headers = {"Authorization": f"Bearer {served['PERDURE_API_KEY']}"}
    with httpx.Client(base_url=served["PERDURE_URL"], headers=headers) as http:
        made = http.post("/v1/sessions", json={"user_id": "bob"}).json()["id"]
        said = [
            {"role": role, "content": f"{n} {HOSTILE}"}
            for n in (1, 2)
            for role in ("user", "assistant")
        ]
        http.post(f"/v1/sessions/{made}/items", json={"items": said}).raise_for_status()
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Be brief.\n")
    arguments = ("sessions", "replay", made, "--agent", "echo", "--user", "bob")
    replayed = run_json(*arguments, "--system-prompt", f"@{prompt}", "--wait")
    branch = replayed["session"]["id"]
    assert replayed["session"]["system_prompt"] == "Be brief."
    assert [one["status"] for one in replayed["runs"]] == ["interrupted", "queued"]
    [question] = replayed["runs"][0]["interruptions"]
    run("reject", question["id"])
    assert _rested(served, replayed["runs"][0]["id"])["status"] == "completed"

    shown = run("sessions", "diff", branch)
    assert not CONTROL.search(shown.stdout)
    head, _, asked, *_ = shown.stdout.splitlines()
    assert head.split() == [made, branch]
    assert asked.startswith("1> 1 ")
    assert "[-1" in shown.stdout
    assert "{+note gave:" in shown.stdout
    code, coloured = on_a_terminal(served, "sessions", "diff", branch, typed="")
    assert (code, "\x1b[31m1" in coloured, "{+" in coloured) == (0, True, False)
    turns = run_json("sessions", "diff", branch, "--with", made, "--limit", "1")
    assert (len(turns["turns"]), turns["has_more"]) == (1, True)

    last = run(*arguments[:2], made, "--agent", "failing", "--from", "3", "--wait", code=1)
    assert re.search(r"^\S+ +3 +failed +-$", last.stdout, re.MULTILINE)
    assert "perdure sessions diff" in last.stderr
    missing = run(*arguments, "--system-prompt", "@nowhere", code=2)
    assert "cannot be read" in missing.stderr
    empty = run("sessions", "diff", run_json("sessions", "branch", made)["id"])
    assert empty.stderr == "Nothing was said in either after item 4.\n"


def test_a_run_is_forked_and_compared(
    run: Run, run_json: Run, served: dict[str, str], waiting: dict[str, Any], tmp_path: Path
) -> None:
    [question] = waiting["interruptions"]
    run("approve", question["id"], "--yes")
    assert _rested(served, waiting["id"])["status"] == "completed"
    listed = run("runs", "checkpoints", waiting["id"]).stdout.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [
        ["1", "interrupted", "echo"],
        ["2*", "final", "echo"],
    ]
    shown = run("runs", "checkpoints", waiting["id"], "2").stdout
    assert "checkpoint 1" in shown
    assert "message_output" in shown

    # Its calls are answered: nobody is asked, and none is made.
    again = run("runs", "fork", waiting["id"], "--checkpoint", "0", "--wait")
    assert "succeeded (not made)" in again.stdout
    assert f"{waiting['id']}, checkpoint 0" in again.stdout
    words = tmp_path / "words.txt"
    words.write_text("other words\n")
    arguments = ("runs", "fork", waiting["id"], "--checkpoint", "0", "--input", f"@{words}")
    fork = run_json(*arguments, "--instructions", "Be brief.", "--wait")
    assert (fork["status"], fork["input"]) == ("interrupted", "other words")
    assert fork["instructions"] == "Be brief."
    compared = run("runs", "diff", fork["id"])
    assert compared.stdout.splitlines()[0].split() == [waiting["id"], fork["id"]]
    assert "other words" in compared.stdout
    assert "first 0 items" in compared.stderr
    step = run("runs", "diff", waiting["id"], "--to", "1").stdout
    assert "the run's beginning" in step
    refused = run("runs", "fork", waiting["id"], "--checkpoint", "2", code=1)
    assert "cannot be forked without input" in refused.stderr
    headers = {"Authorization": f"Bearer {served['PERDURE_API_KEY']}"}
    with httpx.Client(base_url=served["PERDURE_URL"], headers=headers) as http:
        later = http.post("/v1/runs", json={"agent": "echo", "input": "x", "delay_seconds": 3600})
    assert "No checkpoints yet" in run("runs", "checkpoints", later.json()["id"]).stderr


def test_what_people_see(run: Run, run_json: Run, waiting: dict[str, Any]) -> None:
    [question] = waiting["interruptions"]
    inbox = run("inbox", "--run", waiting["id"])
    head, line = inbox.stdout.splitlines()
    assert head.split() == ["ID", "WAITING", "QUESTION", "AGENT", "TOOL", "ARGUMENTS"]
    assert line.startswith(question["id"])
    assert waiting["input"] in line
    assert f"perdure approve {question['id']}" in inbox.stderr

    approved = run("approve", question["id"])
    assert f'"text": "{waiting["input"]}"' in approved.stderr
    assert question["digest"] in approved.stderr
    assert approved.stdout == f"Approved. See the run: perdure runs show {waiting['id']}\n"

    table = run("runs", "list", "--agent", "echo", "--limit", "100").stdout
    assert table.splitlines()[0].split() == ["ID", "STATUS", "AGE", "AGENT", "USER", "INPUT"]
    assert waiting["id"] in table


def test_show_waits_for_nothing_and_tells_all(run: Run, run_json: Run, waiting: Any) -> None:
    shown = run("runs", "show", waiting["id"])

    fields = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines()[:9] if line)
    assert fields["status"] == "interrupted"
    assert fields["agent"] == "echo"
    assert fields["usage"].startswith("1 requests, ")
    assert re.search(r"^note +awaiting_approval +0 +at_most_once +echo", shown.stdout, re.MULTILINE)
    assert f"perdure approve {waiting['interruptions'][0]['id']}" in shown.stderr


def test_what_was_used_is_summed_up(run: Run, run_json: Run, waiting: Any) -> None:
    told = run("usage", "--group-by", "day", "--group-by", "agent,user", "--agent", "echo")
    head, *lines = told.stdout.splitlines()
    sums = ["REQUESTS", "INPUT", "CACHED", "OUTPUT", "REASONING", "TOTAL", "COST", "(USD)"]
    assert head.split() == ["DAY", "AGENT", "USER", *sums]
    assert any(line.split()[1] == "echo" and line.split()[-1] == "-" for line in lines)
    assert "not all requests have a known price" in told.stderr
    found = run_json("usage", "--from", "2020-01-01", "--limit", "1")
    assert found["object"] == "list"
    assert {"agent", "model", "requests", "cost_usd"} <= set(found["data"][0])
    empty = run("usage", "--to", "2020-01-01", "--from", "2019-12-31")
    assert empty.stderr.startswith("No model was asked from 2019-12-31T00:00:00")
    for option, value in (("--group-by", "tool"), ("--from", "soon")):
        refused = run("usage", option, value, code=1)
        name = option.removeprefix("--").replace("-", "_")
        assert f"/query/{name}" in refused.stderr


def test_start_waits_to_the_end_and_fails_with_the_run(run: Run) -> None:
    done = run("runs", "start", "failing", "hi", "--wait", code=1)

    assert re.search(r"^status +failed$", done.stdout, re.MULTILINE)
    assert re.search(r"^error +\w+: .*no model today", done.stdout, re.MULTILINE)


def test_start_prints_the_id_alone(run: Run, run_json: Run) -> None:
    done = run("runs", "start", "echo", "hi")

    run_id = done.stdout.strip()
    assert f"perdure runs show {run_id}" in done.stderr
    assert run_json("runs", "show", run_id)["input"] == "hi"


def test_what_start_takes(run_json: Run, tmp_path: Path) -> None:
    (tmp_path / "context.json").write_text('{"a": [1]}')
    started = run_json(
        *("runs", "start", "echo", "-", "--context", f"@{tmp_path}/context.json"),
        *("--user", "bob", "--metadata", "ticket=T-1", "--metadata", "a=b=c"),
        *("--priority", "3", "--delay", "3600", "--max-turns", "4"),
        stdin="from stdin\n",
    )

    assert started["input"] == "from stdin"
    assert started["user_id"] == "bob"
    assert started["metadata"] == {"ticket": "T-1", "a": "b=c"}
    assert started["priority"] == 3
    assert started["max_turns"] == 4
    assert started["status"] == "queued"
    found = run_json("runs", "list", "--user", "bob", "--status", "queued")["data"]
    assert [one["id"] for one in found] == [started["id"]]


def test_start_takes_input_items(run_json: Run) -> None:
    items = [{"role": "user", "content": "as items"}]
    started = run_json("runs", "start", "echo", "--items", json.dumps(items), "--delay", "3600")

    assert started["input"] == items


def test_the_same_key_starts_one_run(run_json: Run, run: Run) -> None:
    key = str(uuid4())
    arguments = ("runs", "start", "echo", "once", "--delay", "3600", "--idempotency-key", key)
    assert run_json(*arguments)["id"] == run_json(*arguments)["id"]

    other = run("runs", "start", "echo", "twice", "--idempotency-key", key, code=1)
    assert other.stderr.startswith(f"Error: The idempotency key '{key}' was used")


def test_a_decision_on_something_else_is_refused(run: Run, waiting: dict[str, Any]) -> None:
    [question] = waiting["interruptions"]
    done = run("approve", question["id"], "--digest", "sha256:" + "0" * 64, code=1)

    assert done.stdout == ""
    assert "Read the interruption again" in done.stderr
    run("approve", question["id"], "--digest", question["digest"])


def test_reject(run: Run, run_json: Run, waiting: dict[str, Any]) -> None:
    [question] = waiting["interruptions"]
    done = run("reject", question["id"], "--message", "not today")

    assert done.stdout.startswith("Rejected.")
    asked = run_json("runs", "show", waiting["id"])
    assert asked["status"] in ("queued", "running", "completed")


def test_resolve_is_for_effects_in_doubt(run: Run, waiting: dict[str, Any]) -> None:
    [question] = waiting["interruptions"]
    done = run("resolve", question["id"], "--outcome", "done", code=1)

    assert f"perdure approve {question['id']}, or reject." in done.stderr


def test_cancel_and_delete(run: Run, run_json: Run, waiting: dict[str, Any]) -> None:
    early = run("runs", "delete", waiting["id"], code=1)
    assert "is interrupted and cannot be deleted. Cancel it first." in early.stderr

    assert run("runs", "cancel", waiting["id"]).stdout == f"Run {waiting['id']} is cancelled.\n"
    assert run_json("runs", "cancel", waiting["id"])["status"] == "cancelled"
    deleted = run_json("runs", "delete", waiting["id"])
    assert deleted == {"id": waiting["id"], "object": "run", "deleted": True}
    gone = run("runs", "show", waiting["id"], code=1)
    assert gone.stderr.startswith(f"Error: There is no run {waiting['id']} here.")


def test_resume(run: Run, run_json: Run, waiting: dict[str, Any]) -> None:
    refused = run("runs", "resume", waiting["id"], code=1)
    assert "cannot be resumed. Only a failed run can" in refused.stderr

    failed = run_json("runs", "start", "failing", "hi", "--wait", code=1)
    assert run_json("runs", "resume", failed["id"])["status"] == "queued"


def test_an_unknown_agent(run: Run) -> None:
    done = run("runs", "start", "nobody", "hi", code=1)

    assert "There is no agent 'nobody'. Agents: asker, dying, echo, failing, payer." in done.stderr


def test_pages(run: Run, run_json: Run) -> None:
    for _ in range(2):
        run_json("runs", "start", "echo", "page", "--user", "carol", "--delay", "3600")
    first = run_json("runs", "list", "--user", "carol", "--limit", "1")
    text = run("runs", "list", "--user", "carol", "--limit", "1")
    assert f"There are more: --after {first['last_id']}" in text.stderr
    second = run_json("runs", "list", "--user", "carol", "--after", first["last_id"])
    assert len(second["data"]) == 1
    assert second["data"][0]["id"] != first["last_id"]


def test_empty_states(run: Run, served: dict[str, str]) -> None:
    assert run("runs", "list", "--user", "nobody").stderr == "No runs match.\n"
    assert run("inbox", "--agent", "nobody").stderr == "Nothing waits for you.\n"
    tenant = perdure_json("keys", "create", "--tenant", str(uuid4()), env=served)
    done = perdure("runs", "list", env=served | {"PERDURE_API_KEY": tenant["key"]})
    assert done.stdout == ""
    assert done.stderr.startswith("No runs yet. Start one: perdure runs start AGENT")


def test_keys_are_needed_and_their_roles_hold(served: dict[str, str]) -> None:
    no_key = {"PERDURE_URL": served["PERDURE_URL"]}
    assert "Set PERDURE_API_KEY" in perdure("runs", "list", code=1, env=no_key).stderr
    wrong = perdure("runs", "list", code=1, env=no_key | {"PERDURE_API_KEY": "pdr_wrong"})
    assert "unknown or was revoked" in wrong.stderr

    reader = perdure_json("keys", "create", "--role", "runs:read", env=served)
    done = perdure(
        "runs", "start", "echo", "hi", code=1, env=served | {"PERDURE_API_KEY": reader["key"]}
    )
    assert "needs the role runs:write" in done.stderr


def test_hostile_text_reaches_no_terminal(run: Run, run_json: Run) -> None:
    started = run_json("runs", "start", "echo", "-", "--wait", stdin=HOSTILE)
    assert started["input"] == HOSTILE
    [question] = started["interruptions"]
    shown = [
        run("runs", "list", "--limit", "100"),
        run("runs", "show", started["id"]),
        run("inbox", "--run", started["id"]),
        run("inbox", "--run", started["id"], "--json"),
        run("runs", "show", started["id"], "--json"),
        run("approve", question["id"]),
        run("runs", "start", "echo", "-", "--json", "--delay", "3600", stdin=HOSTILE),
        run("runs", "start", HOSTILE, "hi", code=1),
    ]

    for done in shown:
        assert not CONTROL.search(done.stdout), done.args
        assert not CONTROL.search(done.stderr), done.args
    assert r"\x1b]0;owned\x07" in shown[1].stdout


def _rested(served: dict[str, str], run_id: str) -> dict[str, Any]:
    answer = httpx.get(
        f"{served['PERDURE_URL']}/v1/runs/{run_id}?wait=20",
        headers={"Authorization": f"Bearer {served['PERDURE_API_KEY']}"},
        timeout=30,
    )
    return dict(answer.json())


def on_a_terminal(
    served: dict[str, str], *arguments: str, typed: str, when: bytes = b"[y/N]"
) -> tuple[int, str]:
    """Run a command whose every stream is a terminal; type into it when it asks."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PERDURE, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment({**served, "TERM": "xterm-256color", "COLUMNS": "100"}),
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    asked = False
    try:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            seen += part
            if not asked and when in seen:
                asked = True
                os.write(ours, typed.encode())
        return process.wait(SECONDS), seen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_it_asks(
    served: dict[str, str], run_json: Run, waiting: dict[str, Any]
) -> None:
    [question] = waiting["interruptions"]
    code, seen = on_a_terminal(served, "approve", question["id"], typed="n\n")
    assert code == 1
    assert f'"text": "{waiting["input"]}"' in seen
    assert "Approve? [y/N]" in seen
    assert run_json("runs", "show", waiting["id"])["status"] == "interrupted"

    code, seen = on_a_terminal(served, "approve", question["id"], typed="y\n")
    assert code == 0
    assert "Approved." in seen


def test_a_call_is_approved_with_other_arguments(
    run: Run, run_json: Run, served: dict[str, str], waiting: dict[str, Any], tmp_path: Path
) -> None:
    [question] = waiting["interruptions"]
    wrong = run("approve", question["id"], "--arguments", '{"text": 7}', code=1)
    assert "/arguments/text: 7 is not of type 'string'" in wrong.stderr
    run("approve", question["id"], "--arguments", "[", code=2)
    run("approve", question["id"], "--arguments", "[]", code=2)
    run("approve", question["id"], "--arguments", "{}", "--edit", code=2)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/: ".*"/: "edited"/\' "$1"\n')
    editor.chmod(0o755)
    env = {**served, "EDITOR": str(editor)}
    code, seen = on_a_terminal(env, "approve", question["id"], "--edit", typed="y\n")
    assert code == 0, seen
    assert '"text": "edited"' in seen
    done = _rested(served, waiting["id"])
    assert done["output"].startswith("note gave: edited")
    assert 'It was executed with: {"text":"edited"}' in done["output"]


def test_questions_are_answered(run: Run, run_json: Run, served: dict[str, str]) -> None:
    waiting = run_json("runs", "start", "asker", "Where to?", "--wait")
    [question] = waiting["interruptions"]
    inbox = run("inbox", "--run", waiting["id"])
    assert f"perdure answer {question['id']} 'TEXT or JSON'" in inbox.stderr
    wrong = run("approve", question["id"], code=1)
    assert "asks a question: perdure answer" in wrong.stderr
    run("answer", question["id"], code=2)
    wrong = run("answer", question["id"], '{"street": "Rue 1", "country": "XX"}', code=1)
    assert "/answer/country: 'XX' is not one of ['DE', 'FR']" in wrong.stderr
    code, seen = on_a_terminal(
        served, "answer", question["id"], typed="Rue 1\nFR\n\n", when=b"street (text):"
    )
    assert code == 0, seen
    assert "country (DE|FR):" in seen
    assert "Where to?" in seen
    done = _rested(served, waiting["id"])
    assert done["output"] == 'asked: {"street": "Rue 1", "country": "FR"}'

    waiting = run_json("runs", "start", "asker", "Where now?", "--wait")
    [question] = waiting["interruptions"]
    answered = run_json("answer", question["id"], '{"street": "Weg 2", "country": "DE"}')
    assert answered["status"] == "answered"
    assert answered["decision"]["answer"] == {"street": "Weg 2", "country": "DE"}


def test_yes_does_not_ask(served: dict[str, str], waiting: dict[str, Any]) -> None:
    [question] = waiting["interruptions"]
    code, seen = on_a_terminal(served, "approve", question["id"], "--yes", typed="")

    assert code == 0
    assert "[y/N]" not in seen


def test_a_table_fits_its_terminal(served: dict[str, str], run_json: Run) -> None:
    run_json("runs", "start", "echo", "long " * 100, "--delay", "3600", "--user", "dora")
    code, seen = on_a_terminal(served, "runs", "list", "--user", "dora", typed="")

    assert code == 0
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in seen.splitlines()]
    assert max(map(len, lines)) <= 100
    assert lines[1].endswith("…")
