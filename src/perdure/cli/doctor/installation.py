"""Rules about what is installed: the versions recovery leans on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

from perdure import __version__
from perdure.cli.doctor.findings import Finding, ok, warning

TESTED = {"dbos": "3.4", "openai-agents": "0.24", "psycopg": "3.3"}
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


def _judge(name: str, version: str | None) -> Finding:
    tested = TESTED[name]
    remedy = f"pip install '{name}=={tested}.*'"
    if version is None:
        return warning(
            name, f"{name} is not installed as a package: its version is unknown", remedy
        )
    if version == tested or version.startswith(f"{tested}."):
        return ok(name, f"{name} {version}")
    return warning(
        name,
        f"{name} {version}: this build was tested with {tested} alone, and leans on its inside",
        remedy,
    )


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
