"""The examples, run durably: without a network, and over HTTP with the SDK's own provider."""

from __future__ import annotations

import importlib.util
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perdure.engine import Run
from perdure.offline import refunds as refund_rules
from tests.cli_support import EXAMPLES, environment
from tests.cli_support import SECONDS as CLI_SECONDS
from tests.engine_support import SECONDS, approve, calls_of
from tests.loopback.replies import by_rules
from tests.loopback.server import KEY, loopback

BROKEN = "Order 1042 arrived broken, please refund it."


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("REFUNDS_DB", str(tmp_path / "refunds.sqlite"))


def example(name: str) -> ModuleType:
    """An example as a module of its own: an engine is entered once."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refunds(tmp_path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(tmp_path / "refunds.sqlite")) as db:
        return db.execute("SELECT order_id, cents, requests FROM refunds").fetchall()


async def test_a_large_refund_waits_for_a_person(database_url: str, tmp_path: Path) -> None:
    module = example("refunds")
    async with module.engine.running(url=database_url) as engine:
        run = await engine.start("triage", BROKEN)
        await run.wait(SECONDS)
        assert run.status == "interrupted"
        assert not (tmp_path / "refunds.sqlite").exists()

        await approve(engine, run)
        assert run.status == "completed"
        assert run.output.startswith("Good news: we have refunded 129.00 euros for order 1042")
        assert run.data["current_agent"] == "triage"
        assert run.data["usage"]["requests"] == 5
        calls = (await calls_of(engine, run)).values()
        effects = {call["tool"]: call["effect"] for call in calls}
        assert effects["lookup_order"] == "read"
        assert effects["refund"] == "idempotent"
    assert refunds(tmp_path) == [("1042", 12900, 1)]


async def test_what_else_can_become_of_a_customer(database_url: str, tmp_path: Path) -> None:
    module = example("refunds")
    async with module.engine.running(url=database_url) as engine:

        async def ask(text: str) -> Run:
            run: Run = await engine.start("triage", text)
            return await run.wait(SECONDS)

        small = await ask("Order 1043 was the wrong one, I want my money back")
        assert small.status == "completed"
        assert "refunded 21.00 euros for order 1043" in small.output

        unknown = await ask("Please refund order 9999")
        assert "There is no order 9999." in unknown.output
        assert "What is the number" in (await ask("My order is broken")).output
        assert "I can help with refunds" in (await ask("Good morning")).output

        refused = await ask(BROKEN)
        [question] = refused.interruptions
        await engine.decide(question.id, "reject", message="Not without a photo.")
        await refused.wait(SECONDS)
        assert refused.status == "completed"
        assert refused.output.startswith("I am sorry, we could not refund your order.")
        assert "Not without a photo." in refused.output
    assert refunds(tmp_path) == [("1043", 2100, 1)]


def test_the_payment_service_pays_a_key_once(tmp_path: Path) -> None:
    payments = example("refunds").payments

    numbers = [payments.refund("1042", 12900, key=key) for key in ("a", "a", "b")]
    assert numbers == [1, 1, 2]
    assert refunds(tmp_path) == [("1042", 12900, 2), ("1042", 12900, 1)]


async def test_research_searches_at_once_and_has_each_finding_checked(database_url: str) -> None:
    module = example("research")
    async with module.engine.running(url=database_url) as engine:
        run = await engine.start("researcher", "What do you know about bees, tea and volcanoes?")
        await run.wait(SECONDS)
        assert run.status == "completed"
        assert len(run.output.splitlines()) == 4
        assert "(checked: it names a number)" in run.output

        nothing = await engine.start("researcher", "What about glaciers?")
        await nothing.wait(SECONDS)
        assert nothing.output.startswith("I searched and found nothing")
        calls = list((await calls_of(engine, run)).values())
        assert [call["tool"] for call in calls if call["effect"] == "read"] == ["search"] * 3
        nested = [call for call in calls if call["effect"] == "nested"]
        assert [call["tool"] for call in nested] == ["check_claim"] * 3


async def test_with_an_address_the_sdks_own_provider_asks_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with loopback(by_rules(refund_rules.answer)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        module = example("refunds")
        async with module.engine.running(url=database_url) as engine:
            run = await engine.start("triage", BROKEN)
            await run.wait(SECONDS)
            await approve(engine, run)
            assert run.status == "completed"
            assert "refunded 129.00 euros" in run.output
        assert len(server.answered) == 5
        handed = server.requests[0].asked.tools
        assert handed == {"transfer_to_refunds"}
    assert refunds(tmp_path) == [("1042", 12900, 1)]


async def test_a_run_and_its_fork_under_another_prompt(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("two_prompts")
    async with module.engine.running(url=database_url):
        await module.compare("Talk like a pirate.")
    plain, forked, booked = capsys.readouterr().out.splitlines()
    assert plain == "as it is:  You have table 1 for 4."
    assert forked == "forked:    Arr! Ye have table 1 for 4, matey."
    assert booked.startswith("1 table was booked.")


def test_a_chat_that_is_left_and_gone_on_with_and_branched(database_url: str) -> None:
    def talk(*lines: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "chat.py"), "holidays"],
            input="".join(f"{line}\n" for line in lines),
            env=environment({"DATABASE_URL": database_url}),
            capture_output=True,
            text=True,
            timeout=CLI_SECONDS,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert talk("My name is Ada.", "Who am I?")[1:] == ["Nice to meet you, Ada.", "You are Ada."]
    assert talk("/edit Where to?", "/history") == [
        "4 things were said here. /edit WORDS, /history, /quit",
        'You said: "Where to?" That is message 2 of our conversation.',
        "  user: My name is Ada.",
        "  assistant: Nice to meet you, Ada.",
        "  user: Where to?",
        '  assistant: You said: "Where to?" That is message 2 of our conversation.',
    ]
    # It goes on in the branch.
    assert talk("/quit")[0].startswith("4 things")
    assert talk("What is my name?")[1:] == ["You are Ada."]
