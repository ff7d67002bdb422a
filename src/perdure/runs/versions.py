"""Which version of each agent a build has: a short hash of what it is defined by.

The same definition has the same version in every process and on every machine; another build's is
another one where anything differs that a run of it would meet, as far as a definition tells: the
agent's own, that of one it can reach by handoffs and as tools, or what all agents are run with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents import Agent, RunConfig

from perdure.catalogue.definitions import Catalogue, versions_of
from perdure.ledger.effects import Effect
from perdure.runs.definitions import agent_definition, run_config_definition

__all__ = ["catalogue_of"]


def catalogue_of(
    agents: Mapping[str, Agent[Any]],
    *,
    roots: Sequence[Agent[Any]],
    config: RunConfig,
    default_effect: Effect,
    reach: Callable[[Agent[Any]], list[Any]],
) -> Catalogue:
    """Return the definitions and versions of ``agents``, which are by name.

    ``reach`` gives what an agent can hand off to and use as tools, at any remove, itself included.
    """
    return versions_of(
        {name: agent_definition(agent, default_effect) for name, agent in agents.items()},
        {name: [one.name for one in reach(agent)] for name, agent in agents.items()},
        run_config_definition(config),
        [agent.name for agent in roots],
    )
