"""Which versions of DBOS are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import perdure
from perdure.runs.dbos_inside.tested import problem_with


@pytest.mark.parametrize("found", ["3.4.0", "3.4.17", "3.4", "3.4.1rc1", "3.4.2.post1"])
def test_a_patch_of_the_tested_minor_passes(found: str) -> None:
    assert problem_with(found) is None


@pytest.mark.parametrize(
    "found", ["3.5.0", "3.3.9", "4.0.0", "3.40.0", "13.4.0", "3", "", "unknown"]
)
def test_any_other_is_named_beside_the_tested_one_and_what_to_do(found: str) -> None:
    problem = problem_with(found)
    assert problem is not None
    for word in (f"DBOS {found}", "3.4", "Install `dbos~=3.4.0`"):
        assert word in problem


def test_its_tables_and_functions_are_named_in_one_place() -> None:
    source = Path(perdure.__file__).parent
    named = re.compile(r"\bdbos\.(?:\w+_)?(?:workflow|operation|migrations|event|stream|queue)\w*")
    found = {
        file.relative_to(source).parts[:2]
        for kind in ("*.sql", "*.py")
        for file in source.rglob(kind)
        if named.search(file.read_text(encoding="utf-8"))
    }
    assert found == {("runs", "dbos_inside")}
