"""``perdure policies``, against ``perdure serve``: what is made there counts for the next run."""

from __future__ import annotations

from pathlib import Path

from tests.cli_support import going, perdure, perdure_json

APP = str(Path(__file__).parents[1] / "cli_app.py")


def test_a_policy_is_made_counts_and_is_deleted(database_url: str, tmp_path: Path) -> None:
    def key(*arguments: str) -> str:
        made = perdure_json("keys", "create", *arguments, env={"DATABASE_URL": database_url})
        return str(made["key"])

    admin = key("--role", "admin", "--subject", "root")
    ann = key("--subject", "ann")
    bob = key("--subject", "bob", "--group", "finance", "--group", "other")
    cleo = key("--subject", "cleo", "--group", "finance")
    shown = perdure("keys", "list", env={"DATABASE_URL": database_url}).stdout
    assert "finance, other" in shown

    arguments = ("serve", APP, "--worker", "--port", "0")
    with going(*arguments, env={"DATABASE_URL": database_url}) as process:
        url = process.address("Serving")

        def of(key: str) -> dict[str, str]:
            return {"PERDURE_URL": url, "PERDURE_API_KEY": key}

        assert "No policies" in perdure("policies", "list", env=of(admin)).stderr
        refused = perdure("policies", "list", env=of(ann), code=1).stderr
        assert "admin" in refused
        made = perdure_json(
            *("policies", "create", "notes", "--tool", "no*", "--when", "/text prefix 'hello'"),
            *("--decider", "group:finance", "--not-the-requester"),
            *("--expires-after", "1.5h", "--remind-every", "30m", "--on-expire", "escalate"),
            *("--escalate-to", "group:heads,subject:boss", "--escalate-to", "role:admin"),
            env=of(admin),
        )
        assert made["when"] == {"/text": {"prefix": "'hello'"}}
        file = tmp_path / "policy.json"
        file.write_text('{"name": "none", "tool": "note", "when": {"/text": {"glob": "*bad*"}}}')
        denial = ("--then", "deny", "--message", "Not such words.", "--file", str(file))
        second = perdure("policies", "create", *denial, env=of(admin)).stdout
        assert "none" in second
        perdure("policies", "delete", made["id"], env=of(admin))
        made = perdure_json(
            *("policies", "create", "notes", "--tool", "no*", "--when", '/text prefix "hello"'),
            *("--decider", "group:finance", "--not-the-requester", "--position", "0"),
            *("--required", "2", "--message", "Read it twice."),
            *("--expires-after", "1.5h", "--on-expire", "escalate", "--escalate-to", "role:admin"),
            env=of(admin),
        )
        assert (made["expires_after"], made["position"]) == (5400, 0)
        table = perdure("policies", "list", env=of(admin)).stdout
        assert "2 of group:finance, not the requester" in table
        assert "1:30:00, then escalate" in table
        assert '/text glob "*bad*"' in table

        run = perdure_json("runs", "start", "echo", "hello", "--wait", env=of(ann))
        [question] = run["interruptions"]
        assert question["policy"]["name"] == "notes"
        refused = perdure("approve", question["id"], "--yes", env=of(ann), code=1).stderr
        assert "the group finance" in refused
        first = perdure("approve", question["id"], "--yes", env=of(bob))
        assert "Read it twice." in first.stderr
        assert "1 did so far" in first.stdout
        again = perdure("approve", question["id"], "--yes", env=of(bob), code=1).stderr
        assert "approved by you already" in again
        assert "approve by bob" in again
        second_one = perdure("approve", question["id"], "--yes", env=of(cleo))
        assert "approved   bob" in second_one.stderr
        assert "Approved." in second_one.stdout

        run = perdure_json("runs", "start", "echo", "a bad word", "--wait", env=of(ann))
        assert (run["status"], run["output"]) == ("completed", "note gave: Not such words.")

        for wrong, words in (
            (("--when", "text eq 1"), "no condition"),
            (("--decider", "finance"), "names nobody"),
            (("--expires-after", "soon"), "no time"),
            (("--required", "0"), "/required"),
        ):
            said = perdure("policies", "create", "p", *wrong, env=of(admin), code=1).stderr
            assert words in said, said
        assert process.stop() == 0, process.said
