"""What the API gives of agents; see ``answers``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from perdure.web.answers import Answer

_Switch = Literal["never", "always", "function"]
_Gate = Literal["never", "always", "function", "by_tool"]
_Object = dict[str, Any]
_Function = Annotated[str | None, Field(description="Module and name of a function.")]


class ToolGuardrail(Answer):
    """A check of a tool's arguments or of what it returned."""

    kind: Literal["input", "output"]
    name: str
    function: str


class AgentTool(Answer):
    """A tool of an agent. ``gate`` is the program's own; policies stand elsewhere."""

    name: str
    kind: str
    description: str | None
    input_schema: _Object | None
    output_schema: _Object | None
    effect: Literal["read", "idempotent", "transactional", "at_most_once", "nested"] | None
    gate: _Gate
    gate_by: _Function
    enabled: _Switch
    enabled_by: _Function
    agent: Annotated[str | None, Field(description="Of an agent used as a tool: which.")]
    timeout_seconds: float | None
    settings: _Object
    guardrails: list[ToolGuardrail]


class AgentHandoff(Answer):
    """How an agent hands off to another."""

    agent: str
    tool_name: str
    tool_description: str | None
    input_schema: _Object | None
    input_filter: _Function
    nest_history: bool | None
    enabled: _Switch
    enabled_by: _Function


class AgentGuardrail(Answer):
    """A check of what an agent is given or of its final output."""

    kind: Literal["input", "output"]
    name: str
    function: str
    run_in_parallel: bool | None


class AgentMcpServer(Answer):
    """An MCP server of an agent: of headers, variables and options the names alone."""

    name: str
    transport: Literal["stdio", "sse", "streamable_http", "other"]
    gate: _Gate
    gate_by: _Function
    effects: dict[str, str]
    settings: _Object


class AgentDefinition(Answer):
    """What an agent is defined by, without those it can reach."""

    handoff_description: str | None
    instructions: str | None
    instructions_by: _Function
    prompt: _Object | None
    prompt_by: _Function
    model: str | None
    model_settings: _Object | None
    output_type: str | None
    output_schema: _Object | None
    behavior: _Object
    tools: list[AgentTool]
    handoffs: list[AgentHandoff]
    guardrails: list[AgentGuardrail]
    mcp_servers: list[AgentMcpServer]


class AgentPart(Answer):
    """Another agent that an agent can reach, as it was in the same build."""

    name: str
    version: str
    definition_hash: str


class AgentVersionSummary(Answer):
    """A version of an agent. ``version`` is what ``agent_version`` of a run says."""

    id: UUID
    object: Literal["agent_version"]
    agent: str
    version: str
    current: bool
    definition_hash: str
    model: str | None
    created_at: datetime
    served_at: datetime
    replaced_at: datetime | None


class AgentVersion(AgentVersionSummary):
    """A version of an agent, whole."""

    definition: AgentDefinition
    run_config: Annotated[_Object, Field(description="What the engine ran all agents with.")]
    agents: list[AgentPart]


class Agent(Answer):
    """An agent; ``version`` and ``model`` are those of the build that started last."""

    id: UUID
    object: Literal["agent"]
    name: str
    version: str | None
    model: str | None
    handoff_description: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: Annotated[datetime | None, Field(description="Since when it is in no build.")]


class AgentWhole(Agent):
    """An agent with its current definition, and its latest versions."""

    definition: AgentDefinition | None
    run_config: _Object | None
    agents: list[AgentPart]
    versions: list[AgentVersionSummary]


class AgentDiffPart(Answer):
    """An agent that two versions of another reach, and that differs."""

    name: str
    change: Literal["added", "removed", "changed", "reaches others"]
    from_: Annotated[str | None, Field(alias="from")]
    to: str | None


class AgentDiff(Answer):
    """What differs between two versions: steps as those of a JSON Patch, with what was before.

    What stands in lists of a definition is told apart by name.
    """

    object: Literal["agent_diff"]
    agent: str
    from_: Annotated[str, Field(alias="from")]
    to: str
    steps: list[_Object]
    agents: list[AgentDiffPart]


class PrunedVersion(Answer):
    """A version that was removed."""

    agent: str
    version: str


class AgentPrune(Answer):
    """What was removed of the catalogue, or with ``dry_run`` would be."""

    object: Literal["agent_prune"]
    dry_run: bool
    versions: list[PrunedVersion]
    agents: list[str]
    definitions: dict[str, int]
