"""``perdure sessions export``, ``import`` and ``import-sqlite``: conversations taken along."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from perdure.cli.client import checked_id, connected
from perdure.cli.help import examples
from perdure.cli.output import (
    is_terminal,
    print_fields,
    print_json,
    print_json_line,
    print_note,
)
from perdure.cli.pages import Json
from perdure.cli.progress import Progress
from perdure.errors import ConfigurationError, PerdureError
from perdure.sessions.sdk_sqlite import SdkFile

_ID = "01a20131-4b51-7c38-a7e1-62bd7cf3a0d5"
_PIECE_BYTES = 64 << 10
_END_BYTES = 1 << 10

User = Annotated[
    str | None, typer.Option(metavar="ID", help="Whose they shall be, whatever is said there.")
]
SkipTaken = Annotated[
    bool, typer.Option("--skip-taken", help="Leave out sessions whose key is taken.")
]


class CutOffError(PerdureError):
    """The end of an export did not come."""

    code = "unavailable"


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``perdure sessions``."""
    app.command(
        epilog=examples(
            "perdure sessions export -o sessions.jsonl",
            "perdure sessions export --user alice | gzip > alice.jsonl.gz",
            f"perdure sessions export --session {_ID}",
        )
    )(export)
    app.command(
        "import",
        epilog=examples(
            "perdure sessions import sessions.jsonl",
            "zcat alice.jsonl.gz | perdure sessions import - --user bob --skip-taken",
        ),
    )(import_)
    app.command(
        epilog=examples(
            "perdure sessions import-sqlite conversations.db --user alice",
            "perdure sessions import-sqlite conversations.db --table-messages my_messages --json",
        )
    )(import_sqlite)


def export(
    user: Annotated[str | None, typer.Option(metavar="ID", help="Only those of this user.")] = None,
    session: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this one; more than once: these.")
    ] = None,
    group: Annotated[str | None, typer.Option(metavar="ID", help="Only those in it.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only those with it; more than once.")
    ] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="active, archived or completed.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; else stdout.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take sessions along: a line of JSON for each, and one for each of its items.

    A branch without its parent (by what is chosen) becomes a session of its own with all it reads.
    """
    if as_json and output is None:
        raise typer.BadParameter("--json says what was written to a file: give --output.")
    query = {
        "user_id": user,
        "session_id": [checked_id("session", one) for one in session or ()] or None,
        "group_id": group,
        "tag": tag or None,
        "status": status,
    }
    with connected() as client, Progress("lines") as progress:
        lines = _counted(client.lines("/v1/sessions/export", query), progress)
        end = _last(lines, _show) if output is None else _written(lines, output)
    if end is None:
        raise CutOffError("The export was cut off before its end. Export again.")
    done = {"object": "session_export", "sessions": end["sessions"], "items": end["items"]}
    if as_json:
        print_json({**done, "file": str(output)})
    elif output is not None:
        print_note(f"{done['sessions']} session(s), {done['items']} item(s) in {output}.")


def _written(lines: Iterator[bytes], output: Path) -> Mapping[str, Any] | None:
    # What was there stays until all of the new is.
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            end = _last(lines, file.write)
        if end is not None:
            part.replace(output)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)
    return end


def _last(lines: Iterator[bytes], write: Callable[[bytes], Any]) -> Mapping[str, Any] | None:
    line = b""
    for line in lines:
        write(line)
    return _end_in(line)


def _show(line: bytes) -> None:
    if is_terminal():
        print_json_line(json.loads(line))
    else:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _counted(lines: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for line in lines:
        progress.add()
        yield line


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What was exported; - is stdin.")],
    user: User = None,
    skip_taken: SkipTaken = False,
    as_json: Json = False,
) -> None:
    """Bring exported sessions here: all of them, or none. They get ids of their own."""
    path = None if file == "-" else Path(file)
    if path is not None:
        _require_file(path)
    tail = bytearray()

    def pieces() -> Iterator[bytes]:
        tail.clear()
        with sys.stdin.buffer if path is None else path.open("rb") as source:
            while piece := source.read(_PIECE_BYTES):
                tail[:] = (tail + piece)[-_END_BYTES:]
                yield piece

    done = _bring(pieces, user, skip_taken, again=path is not None)
    _report(done, as_json)
    if _end_in(tail.rstrip().rpartition(b"\n")[2]) is None:
        print_note(
            "It has no last line that says how many there were: if it was exported, a part is "
            "missing."
        )


def import_sqlite(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="The SQLite file."),
    ],
    user: Annotated[str | None, typer.Option(metavar="ID", help="Whose they shall be.")] = None,
    table_sessions: Annotated[
        str, typer.Option(metavar="NAME", help="The table of its sessions.")
    ] = "agent_sessions",
    table_messages: Annotated[
        str, typer.Option(metavar="NAME", help="The table of their messages.")
    ] = "agent_messages",
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out messages that are no JSON of an item.")
    ] = False,
    skip_taken: SkipTaken = False,
    as_json: Json = False,
) -> None:
    """Bring sessions of the Agents SDK's SQLiteSession here: all of them, or none.

    Each keeps its id as its key: PostgresSession(key, user_id=…) goes on with it. The file is only
    read.
    """
    _require_file(path)
    there = SdkFile(
        path,
        sessions=table_sessions,
        messages=table_messages,
        user_id=user,
        skip_damaged=skip_damaged,
    )

    def pieces() -> Iterator[bytes]:
        for line in there.lines():
            yield json.dumps(line).encode() + b"\n"

    done = _bring(pieces, None, skip_taken, again=True)
    _report({**done, "damaged_count": there.damaged}, as_json)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise typer.BadParameter(f"There is no file {str(path)!r}.")


def _bring(
    pieces: Callable[[], Iterator[bytes]], user: str | None, skip_taken: bool, *, again: bool
) -> Any:
    query = {"user_id": user, "on_conflict": "skip" if skip_taken else None}
    with connected() as client, Progress("lines") as progress:

        def counted() -> Iterator[bytes]:
            for piece in pieces():
                progress.add(piece.count(b"\n"))
                yield piece

        return client.send_lines("/v1/sessions/import", query, counted, again=again)


def _report(done: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    skipped, damaged = done["skipped_count"], done.get("damaged_count")
    print_fields(
        {
            "sessions": str(done["session_count"]),
            "items": str(done["item_count"]),
            "skipped": f"{skipped} sessions" if skipped else None,
            "damaged": f"{damaged} messages were left out" if damaged else None,
        }
    )


def _end_in(line: bytes | bytearray) -> Mapping[str, Any] | None:
    try:
        last = json.loads(line)
    except ValueError:
        return None
    return last if isinstance(last, dict) and last.get("object") == "end" else None
