"""DBOS's own tables, in the schema ``dbos`` of the same database."""

from __future__ import annotations

import contextlib
import io
import logging

from perdure.errors import MigrationError
from perdure.runs.dbos_inside.statements import schema_version as dbos_version
from perdure.runs.dbos_inside.tested import require_tested

# DBOS is imported where it is used: after its version was looked at, and only by who needs it.

__all__ = ["dbos_sql", "dbos_version", "known_dbos_version", "migrate_dbos"]


def migrate_dbos(url: str) -> None:
    """Bring DBOS's tables in the database of ``url`` up to date; blocks.

    A database that a newer DBOS has migrated is left as it is.

    Raises:
        ConfigurationError: this DBOS was not tested.
        MigrationError: DBOS could not do it; its tables may be half-way, and a second try goes on
            from there.
    """
    require_tested()
    from dbos import DBOS, error
    from sqlalchemy.exc import SQLAlchemyError

    # DBOS announces each of its hundred steps.
    logger = logging.getLogger("dbos")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        DBOS.migrate(url)
    except (SQLAlchemyError, error.DBOSException) as failure:
        reason = " ".join(str(getattr(failure, "orig", None) or failure).split())
        raise MigrationError(
            f"DBOS's tables could not be brought up to date: {reason}. "
            "Check that the role of the URL may create schemas, then migrate again."
        ) from failure
    finally:
        logger.setLevel(level)


def known_dbos_version() -> int:
    """Return the number of the last migration this DBOS knows."""
    from dbos._migration import get_dbos_migrations

    return len(get_dbos_migrations("dbos", use_listen_notify=True))


def dbos_sql(*, after: int = 0) -> str:
    """Return the SQL that brings DBOS's tables from migration ``after`` (0: none yet) up to date.

    Empty where there is nothing to do. It builds indexes concurrently, so it cannot run inside a
    transaction.

    Raises:
        ConfigurationError: this DBOS was not tested.
    """
    require_tested()
    from dbos.cli.migration import print_dbos_migrations

    if after >= known_dbos_version():
        return ""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_dbos_migrations(None, migration=str(after + 1) if after else "all")
    return printed.getvalue()
