"""Versions of agents: the same for the same definition, in every process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from agents import Agent, ModelSettings, RunConfig, function_tool

from perdure import effect
from perdure.runs.registry import Registry
from tests.catalogue_support import SECRET, everything, polite, small

PROGRAM = """
from tests.unit.test_versions import registry
print(registry().versions)
"""


@function_tool(name_override="look_up_by")
def look_up(order: str) -> str:
    """Look it up."""
    return order


@function_tool(name_override="look_up_by")
def look_up_otherwise(order: str, urgent: bool = False) -> str:
    """Look it up."""
    return order


def look_up_by(order: str) -> str:
    """Look it up."""
    return order


def words(*_: Any) -> Any:
    return "Be kind."


def registry(config: RunConfig | None = None, **changed: Any) -> Registry:
    """``triage`` and ``desk`` hand off to each other; ``desk`` has what ``changed`` says."""
    tools = [
        changed.pop("tool", look_up),
        Agent(name="scribe", instructions="Write.").as_tool(
            tool_name="write", tool_description="Write it."
        ),
    ]
    desk = Agent[Any](name="desk", **{"instructions": "Be kind.", "tools": tools, **changed})
    triage = Agent[Any](name="triage", instructions=words, model="small", handoffs=[desk])
    desk.handoffs = [triage]
    alone = Agent[Any](name="alone", instructions="Be kind.")
    return Registry(roots=[triage, alone], run_config=config)


def test_a_version_is_the_same_in_every_process() -> None:
    here = registry().versions
    assert registry().versions == here
    assert set(here) == {"alone", "desk", "scribe", "triage"}
    assert len(set(here.values())) == 4
    command = [sys.executable, "-c", PROGRAM]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(here)


@pytest.mark.parametrize(
    "changed",
    [
        {"instructions": "Be brief."},
        {"instructions": words},
        {"model": "large"},
        {"tool": look_up_otherwise},
        {"tools": []},
        {"output_type": int},
        {"model_settings": ModelSettings(temperature=0.5)},
        {"prompt": words},
        {"handoff_description": "The desk."},
        {"tool": function_tool(needs_approval=True)(look_up_by)},
        {"tool": function_tool(needs_approval=words)(look_up_by)},
        {"tool": function_tool(tool_input_guardrails=[small])(look_up_by)},
        {"tool": effect("read")(function_tool(look_up_by))},
        {"input_guardrails": [polite]},
        {"tool_use_behavior": "stop_on_first_tool"},
    ],
)
def test_what_a_run_would_meet_makes_another_version(changed: dict[str, Any]) -> None:
    before, after = registry().versions, registry(**changed).versions
    # The one that changed, and the one that reaches it.
    assert {name for name in before if before[name] != after.get(name)} - {"scribe"} == {
        "desk",
        "triage",
    }


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(model="large"),
        RunConfig(model_settings=ModelSettings(max_tokens=9)),
        RunConfig(input_guardrails=[polite]),
    ],
)
def test_what_all_are_run_with_counts_for_all(config: RunConfig) -> None:
    before, after = registry().versions, registry(config).versions
    assert all(before[name] != after[name] for name in before)


def test_a_definition_says_all_but_secrets() -> None:
    found = everything().catalogue
    assert SECRET not in repr(found)
    assert list(found.roots) == ["front"]
    assert found.run_config["model_settings"] == {"extra_headers": ["X-Run"], "max_tokens": 99}
    front, desk, scribe = (
        found.agents[name].definition for name in ("front", "desk/refunds", "scribe")
    )
    assert list(found.agents["scribe"].parts) == []
    assert list(found.agents["front"].parts) == ["desk/refunds", "scribe"]
    assert (front["instructions"], front["prompt"]["id"]) == (None, "pmpt_1")
    assert scribe["instructions_by"] == scribe["prompt_by"] == "tests.catalogue_support.words"
    assert desk["model_settings"] == {
        "temperature": 0.25,
        "extra_headers": ["Authorization"],
        "extra_body": ["key"],
        "extra_query": ["key"],
        "extra_args": ["api_key"],
        "metadata": ["team"],
    }
    [handed] = front["handoffs"]
    assert handed["input_filter"] == "tests.catalogue_support.brief"
    assert "number" in handed["input_schema"]["properties"]
    assert (handed["agent"], handed["tool_name"]) == ("desk/refunds", "transfer_to_desk_refunds")
    assert desk["output_schema"]["properties"].keys() == {"text", "sure"}
    tools = {tool["name"]: tool for tool in desk["tools"]}
    assert [(tool["kind"], tool["effect"], tool["gate"]) for tool in tools.values()] == [
        ("function", "idempotent", "function"),
        ("function", "read", "never"),
        ("agent", "nested", "never"),
        ("custom", "at_most_once", "never"),
        ("shell", "at_most_once", "always"),
        ("hosted_mcp", "at_most_once", "by_tool"),
        ("file_search", None, "never"),
        ("web_search", None, "never"),
        ("code_interpreter", None, "never"),
    ]
    assert tools["refund"]["gate_by"] == "tests.catalogue_support.over_a_hundred"
    # The durable tool has handed its time-out on, and wrapped its guardrails.
    assert tools["refund"]["timeout_seconds"] == 7.5
    assert [(one["kind"], one["name"]) for one in tools["refund"]["guardrails"]] == [
        ("input", "small"),
        ("output", "clean"),
    ]
    assert tools["look_up"]["enabled_by"] == "tests.catalogue_support.over_a_hundred"
    assert tools["hosted_mcp"]["settings"] == {
        "server_label": "crm",
        "origin": "https://mcp.example:8443",
        "headers": ["X-Crm"],
        "authorization": "set",
        "require_approval": {"never": {"tool_names": ["find"]}},
        "approvals_by": "tests.catalogue_support.words",
    }
    stdio, sse, wiki = desk["mcp_servers"]
    assert stdio["settings"] == {
        "command": "files-mcp",
        "options": ["--root", "--token", "-v"],
        "environment": ["TOKEN"],
        "require_approval": {"delete": True, "read": False},
    }
    assert sse["name"] == "sse: https://mcp.example:8443"
    assert (wiki["gate"], wiki["effects"]) == ("always", {"search": "read"})
    assert [one["kind"] for one in desk["guardrails"]] == ["input", "output"]
    # Made once more of what is wrapped by now it is the same.
    assert everything().versions == everything(tools=desk_tools()).versions


def desk_tools() -> list[Any]:
    return everything().agents["desk/refunds"].tools
