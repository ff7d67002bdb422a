"""The agents an engine runs, and what a run of theirs is checked against at its start."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agents import Agent, ModelProvider, RunConfig, RunErrorHandlers, RunHooks, UserError
from agents.run_config import DEFAULT_MAX_TURNS
from pydantic import BaseModel, ValidationError

from perdure.catalogue.definitions import Catalogue
from perdure.errors import ConfigurationError, FieldError, InvalidRequestError
from perdure.interruptions.policies.policy import Policy
from perdure.ledger.effects import Effect
from perdure.ledger.operations import MAX_KIND, NOT_TEXT
from perdure.ledger.prices import Price, Prices
from perdure.runs.graph import reachable, wrap_graph, wrap_run_config
from perdure.runs.versions import catalogue_of
from perdure.sessions.rules import MAX_NAME, check_name


@dataclass(eq=False)
class Registry:
    """Agents by name, and how they are run. The graph is wrapped when the registry is made.

    Raises:
        ConfigurationError: no agents, two of one name, or a tool that cannot be made durable.
    """

    roots: Sequence[Agent[Any]]
    run_config: RunConfig | None = None
    model_provider: ModelProvider | None = None
    hooks: RunHooks[Any] | None = None
    error_handlers: RunErrorHandlers[Any] | None = None
    context_type: type[BaseModel] | None = None
    default_effect: Effect = Effect.AT_MOST_ONCE
    default_max_turns: int = DEFAULT_MAX_TURNS
    tasks: Sequence[str] | None = None
    """What runs may be for; None: anything."""
    policies: Sequence[Policy] = ()
    """Those of the application file, in their order; the API's stand before them."""
    operations: Sequence[str] = ()
    """The kinds of operations tools may record."""
    own_prices: Mapping[str, Price] = field(default_factory=dict)
    """Prices by model that stand before those of the price list."""
    operation_kinds: frozenset[str] = field(init=False)
    prices: Prices = field(init=False)
    agents: dict[str, Agent[Any]] = field(init=False)
    sdk_config: RunConfig = field(init=False)
    """What durable runs are run with: the config given, its model and provider durable."""
    catalogue: Catalogue = field(init=False)
    """What the agents are defined by, in versions."""
    versions: dict[str, str] = field(init=False)
    """The version of each agent by its name: a hash of its definition."""

    every_agent: Agent[Any] = field(init=False)
    """Never run: it leads to all others, so that a state is restored that tells of any."""

    def __post_init__(self) -> None:
        if not self.roots:
            raise ConfigurationError("The engine has no agents: Engine(agents=[…]) needs one.")
        self.operation_kinds = frozenset(_names_of(self.operations, "operations", MAX_KIND))
        self.prices = Prices(self.own_prices)
        # A copy: the caller may go on using theirs outside durable runs.
        self.sdk_config = replace(self.run_config) if self.run_config else RunConfig()
        if self.model_provider is not None:
            self.sdk_config.model_provider = self.model_provider
        wrap_run_config(self.sdk_config)
        self.agents = wrap_graph(self.roots)
        self.every_agent = Agent(name="\u2200", handoffs=list(self.agents.values()))
        self.catalogue = catalogue_of(
            self.agents,
            roots=self.roots,
            config=self.sdk_config,
            default_effect=self.default_effect,
            reach=lambda agent: reachable([agent]),
        )
        self.versions = {name: one.version for name, one in self.catalogue.agents.items()}
        for place, policy in enumerate(self.policies):
            if not isinstance(policy, Policy):
                raise ConfigurationError(f"policies[{place}] is no Policy: {policy!r}.")
        if self.tasks is not None:
            self.tasks = _names_of(self.tasks, "tasks", MAX_NAME)

    @property
    def agent_names(self) -> list[str]:
        """Names of the agents a run may start with: all in the graph."""
        return sorted(self.agents)

    def agent(self, name: str) -> Agent[Any]:
        """Return the agent called ``name``.

        Raises:
            ConfigurationError: when this build has none of that name.
        """
        try:
            return self.agents[name]
        except KeyError:
            raise ConfigurationError(
                f"This build has no agent {name!r}; it has {', '.join(self.agent_names)}. "
                "Deploy one that has it, then resume the run."
            ) from None

    def config_for(self, model: str | None) -> RunConfig:
        """Return what a run is run with: the model of this name, or each agent with its own."""
        return self.sdk_config if model is None else replace(self.sdk_config, model=model)

    def check_model(self, name: str | None) -> str | None:
        """Return the name of a model, when the provider does not say that it knows none such.

        Nobody is asked over the network. What else goes wrong here (a key that only workers have)
        says nothing of the name.

        Raises:
            InvalidRequestError: the provider knows no such model.
        """
        if name is None:
            return None
        try:
            self.sdk_config.model_provider.get_model(name)
        except (UserError, LookupError, ValueError) as error:
            raise InvalidRequestError.at(
                "/model", f"is none the engine's provider knows: {error}"
            ) from error
        except Exception:  # noqa: BLE001 - a provider is anybody's code; the run will tell
            return name
        return name

    def check_agent(self, name: str) -> str:
        """Return the name of an agent of this build.

        Raises:
            InvalidRequestError: there is none of that name.
        """
        if name not in self.agents:
            raise InvalidRequestError.at(
                "/agent", f"There is no agent {name!r}. Agents: {', '.join(self.agent_names)}."
            )
        return name

    def check_start(self, agent: str, context: Any) -> Any:
        """Return the JSON to store as a new run's context, validated.

        ``context`` is None, a mapping, JSON text's value or an instance of the context type.

        Raises:
            InvalidRequestError: when there is no such agent or the context does not fit.
        """
        self.check_agent(agent)
        if self.context_type is None:
            return self._plain_context(context)
        try:
            model = self.context_type.model_validate({} if context is None else context)
        except ValidationError as error:
            raise InvalidRequestError(
                f"The context does not fit {self.context_type.__name__}.",
                [
                    FieldError("/context" + "".join(f"/{part}" for part in e["loc"]), e["msg"])
                    for e in error.errors()
                ],
            ) from error
        return model.model_dump(mode="json")

    def check_task(self, task: str | None) -> str | None:
        """Return what a new run is for, as it was given.

        Raises:
            InvalidRequestError: the engine declares tasks, and this is none of them; or it is
                longer than 255 characters.
        """
        if task is None:
            return None
        if self.tasks is not None and task not in self.tasks:
            known = ", ".join(self.tasks) or "none"
            raise InvalidRequestError.at("/task", f"There is no task {task!r}. Tasks: {known}.")
        return check_name(task, "/task")

    def _plain_context(self, context: Any) -> Any:
        try:
            known = json.loads(json.dumps(context, allow_nan=False)) == context
        except (TypeError, ValueError, RecursionError):
            known = False
        if known and (context is None or isinstance(context, dict)):
            return context
        raise InvalidRequestError.at(
            "/context",
            "It has to be a JSON object, as it is stored with the run. "
            "For an object of your own give the engine its pydantic type as context_type.",
        )

    def load_context(self, stored: Any) -> Any:
        """Return the context object tools are given, from what is stored; it shares nothing.

        Raises:
            ConfigurationError: when this build's context type cannot read it.
        """
        if self.context_type is None or stored is None:
            return copy.deepcopy(stored)
        try:
            return self.context_type.model_validate(stored)
        except Exception as error:  # its validators are anybody's code
            raise ConfigurationError(
                f"The run's stored context does not fit {self.context_type.__name__} of this "
                f"build: {error} Deploy one that reads it, then resume the run."
            ) from error

    def dump_context(self, context: Any) -> Any:
        """Return the JSON of a context object, sharing nothing with it; undoes ``load_context``.

        Raises:
            ConfigurationError: when tools have put into it what is no JSON.
        """
        if context is None:
            return None
        try:
            plain = context.model_dump(mode="json") if isinstance(context, BaseModel) else context
            return json.loads(json.dumps(plain, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"The run's context cannot be stored: {error}. Keep in it only what is JSON, or "
                "what the engine's context_type turns into JSON."
            ) from error


def _names_of(given: Sequence[Any], what: str, most: int) -> tuple[str, ...]:
    if isinstance(given, str):
        raise ConfigurationError(f"{what} has to be a list of texts: [{given!r}].")
    names = tuple(given)
    for place, name in enumerate(names):
        if not isinstance(name, str) or not 0 < len(name) <= most or NOT_TEXT.search(name):
            raise ConfigurationError(
                f"{what}[{place}] has to be a text of 1 to {most} characters: {name!r}."
            )
    return names
