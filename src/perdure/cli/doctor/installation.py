"""Rules about what is installed: the versions recovery leans on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

from perdure import __version__
from perdure.cli.doctor.findings import Finding, error, ok, warning
from perdure.runs.dbos_inside import tested

TESTED = {"dbos": tested.TESTED, "openai-agents": "0.24", "psycopg": "3.3"}
"""The minor versions this build was tested with, by distribution."""


def versions() -> list[Finding]:
    """Look at the versions of Python, of this package and of what it leans on."""
    return [
        ok("python", f"Python {platform.python_version()}"),
        ok("perdure", f"perdure {__version__}"),
        *judge_versions({name: _installed(name) for name in TESTED}),
    ]


def judge_versions(installed: Mapping[str, str | None]) -> list[Finding]:
    """Return a finding for each distribution; None is a version nobody knows."""
    return [_judge(name, version) for name, version in installed.items()]


def dbos_is_tested() -> bool:
    """Whether the DBOS that is installed is one this build runs with."""
    version = _installed("dbos")
    return version is not None and tested.problem_with(version) is None


def _judge(name: str, version: str | None) -> Finding:
    minor = TESTED[name]
    remedy = f"pip install '{name}=={minor}.*'"
    if version is None:
        return warning(
            name, f"{name} is not installed as a package: its version is unknown", remedy
        )
    if version == minor or version.startswith(f"{minor}."):
        return ok(name, f"{name} {version}")
    found = f"{name} {version}: this build was tested with {minor} alone, and leans on its inside"
    # Another DBOS is refused at the start.
    return (error if name == "dbos" else warning)(name, found, remedy)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
