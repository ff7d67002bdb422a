"""Where another process finds an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from perdure.cli.target import load_engine
from perdure.worker.locating import locate

APP = Path(__file__).parents[1] / "cli_app.py"
PROGRAM = """
import helper
from perdure.worker.locating import locate
thing = object()
shared = helper.shared
print(locate(thing), locate(shared), locate(object()))
"""


def test_a_variable_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    thing = object()
    assert locate(thing) is None
    module = ModuleType("some.module")
    vars(module)["not a name"] = thing
    monkeypatch.setitem(sys.modules, "some.module", module)
    assert locate(thing) is None
    vars(module)["name"] = thing
    assert locate(thing) == "some.module:name"
    monkeypatch.setattr(sys.modules["__main__"], "main_name", thing, raising=False)
    assert locate(thing) == "some.module:name"


@pytest.mark.parametrize("way", ["file", "module"])
def test_a_variable_of_the_program(tmp_path: Path, way: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "helper.py").write_text("shared = object()\n")
    command = ["program.py"] if way == "file" else ["-m", "program"]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    place = f"{tmp_path / 'program.py'}" if way == "file" else "program"
    assert done.stdout.split() == [f"{place}:thing", "helper:shared", "None"]


def test_a_loaded_target_is_what_it_was_loaded_from() -> None:
    engine = load_engine(str(APP))
    assert engine.target == f"{APP}:engine"
