"""docs/schema.md says what the migrations make, and everything says what it is."""

from __future__ import annotations

from tests.schema_docs import PAGE, Database


def test_the_schema_is_documented(database_url: str) -> None:
    with Database(database_url) as database:
        without = database.uncommented()
        assert not without, without
        text = PAGE.read_text(encoding="utf-8")
        assert text == database.page(), "run `python -m tests.schema_docs`"
    assert "ON DELETE CASCADE" in text
    assert "### `perdure_read.usage_by_day`" in text
