"""What the README and the operations page tell people to type, typed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.cli_support import EXAMPLES, SECONDS, environment, going
from tests.conftest import database_of
from tests.docs_support import DOCS, ROOT, blocks

_TOOLS = [name for name in ("bash", "curl", "jq") if shutil.which(name) is None]


def _bash(script: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _documents(text: str) -> list[object]:
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.acceptance
@pytest.mark.slow
@pytest.mark.skipif(bool(_TOOLS), reason=f"needs {', '.join(_TOOLS)}")
def test_the_readmes_curl_commands_with_a_kill_where_it_says_so(
    tmp_path: Path, database_url: str
) -> None:
    [block] = [b for b in blocks("sh", pages=[ROOT / "README.md"]) if b.text.startswith("api=")]
    before, mark, after = block.text.partition("# Here you may kill -9 the server and start it")
    assert mark
    env = {"DATABASE_URL": database_url}
    with going("dev", str(EXAMPLES / "refunds.py"), "--port", "0", cwd=tmp_path, env=env) as server:
        address = server.address()
        before = before.replace("http://127.0.0.1:8484", address)
        said = _bash(f'{before}\nprintf \'"%s" "%s"\' "$api" "$run"')
        server.kill()
    waits, api, run = _documents(said)
    assert waits == {
        "status": "interrupted",
        "waits_for": {
            "name": "refund",
            "call_id": waits["waits_for"]["call_id"],  # type: ignore[index]
            "arguments": {"order_id": "1042", "cents": 12900},
            "schema": waits["waits_for"]["schema"],  # type: ignore[index]
        },
    }
    port = address.rpartition(":")[2]
    with going("dev", str(EXAMPLES / "refunds.py"), "--port", port, cwd=tmp_path, env=env) as again:
        again.address()
        again.wait_for("Ctrl-C stops")
        said = _bash(f"api={api} run={run}\n# {after}")
    said, mark, told = said.partition("run.queued\n")
    assert mark
    decided, ended, *calls = _documents(said)
    assert decided == "approved"
    assert isinstance(ended, dict)
    assert ended["status"] == "completed"
    assert "129.00 euros" in ended["output"]
    assert [(one["tool"], one["status"], one["attempt"]) for one in calls] == [  # type: ignore[index]
        ("lookup_order", "succeeded", 1),
        ("refund", "succeeded", 1),
    ]
    events = told.split()
    assert {"model.delta", "interruption.decided", "run.resumed"} < set(events)
    assert events[-1] == "run.completed"


def _sql(*, containing: str) -> list[str]:
    pages = [DOCS / "operations.md"]
    found = [block.text for block in blocks("sql", pages=pages) if containing in block.text]
    assert found, f"no SQL with {containing}"
    return found


def test_what_operations_says_to_look_at_can_be_looked_at(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        for text in _sql(containing="FROM perdure."):
            conn.execute(text.encode())


def test_a_lost_machine_is_noticed_within_the_seconds_that_are_set(database_url: str) -> None:
    [text] = _sql(containing="tcp_keepalives_idle")
    name = database_of(database_url)
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(text.replace("ALTER DATABASE perdure ", f"ALTER DATABASE {name} ").encode())
    with psycopg.connect(database_url) as conn:
        rows = conn.execute(
            "SELECT setting::int FROM pg_settings"
            " WHERE name IN ('tcp_keepalives_idle', 'tcp_keepalives_interval')"
        ).fetchall()
        [count] = conn.execute(
            "SELECT setting::int FROM pg_settings WHERE name = 'tcp_keepalives_count'"
        ).fetchall()
    # Idle seconds, then one probe after the other; the workers look every two seconds.
    assert sorted(rows) == [(1,), (3,)]
    assert 3 + 1 * count[0] + 2 < 10
