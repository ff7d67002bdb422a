"""``perdure agents``, against ``perdure serve`` of the second build of an application."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path

from perdure.catalogue.registering import register
from perdure.db import open_pool
from perdure.runs.registry import Registry
from tests.cli_support import going, perdure, perdure_json

_APP = """
from agents import Agent, function_tool
from perdure import Engine, effect

@effect("idempotent")
@function_tool(needs_approval=True)
def refund(cents: int) -> str:
    return "done"

def desk(instructions):
    helper = Agent(name="helper", instructions="Help.")
    return Agent(name="desk/one", instructions=instructions, tools=[refund], handoffs=[helper])

engine = Engine(agents=[desk("Be brief.\\x1b[2J\\u202e")])
"""


async def _came_before(url: str, app: Path) -> None:
    desk = runpy.run_path(str(app))["desk"]
    async with await open_pool(url, 1, 1) as pool:
        await register(pool, Registry(roots=[desk("Be kind.")]).catalogue)


def test_agents_from_a_terminal(database_url: str, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(_APP)
    asyncio.run(_came_before(database_url, app))
    made = perdure_json("keys", "create", "--role", "admin", env={"DATABASE_URL": database_url})
    with going("serve", str(app), "--port", "0", env={"DATABASE_URL": database_url}) as process:
        env = {"PERDURE_URL": process.address("Serving"), "PERDURE_API_KEY": made["key"]}
        listed = perdure("agents", "list", env=env).stdout
        assert "desk/one" in listed
        assert "helper" in listed
        shown = perdure("agents", "show", "desk/one", env=env).stdout
        assert "Be brief.\\x1b[2J\\u202e" in shown
        assert "refund (function, idempotent, needs approval)" in shown
        assert "helper (transfer_to_helper)" in shown
        versions = perdure_json("agents", "versions", "desk/one", env=env)["data"]
        assert [one["current"] for one in versions] == [True, False]
        compared = perdure("agents", "diff", "desk/one", env=env)
        assert versions[1]["version"] in compared.stderr
        assert compared.stdout == (
            '~ /definition/instructions: "Be kind." → "Be brief.\\u001b[2J\\u202e"\n'
        )
        pruned = perdure("agents", "prune", env=env)
        assert f"version {versions[1]['version']} of desk/one" in pruned.stdout
        assert "Removed." in pruned.stderr
        alone = perdure("agents", "diff", "helper", env=env, code=1)
        assert "no other version" in alone.stderr
