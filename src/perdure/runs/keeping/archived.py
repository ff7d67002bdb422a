"""Archived runs of a person, erased like the others."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from perdure import jsonsafe
from perdure.runs.keeping.archive import archived, read_archive

__all__ = ["erase_archived"]


def erase_archived(
    directory: Path, *, tenant_id: UUID, user_id: str, dry_run: bool = False
) -> list[Path]:
    """Delete the files of a user's runs in an archive; returns them. Reads the head of every file.

    Raises:
        InvalidRequestError: something there is no archived run. Those before it are deleted.
    """
    found = []
    for path in archived([directory]):
        lines = read_archive(path)
        head, run = next(lines), next(lines)["row"]
        lines.close()  # type: ignore[attr-defined]
        if head["tenant_id"] == str(tenant_id) and run["user_id"] == jsonsafe.protect_text(user_id):
            found.append(path)
            if not dry_run:
                path.unlink()
    return found
