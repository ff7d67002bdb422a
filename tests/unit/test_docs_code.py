"""The code in the documentation runs: the README's for real, the rest as far as it goes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from agents import Model, ModelProvider

from perdure.cli.target import load_engine
from perdure.engine import Engine
from perdure.interruptions.policies.policy import Policy
from perdure.interruptions.policies.question_rules import rules_for
from perdure.interruptions.rules import check_form
from perdure.runs.durable_model import DurableModelProvider
from perdure.web.app import create_app
from perdure.web.feedback import GiveFeedback
from perdure.web.links import MakeLink
from perdure.web.policies import MakePolicy
from perdure.web.problems import STATUS_OF_CODE
from perdure.web.schemas import Decide, StartRun
from perdure.web.user_sessions import MakeUserSession
from perdure.web.webhooks import MakeWebhook
from perdure.webhooks.payloads import payload
from perdure.webhooks.signing import headers
from tests.docs_support import DOCS, ROOT, Block, blocks, table_under
from tests.engine_support import call, turns

_README = ROOT / "README.md"
_PYTHON = blocks("python")


@pytest.mark.parametrize("block", _PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block; what it defines is put into ``names``."""
    exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 - our own documentation


class _One(ModelProvider):
    def __init__(self, model: Model) -> None:
        self._model = model

    def get_model(self, model_name: str | None) -> Model:
        return self._model


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The README's application file, loaded as ``perdure dev`` would, its model replaced."""
    [source] = [block for block in _PYTHON if block.text.startswith("# refunds.py")]
    (tmp_path / "refunds.py").write_text(source.text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    engine = load_engine(str(tmp_path / "refunds.py"))
    model = turns([call("refund", "c1", order_id="42", cents=1450)], "It is on its way.")
    engine.registry.sdk_config.model_provider = DurableModelProvider(_One(model))
    yield engine
    sys.modules.pop("refunds", None)


def test_the_readmes_application_and_program_work(
    application: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    [program] = [block for block in _PYTHON if "from refunds import engine" in block.text]
    # Only stdout: loggers that are set up meanwhile hold on to the stderr they find.
    with redirect_stdout(StringIO()) as out:
        run(program, {"__name__": "__main__"})
    said = out.getvalue().splitlines()
    assert said[0] == "may I? refund {'cents': 1450, 'order_id': '42'}"
    assert re.fullmatch("paying back 1450 cents for order 42, key [0-9a-f]{64}", said[1])
    assert said[2:] == ["completed It is on its way."]


def _tools_of(module: ModuleType) -> dict[str, str]:
    from perdure.ledger.effects import Effect, effect_of

    tools = [value for value in vars(module).values() if hasattr(value, "on_invoke_tool")]
    return {tool.name: effect_of(tool, Effect.AT_MOST_ONCE).value for tool in tools}


def test_the_example_of_a_receiver_takes_what_is_sent_and_nothing_else() -> None:
    names: dict[str, Any] = {}
    for block in blocks("python", pages=[DOCS / "webhooks.md"]):
        run(block, names)
    data = {
        "interruption": {"agent": "support", "tool": {"name": "refund"}},
        "link": {"url": "https://ask.example/d/x"},
    }
    body = payload("interruption.created", datetime.now(UTC), data)
    sent = headers(uuid4(), datetime.now(UTC), body, [names["SECRET"]])
    with redirect_stdout(StringIO()) as out:
        statuses = [
            names["receive"](sent, body.encode()),
            names["receive"](sent, body.encode()),
            names["receive"](sent, body.encode() + b" "),
        ]
    assert statuses == [204, 204, 401]
    assert len(out.getvalue().splitlines()) == 1
    shown = names["question"](json.loads(body))
    assert shown["blocks"][1]["elements"][0]["url"] == "https://ask.example/d/x"


def test_the_examples_of_effects_are_tools_of_their_class() -> None:
    module = ModuleType("effects_examples")
    for block in blocks("python", pages=[DOCS / "effects.md"]):
        run(block, vars(module))
    found = _tools_of(module)
    assert set(found.values()) == {"read", "idempotent", "transactional", "at_most_once"}
    Engine([module.agent])


def test_the_policies_of_the_docs_say_what_is_said_of_them() -> None:
    [block] = [block for block in _PYTHON if block.page.name == "policies.md"]
    names: dict[str, Any] = {}
    run(block, names)
    policies = names["engine"].registry.policies

    def counts(tool: str, **arguments: Any) -> str | None:
        return rules_for(policies, agent="support", tool=tool, arguments=arguments).policy

    assert counts("refund", order_id="42", cents=2000) == "small refunds"
    assert counts("refund", order_id="42", cents=2001) == "refunds"
    assert counts("refund", order_id="42", cents="50001") == "large refunds"
    assert counts("local_shell", command=["ls"]) == "no shell"
    assert counts("look") is None


def _json_bodies() -> list[tuple[Block, str]]:
    found = []
    for block in blocks("sh"):
        for match in re.finditer(r"-d '(\{.*?\})'|-d \"(\{.*?\})\"", block.text, re.DOTALL):
            text = match[1] or match[2].replace('\\"', '"')
            found.append((block, text.replace("$digest", "sha256:" + "0" * 64)))
    return found


@pytest.mark.parametrize(("block", "text"), _json_bodies(), ids=str)
def test_bodies_of_requests_are_taken(block: Block, text: str) -> None:
    body: dict[str, Any] = json.loads(text)
    if "url" in body:
        MakeWebhook.model_validate(body)
    elif "subject" in body:
        MakeLink.model_validate(body)
    elif "decision" in body:
        check_form(Decide.model_validate(body).to_decision())
    elif "rating" in body:
        GiveFeedback.model_validate(body).new()
    elif "expires_in_seconds" in body:
        MakeUserSession.model_validate(body).new()
    elif "name" in body:
        Policy.from_json(MakePolicy.model_validate(body).definition())
    else:
        StartRun.model_validate(body)


def test_what_is_not_there_yet_is_what_answers_so() -> None:
    cells = " ".join(row[1] for row in table_under(_README, "## What is not there yet"))
    assert set(re.findall(r"`(\w+)`", cells)) == set(StartRun.later)


def test_calls_that_are_named_exist() -> None:
    app = create_app(pool=_never, registry=_NOTHING, waiters=_NOTHING)
    known = set(app.openapi()["paths"])
    for page in (_README, *sorted(DOCS.glob("*.md"))):
        for named in re.findall(r"`(?:GET|POST|DELETE|PATCH) (/[^`?\s]+)", page.read_text()):
            assert named in known, f"{page.name}: {named}"


def test_every_code_of_the_api_is_explained_with_its_status() -> None:
    rows = table_under(DOCS / "errors.md", "## Codes of the API")
    explained = {row[0].strip("`"): row[1] for row in rows}
    assert set(explained) == set(STATUS_OF_CODE)
    for code, status in STATUS_OF_CODE.items():
        assert explained[code].startswith(str(status)), code


def test_every_type_of_a_failed_run_is_explained() -> None:
    migration = (ROOT / "migrations" / "0001_runs.sql").read_text()
    [allowed] = re.findall(r"error_type IN \((.*?)\)", migration, re.DOTALL)
    rows = table_under(DOCS / "errors.md", "## Why a run failed")
    assert {row[0].strip("`") for row in rows} == set(re.findall(r"'(\w+)'", allowed))


def _never() -> Any:
    raise AssertionError("no request is made")


class _Never:
    def __getattr__(self, name: str) -> Any:
        _never()


_NOTHING: Any = _Never()
