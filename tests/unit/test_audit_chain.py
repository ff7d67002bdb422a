"""The chain of seals: whatever is changed in it, its hash or the next one's shows it."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.access.principals import DEFAULT_TENANT, Principal
from perdure.audit.canonical import canonical, digest
from perdure.audit.chain import (
    FIRST,
    Row,
    Seal,
    is_signed,
    make_seal,
    pseudonym,
    row_hash,
    seal_hash,
    sign,
)
from perdure.audit.log import person_of
from perdure.config import NamedKey

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
MOMENTS = st.datetimes(timezones=st.just(UTC))
NUMBERS = st.integers(0, 2**63 - 1)
ROWS = st.builds(
    Row,
    id=st.uuids(),
    tenant_id=st.just(DEFAULT_TENANT),
    kind=st.just("interruption.decided"),
    subject_type=TEXT,
    subject_id=TEXT,
    run_id=st.none() | st.uuids(),
    actor_type=TEXT,
    actor=st.none() | TEXT,
    concerns=st.none() | TEXT,
    way=st.none() | TEXT,
    at=MOMENTS,
    shown_digest=st.none() | TEXT,
    executed_digest=st.none() | TEXT,
    who_digest=st.none() | TEXT,
    details_digest=TEXT,
    cluster=NUMBERS,
    tx=NUMBERS,
)
KEY = NamedKey("k1", b"1" * 32)


def seal_of(rows: list[Row], previous: bytes = FIRST, **changed: Any) -> Seal:
    given = {"seq": 1, "cluster": 7, "from_tx": 0, "to_tx": 900, "key": KEY, **changed}
    return make_seal(
        tenant_id=DEFAULT_TENANT,
        rows=rows,
        previous=previous,
        sealed_at=datetime(2026, 1, 2, tzinfo=UTC),
        **given,
    )


def other(value: Any) -> Any:
    """Something else that could stand in the same column."""
    match value:
        case None | "":
            return "x"
        case str():
            return value[:-1]
        case int():
            return value + 1
        case UUID():
            return UUID(int=value.int ^ 1)
        case datetime():
            return value.replace(microsecond=value.microsecond ^ 1)
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:]
    raise AssertionError(value)


@settings(max_examples=30)
@given(ROWS)
def test_a_row_has_another_hash_when_any_column_is_another(row: Row) -> None:
    hashed = row_hash(row)
    assert row_hash(replace(row)) == hashed
    for field in fields(row):
        changed = replace(row, **{field.name: other(getattr(row, field.name))})
        assert row_hash(changed) != hashed, field.name


@settings(max_examples=20)
@given(st.lists(ROWS, max_size=3))
def test_a_seal_has_another_hash_when_anything_in_it_is_another(rows: list[Row]) -> None:
    seal = seal_of(rows)
    assert seal_hash(seal) == seal.hash
    assert is_signed(seal, {"k1": KEY}) is True
    for name in ("tenant_id", "seq", "cluster", "from_tx", "to_tx", "previous", "sealed_at"):
        assert seal_hash(replace(seal, **{name: other(getattr(seal, name))})) != seal.hash, name
    for index, row in enumerate(seal.rows):
        for field in fields(row):
            changed = list(seal.rows)
            changed[index] = replace(row, **{field.name: other(getattr(row, field.name))})
            assert seal_hash(replace(seal, rows=changed)) != seal.hash
        assert seal_hash(replace(seal, rows=[*seal.rows[:index], *seal.rows[index + 1 :]])) != (
            seal.hash
        )
    if len(set(rows)) > 1:
        assert seal_hash(replace(seal, rows=seal.rows[::-1])) != seal.hash


def test_signatures_are_of_one_key_and_one_seal() -> None:
    seal = seal_of([])
    same_name = NamedKey("k1", b"2" * 32)
    assert is_signed(seal, {"k1": same_name}) is False
    assert is_signed(seal, {"k2": NamedKey("k2", KEY.secret)}) is None
    assert is_signed(replace(seal, hash=other(seal.hash)), {"k1": KEY}) is False
    # Under another name the same bytes are another key.
    assert is_signed(replace(seal, key_id="k2"), {"k2": NamedKey("k2", KEY.secret)}) is False
    assert is_signed(seal_of([], key=None), {"k1": KEY}) is None


def test_anybody_can_make_the_hashes_again() -> None:
    """What docs/audit.md says, without a line of ours."""
    seal = seal_of([])
    text = rfc8785.dumps(
        {
            "version": 1,
            "tenant_id": "00000000-0000-7000-8000-000000000000",
            "seq": "1",
            "cluster": "7",
            "from_tx": "0",
            "to_tx": "900",
            "rows": [],
            "previous": "00" * 32,
            "sealed_at": "2026-01-02T00:00:00.000000Z",
        }
    )
    assert seal.hash == hashlib.sha256(text).digest()
    message = b"perdure.audit.seal.v1\nk1\n" + seal.hash
    assert seal.mac == sign(seal.hash, KEY) == hmac.digest(b"1" * 32, message, "sha256")
    assert seal.head == f"1:{seal.hash.hex()}"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(JSON)
def test_whatever_json_there_is_has_a_text_that_postgres_takes(value: Any) -> None:
    text = canonical({"b": value, "a": 1})
    assert text == canonical({"a": 1, "b": value})
    assert json.loads(text)["a"] == 1
    assert "\\u0000" not in text
    # No lone surrogate either: it is UTF-8.
    assert digest(text) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_large_integers_keep_all_their_digits() -> None:
    assert canonical({"b": 2**53, "a": [-(2**70), 2**53 - 1, True]}) == (
        '{"a":["-1180591620717411303424",9007199254740991,true],"b":"9007199254740992"}'
    )


def test_a_person_is_the_same_by_any_key() -> None:
    roles: frozenset[Any] = frozenset()
    by_key = Principal("service_key", "1", "alice@example.com", DEFAULT_TENANT, roles)
    by_host = Principal("user", "4711", "alice@example.com", DEFAULT_TENANT, roles)
    nameless = Principal("service_key", "1", None, DEFAULT_TENANT, roles)
    assert person_of(by_key) == person_of(by_host) == "alice@example.com"
    assert person_of(nameless) == "service_key:1"
    assert pseudonym(b"s", "a") == hashlib.sha256(b"sa").hexdigest()
