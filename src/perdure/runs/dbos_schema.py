"""DBOS's own tables, in the schema ``dbos`` of the same database."""

from __future__ import annotations

import contextlib
import io
import logging

from dbos import DBOS
from dbos.cli.migration import print_dbos_migrations
from sqlalchemy.exc import SQLAlchemyError

from perdure.errors import MigrationError

__all__ = ["dbos_sql", "migrate_dbos"]


def migrate_dbos(url: str) -> None:
    """Bring DBOS's tables in the database of ``url`` up to date; blocks.

    A database that a newer DBOS has migrated is left as it is.

    Raises:
        MigrationError: DBOS could not do it; its tables may be half-way, and a second try goes on
            from there.
    """
    # DBOS announces each of its hundred steps.
    logger = logging.getLogger("dbos")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        DBOS.migrate(url)
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise MigrationError(
            f"DBOS's tables could not be brought up to date: {reason}. "
            "Check that the role of the URL may create schemas, then migrate again."
        ) from error
    finally:
        logger.setLevel(level)


def dbos_sql() -> str:
    """Return the SQL that makes DBOS's tables in a database that has none.

    It builds indexes concurrently, so it cannot run inside a transaction.
    """
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        print_dbos_migrations(None)
    return printed.getvalue()
