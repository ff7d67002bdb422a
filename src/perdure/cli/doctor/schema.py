"""Rules about the tables: ours and DBOS's. Pure: what a database has in, a finding out."""

from __future__ import annotations

from perdure.cli.doctor.findings import Finding, counted, error, ok, warning
from perdure.migrate import Status

_MIGRATE = "perdure migrate"


def judge_migrations(status: Status) -> Finding:
    """Compare our migrations with the database's."""
    name = "migrations"
    if status.problem:
        found, _, remedy = status.problem.rstrip(".").partition(". ")
        return error(name, found, f"{remedy}.")
    if status.pending:
        names = ", ".join(map(str, status.pending))
        found = f"the database lacks {counted(len(status.pending), 'migration')}: {names}"
        return error(name, found, _MIGRATE)
    newest = status.applied[-1]
    return ok(name, f"{len(status.applied)} applied, the last is {newest}")


def judge_dbos(has: int, needs: int) -> Finding:
    """Compare the last of DBOS's migrations a database has (0: none) with this build's last."""
    name = "dbos_migrations"
    if has == 0:
        return error(name, "DBOS's tables are not there", _MIGRATE)
    if has < needs:
        return error(name, f"DBOS's tables are at {has}, this build needs {needs}", _MIGRATE)
    if has > needs:
        return warning(
            name,
            f"DBOS's tables are at {has}, newer than this build's {needs}",
            "Use the perdure that migrated them, here too.",
        )
    return ok(name, f"{has} applied")
