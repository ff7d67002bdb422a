"""Which DBOS Perdure was tried with. Recovery leans on its inside, so another minor is refused."""

from __future__ import annotations

import re
from importlib import metadata

from perdure.errors import ConfigurationError

__all__ = ["TESTED", "problem_with", "require_tested"]

TESTED = "3.4"
"""The minor version whose inside the tests of ``tests/integration/test_dbos_inside.py`` know."""


def problem_with(found: str) -> str | None:
    """Return what is wrong with running on version ``found`` of DBOS; None where nothing is.

    Patch versions, and previews of them, differ in nothing that is leaned on.
    """
    release = re.match(r"\d+\.\d+(?!\d)", found)
    if release is not None and release[0] == TESTED:
        return None
    return (
        f"DBOS {found} is installed, and this build of Perdure was tested with DBOS {TESTED}, "
        f"whose inside its recovery leans on. Install `dbos~={TESTED}.0`, or a build of Perdure "
        f"that was tested with DBOS {found}."
    )


def require_tested() -> None:
    """Refuse a DBOS whose minor version was not tested.

    Raises:
        ConfigurationError: names the version found, the one tested, and what to do.
    """
    problem = problem_with(metadata.version("dbos"))
    if problem is not None:
        raise ConfigurationError(problem)
