"""DBOS in this process, reduced to what segments need, and nobody else's while it is.

``DBOS.launch`` also starts threads that serve an application's other workflows. Rows without an
application's name are everybody's to them, so they would take, fire, cancel and strand the work of
another program on the same database: they claim DBOS's internal queue, fire schedules, end delays
and time-outs, run consumers that were registered, and enter this version as the latest. None of it
is for segments, which are claimed by ``claims``, so none of it is started.

DBOS is one to a process, and its registry of workflows is too. Ours has a registry of its own, and
what the program had registered is as it was. While ours runs, the place where DBOS looks for its
instance holds a stand-in that refuses every use with a message: on ours, a workflow of the program
would run under our name and be recovered by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from dbos import DBOS, DBOSConfig, WorkflowSerializationFormat, _dbos, error
from dbos._serialization import DBOSPortableJSON
from dbos._sys_db import SystemDatabase
from dbos._utils import GlobalParams

from perdure.db import connection_options
from perdure.errors import ConfigurationError, MigrationError
from perdure.runs.dbos_inside import outages, pickles
from perdure.runs.dbos_inside.kinds import Kind
from perdure.runs.enqueue import APPLICATION_VERSION

__all__ = ["Body", "running", "workflow_tasks"]

APPLICATION_NAME = "perdure"
_THREADS = 8
_ELSEWHERE = "Run the agents in a worker process of their own: `perdure worker TARGET`."

Body = Callable[[UUID, int], Awaitable[str]]
"""Runs one workflow: the two parts of its id in, how it ended as a word out.

Of a segment the run's id and its number, of a delivery its id and the attempt.
"""


class _SegmentDBOS(DBOS):
    """DBOS that runs workflows, and does nothing by itself."""

    _wait_no_more: Callable[[], None] = staticmethod(lambda: None)

    def _launch(self) -> None:
        self._launched = True
        GlobalParams.app_name = APPLICATION_NAME
        self._executor_field = ThreadPoolExecutor(_THREADS, thread_name_prefix="dbos-executor-")
        self._background_event_loop.start(self._executor_field)
        engine_kwargs = self._config["database"]["sys_db_engine_kwargs"]
        url = self._config["system_database_url"]
        assert engine_kwargs is not None and url is not None  # noqa: S101, PT018
        self._sys_db_field = SystemDatabase.create(
            system_database_url=url,
            engine_kwargs=engine_kwargs,
            engine=None,
            schema="dbos",
            serializer=self._serializer,
            executor_id=GlobalParams.executor_id,
            app_name=APPLICATION_NAME,
        )
        self._wait_no_more = outages.wait_out(self._sys_db_field)
        self._sys_db_field.verify_migrations()

    def _destroy(self, **options: Any) -> None:
        self._wait_no_more()
        super()._destroy(**options)


class _Taken(DBOS):
    """Stands where DBOS looks for the process's instance, and refuses whoever finds it."""

    def __init__(self, **_: Any) -> None:
        raise _taken()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise _taken()


def _taken() -> ConfigurationError:
    return ConfigurationError(
        "A worker of Perdure runs DBOS in this process, and DBOS is one to a process. "
        f"{_ELSEWHERE} A DBOSClient can enqueue workflows from here."
    )


@contextmanager
def running(url: str, executor_id: str, bodies: Mapping[Kind, Body]) -> Iterator[DBOS]:
    """Run DBOS inside the block, in the running event loop, with these workflows.

    Nothing is claimed yet. Blocks while it connects and while it ends.

    Raises:
        ConfigurationError: the process runs DBOS already, or has made an instance of it.
        MigrationError: DBOS's tables are behind.
    """
    _refuse_another()
    parameters = GlobalParams.app_name, GlobalParams.app_version, GlobalParams.executor_id
    with pickles.refused():
        ours = _made(url, executor_id, bodies)
        try:
            _launch()
            _dbos._dbos_global_instance = object.__new__(_Taken)
            yield ours
        finally:
            _dbos._dbos_global_instance = ours
            DBOS.destroy()
            (GlobalParams.app_name, GlobalParams.app_version, GlobalParams.executor_id) = parameters


def _refuse_another() -> None:
    there = _dbos._dbos_global_instance
    if type(there) is _Taken:
        raise ConfigurationError(
            "A worker of Perdure runs DBOS in this process already, and DBOS is one to a process. "
            f"{_ELSEWHERE}"
        )
    if there is not None:
        raise ConfigurationError(
            "This process runs DBOS already, and DBOS is one to a process; its workflows are left "
            f"as they are. {_ELSEWHERE}"
        )


def _made(url: str, executor_id: str, bodies: Mapping[Kind, Body]) -> DBOS:
    """Make our instance, with a registry of its own."""
    registry = _dbos._dbos_global_registry
    _dbos._dbos_global_registry = None
    try:
        ours = _SegmentDBOS(config=_config(url, executor_id))
        for kind, body in bodies.items():
            _register(kind, body)
        return ours
    finally:
        _dbos._dbos_global_registry = registry


def _launch() -> None:
    try:
        DBOS.launch()
    except error.DBOSInitializationError as failure:
        raise MigrationError(
            f"DBOS's tables are not up to date: {failure} Run `perdure migrate`."
        ) from failure


def _register(kind: Kind, body: Body) -> None:
    @DBOS.workflow(
        name=kind.workflow,
        # Its limit took healthy neighbours of a poisoned run down.
        max_recovery_attempts=None,
        serialization_type=WorkflowSerializationFormat.PORTABLE,
    )
    async def workflow(id: str, number: int) -> str:
        return await body(UUID(id), number)


def _config(url: str, executor_id: str) -> DBOSConfig:
    return {
        "name": APPLICATION_NAME,
        "system_database_url": url,
        "application_version": APPLICATION_VERSION,
        "executor_id": executor_id,
        "serializer": DBOSPortableJSON,
        "run_migrations": False,
        "sys_db_pool_size": 8,
        "db_engine_kwargs": {
            # A dead connection is found by the statement that meets it, which DBOS tries
            # again; asking before each one costs a round trip and a half of a claim.
            "pool_pre_ping": False,
            # The same connection again, which knows the statement: its plan is kept there.
            "pool_use_lifo": True,
            "connect_args": connection_options(url, "dbos_transact"),
        },
        "log_level": "WARNING",
    }


def workflow_tasks(dbos: DBOS) -> set[asyncio.Task[Any]]:
    """Return the tasks of workflows under way, those that have not come to our part of them too."""
    return set(dbos._workflow_tasks)
