"""What an engine brings into the catalogue: definitions as JSON, and their hashes. Pure.

A definition is what a run of the agent would meet, as JSON: functions and classes stand there by
their names, secrets do not stand there at all. Its lists (``tools``, ``handoffs``, ``guardrails``,
``mcp_servers``; ``guardrails`` of a tool) hold definitions of their own, each stored once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

__all__ = ["VERSION_LENGTH", "AgentVersion", "Catalogue", "digest", "versions_of"]

VERSION_LENGTH = 12

Definition = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AgentVersion:
    """An agent as one build has it; ``parts`` are the names of the others it can reach."""

    name: str
    version: str
    definition: Definition
    definition_hash: str
    parts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What an engine has. ``roots`` are the names of the agents it was given."""

    roots: Sequence[str]
    agents: Mapping[str, AgentVersion]
    run_config: Mapping[str, Any]


def digest(value: Any) -> str:
    """Return the SHA-256 of JSON, in hex: the same whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def versions_of(
    definitions: Mapping[str, Definition],
    reached: Mapping[str, Sequence[str]],
    run_config: Mapping[str, Any],
    roots: Sequence[str],
) -> Catalogue:
    """Return the catalogue of agents: their own definitions by name, and whom each can reach.

    ``reached`` may name the agent itself. An agent's version is another one where its own
    definition is, that of one it can reach, or what all agents are run with.
    """
    hashes = {name: digest(one) for name, one in definitions.items()}
    agents = {}
    for name, definition in definitions.items():
        everybody = sorted({name, *reached[name]})
        whole = [name, run_config, *([one, hashes[one]] for one in everybody)]
        agents[name] = AgentVersion(
            name=name,
            version=digest(whole)[:VERSION_LENGTH],
            definition=definition,
            definition_hash=hashes[name],
            parts=[one for one in everybody if one != name],
        )
    return Catalogue(sorted(roots), agents, run_config)
