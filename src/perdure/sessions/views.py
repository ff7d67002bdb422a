"""Sessions and their items as the API shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.times import rfc3339

Row = Mapping[str, Any]
Object = dict[str, Any]


def session_object(row: Row) -> Object:
    """A session. ``fork_seq``: the last number of its parent's that a branch reads."""
    return {
        "id": str(row["id"]),
        "object": "session",
        "key": row["key"],
        "title": row["title"],
        "user_id": row["user_id"],
        "group_id": row["group_id"],
        "system_prompt": row["system_prompt"],
        "tags": row["tags"],
        "metadata": row["metadata"],
        "status": row["status"],
        "rating": row["rating"],
        "parent_session_id": row["parent_session_id"],
        "root_session_id": row["root_session_id"],
        "depth": row["depth"],
        "fork_seq": row["fork_seq"],
        "last_seq": row["last_seq"],
        "created_by": row["created_by"],
        "updated_by": row["updated_by"],
        "created_at": rfc3339(row["created_at"]),
        "updated_at": rfc3339(row["updated_at"]),
    }


def item_object(row: Row) -> Object:
    """An item. ``session_id`` is the session that has it: in a branch maybe an ancestor."""
    return {
        "id": str(row["id"]),
        "object": "item",
        "session_id": str(row["session_id"]),
        "seq": row["seq"],
        "role": row["role"],
        "sender": row["sender"],
        "text": row["text"],
        "item": row["item"],
        "agent": row["agent"],
        "run_id": row["run_id"],
        "user_id": row["user_id"],
        "token_count": row["token_count"],
        "metadata": row["metadata"],
        "created_at": rfc3339(row["created_at"]),
    }
