"""``perdure budgets`` and runs with a budget, against ``perdure serve``."""

from __future__ import annotations

from pathlib import Path

from tests.cli_support import going, perdure, perdure_json

APP = str(Path(__file__).parents[1] / "cli_app.py")


def test_a_run_stops_at_its_budget_and_goes_on(database_url: str) -> None:
    made = perdure_json(
        "keys",
        "create",
        "--role",
        "admin",
        "--role",
        "runs:write",
        "--role",
        "runs:read",
        "--role",
        "decisions:write",
        env={"DATABASE_URL": database_url},
    )
    arguments = ("serve", APP, "--worker", "--port", "0")
    with going(*arguments, env={"DATABASE_URL": database_url}) as process:
        env = {"PERDURE_URL": process.address("Serving"), "PERDURE_API_KEY": str(made["key"])}
        assert "No budgets" in perdure("budgets", "list", env=env).stderr
        one = perdure_json(
            "budgets",
            "create",
            "--user",
            "ann",
            "--period",
            "month",
            "--usd",
            "20",
            "--name",
            "Ann",
            env=env,
        )
        assert (one["scope"], one["user_id"], one["cost_usd"]) == ("user", "ann", "20")
        table = perdure("budgets", "list", env=env).stdout
        assert "user ann" in table
        assert "0 of 20" in table
        shown = perdure("budgets", "change", one["id"], "--tokens", "7", env=env).stdout
        assert "0 of 7" in shown
        assert "user ann" in perdure("budgets", "show", one["id"], env=env).stdout
        perdure("budgets", "delete", one["id"], env=env)
        for wrong in (
            ("create", "--usd", "1"),
            ("create", "--user", "a", "--tenant", "--usd", "1"),
            ("change", one["id"]),
        ):
            perdure("budgets", *wrong, env=env, code=2)

        run = perdure_json(
            *("runs", "start", "echo", "hello", "--budget-tokens", "0", "--wait"), env=env
        )
        assert run["status"] == "interrupted"
        [asked] = run["interruptions"]
        assert asked["type"] == "budget"
        seen = perdure("runs", "show", run["id"], env=env)
        assert f"perdure approve {asked['id']} --arguments" in seen.stderr
        assert asked["id"] in perdure("inbox", env=env).stdout
        refused = perdure("approve", asked["id"], "--yes", env=env, code=1).stderr
        assert "new limit" in refused
        new = ("--arguments", '{"total_tokens": 100000}')
        approved = perdure("approve", asked["id"], "--yes", *new, env=env)
        assert "does not allow the next call" in approved.stderr
        perdure("runs", "cancel", run["id"], env=env)
        tail = perdure("runs", "tail", run["id"], "--json", env=env, code=1)
        assert '"interruption.decided"' in tail.stdout
