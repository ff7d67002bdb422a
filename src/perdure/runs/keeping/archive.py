"""Runs written to files before they are deleted: JSON, one row a line.

``<directory>/<year>-<month>/<run id>.jsonl``, or ``.jsonl.gz``; the month is that of the run's
beginning. The first line is the head, the last one says how many rows stand between and the SHA-256
of every byte before it; each line between is one row: its table, and its columns as the database
had them. The same run makes the same bytes, so that writing it twice does no harm.

A file has its name only when it is on the disk, whole, and so has its directory: what stops in the
middle leaves a ``.part``, which the next try writes anew.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from perdure.errors import InvalidRequestError, UnavailableError

__all__ = ["VERSION", "ArchiveFile", "archived", "read_archive", "unwritable", "verify_archive"]

VERSION = 1
_SUFFIXES = (".jsonl", ".jsonl.gz")


def unwritable(error: OSError) -> UnavailableError:
    """Return what to raise where a file could not be written."""
    where = f" at {error.filename}" if error.filename else ""
    return UnavailableError(
        f"The archive cannot be written{where}: {error.strerror or error}. "
        "The runs that were to be in it were not deleted."
    )


class ArchiveFile:
    """The file of one run, being written."""

    def __init__(
        self, directory: Path, run_id: UUID, tenant_id: UUID, *, migration: int, compress: bool
    ) -> None:
        """Begin it; ``migration`` is the database's last one, which says what columns there are.

        Raises:
            UnavailableError: the directory cannot be written to.
        """
        begun = datetime.fromtimestamp((run_id.int >> 80) / 1000, UTC)
        month = directory / f"{begun:%Y-%m}"
        self.path = month / f"{run_id}{_SUFFIXES[compress]}"
        self._part = self.path.with_name(f"{self.path.name}.part")
        self._hash = hashlib.sha256()
        self._rows: Counter[str] = Counter()
        try:
            month.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._raw = os.fdopen(
                os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            )
        except OSError as error:
            raise unwritable(error) from error
        # Without a name and a time in it, so that the same rows are the same bytes.
        self._file: IO[bytes] | gzip.GzipFile = (
            gzip.GzipFile(filename="", fileobj=self._raw, mode="wb", mtime=0)
            if compress
            else self._raw
        )
        self._write(
            {
                "perdure_archive": VERSION,
                "run_id": str(run_id),
                "tenant_id": str(tenant_id),
                "migration": migration,
            }
        )

    def add(self, table: str, row: str) -> None:
        """Add a row, one line of JSON."""
        self._line(f'{{"table":{json.dumps(table)},"row":{row}}}')
        self._rows[table] += 1

    def finish(self) -> Path:
        """End the file and give it its name, on the disk; blocks while that is written."""
        end = {"end": True, "rows": dict(self._rows), "sha256": self._hash.hexdigest()}
        self._write(end)
        if self._file is not self._raw:
            self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        self._part.replace(self.path)
        # The name, and those of the directories that may be new.
        for directory in (self.path.parent, self.path.parent.parent):
            _sync(directory)
        return self.path

    def drop(self) -> None:
        """Give it up."""
        self._raw.close()
        self._part.unlink(missing_ok=True)

    def _write(self, value: dict[str, Any]) -> None:
        self._line(json.dumps(value, separators=(",", ":")))

    def _line(self, text: str) -> None:
        line = text.encode() + b"\n"
        self._hash.update(line)
        self._file.write(line)


def archived(paths: list[Path]) -> Iterator[Path]:
    """Yield the archived runs among ``paths``: files, and all that directories have."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.name.endswith(_SUFFIXES))
        else:
            yield path


def read_archive(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of an archived run, parsed, the head first.

    Raises:
        InvalidRequestError: it is no archive of this version.
    """
    with _opened(path) as lines:
        for number, line in enumerate(lines):
            value = json.loads(line)
            if number == 0 and value.get("perdure_archive") != VERSION:
                raise InvalidRequestError(f"{path} is no archive of version {VERSION}.")
            yield value


def verify_archive(path: Path) -> dict[str, Any]:
    """Read an archived run to its end; return its run's id and how many rows of each table it has.

    Raises:
        InvalidRequestError: it is no archive, not whole, or not what was written.
    """
    hashed = hashlib.sha256()
    rows: Counter[str] = Counter()
    head: dict[str, Any] = {}
    end: dict[str, Any] | None = None
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines):
                value = json.loads(line)
                if end is not None:
                    raise InvalidRequestError(f"{path} goes on after its end.")
                if number == 0:
                    head = value
                elif value.get("end") is True:
                    end = value
                    continue
                else:
                    rows[value["table"]] += 1
                hashed.update(line)
    except (OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InvalidRequestError(f"{path} cannot be read as an archived run: {error}.") from error
    if head.get("perdure_archive") != VERSION:
        raise InvalidRequestError(f"{path} is no archive of version {VERSION}.")
    if end is None:
        raise InvalidRequestError(f"{path} has no end: it was cut off.")
    if end["sha256"] != hashed.hexdigest() or end["rows"] != rows:
        raise InvalidRequestError(f"{path} is not what was written: its checksum does not fit.")
    return {"path": str(path), "run_id": head["run_id"], "rows": dict(rows)}


def _opened(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(path, "rb"))
    return path.open("rb")


def _sync(directory: Path) -> None:
    # Windows has no such thing, and no need of it.
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
