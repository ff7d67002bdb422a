"""Nothing DBOS stored is unpickled while a worker runs.

DBOS unpickles what a row marks as ``py_pickle``, whatever serializer it was given: whoever can
write a row of its tables would have code run in every worker. Segments are JSON throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dbos._serialization import DefaultSerializer

from perdure.errors import ConfigurationError

__all__ = ["refused"]


def _refuse(_: DefaultSerializer, __: str) -> Any:
    raise ConfigurationError(
        "A row of DBOS's tables is a pickle, and nothing is unpickled in a process that runs a "
        "worker of Perdure: unpickling runs whatever code the row names. Read it in a process of "
        "its own, or run the agents in one: `perdure worker TARGET`."
    )


@contextmanager
def refused() -> Iterator[None]:
    """Refuse every unpickling by DBOS in this process inside the block, clients' too."""
    kept = DefaultSerializer.deserialize
    DefaultSerializer.deserialize = _refuse  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        DefaultSerializer.deserialize = kept  # type: ignore[method-assign]
