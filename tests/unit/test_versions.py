"""Versions of agents: the same for the same definition, in every process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from agents import Agent, RunConfig, function_tool

from perdure.runs.registry import Registry

PROGRAM = """
from tests.unit.test_versions import registry
print(registry().versions)
"""


@function_tool
def look_up(order: str) -> str:
    """Look it up."""
    return order


@function_tool(name_override="look_up")
def look_up_otherwise(order: str, urgent: bool = False) -> str:
    """Look it up."""
    return order


def words(*_: Any) -> str:
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
    ],
)
def test_what_a_run_would_meet_makes_another_version(changed: dict[str, Any]) -> None:
    before, after = registry().versions, registry(**changed).versions
    # The one that changed, and the one that reaches it.
    assert {name for name in before if before[name] != after.get(name)} - {"scribe"} == {
        "desk",
        "triage",
    }


def test_the_model_of_all_counts_for_all() -> None:
    before, after = registry().versions, registry(RunConfig(model="large")).versions
    assert all(before[name] != after[name] for name in before)
