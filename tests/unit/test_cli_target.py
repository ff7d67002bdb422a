"""Targets that load, and what is said of those that do not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.cli.target import load_engine, own_files, parse_target
from perdure.errors import ConfigurationError

ENGINE = """
from agents import Agent
from perdure import Engine

engine = Engine(agents=[Agent(name="one")])
other = Engine(agents=[Agent(name="two")])
number = 7
"""


@pytest.fixture(autouse=True)
def _imports_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def names(engine: object) -> list[str]:
    return engine.registry.agent_names  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("target", "agent"),
    [
        ("app.py", "one"),
        ("app.py:engine", "one"),
        ("app.py:other", "two"),
        ("./app.py:other", "two"),
        ("package.module", "one"),
        ("package.module:other", "two"),
        ("package/module.py:other", "two"),
        ("whole", "one"),
    ],
)
def test_targets_that_load(tmp_path: Path, target: str, agent: str) -> None:
    (tmp_path / "app.py").write_text(ENGINE)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text(ENGINE)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "__init__.py").write_text(ENGINE)

    assert names(load_engine(target)) == [agent]


def test_an_absolute_path_loads_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(ENGINE)
    monkeypatch.chdir("/")

    assert names(load_engine(f"{tmp_path}/app.py")) == ["one"]


def test_the_files_folder_is_importable_and_its_files_are_known(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop_helper.py").write_text("WORD = 'two'\n")
    (tmp_path / "shop" / "unused.py").write_text("")
    (tmp_path / "shop" / "app.py").write_text(
        "import shop_helper\n" + ENGINE.replace('"one"', "shop_helper.WORD + '!'")
    )

    assert names(load_engine("shop/app.py")) == ["two!"]
    shown = [file.name for file in own_files(parse_target("shop/app.py"))]
    assert shown == ["app.py", "shop_helper.py"]


def test_a_file_whose_name_is_taken_replaces_nothing(tmp_path: Path) -> None:
    import json

    import agents

    for name in ("agents", "json"):
        (tmp_path / f"{name}.py").write_text(ENGINE)
        assert names(load_engine(f"{name}.py")) == ["one"]

    assert sys.modules["agents"] is agents
    assert sys.modules["json"] is json


WRONG = [
    pytest.param("missing.py", None, "There is no file missing.py (looked in ", id="no file"),
    pytest.param("a b", None, "'a b' is no target. A target is path/file.py", id="no form"),
    pytest.param("", None, "'' is no target.", id="empty"),
    pytest.param("folder", None, "folder is a folder; name the file in it", id="folder"),
    pytest.param("missing_module", None, "There is no module 'missing_module'", id="no module"),
    pytest.param("folder.missing", None, "There is no module 'folder.missing'", id="no submodule"),
    pytest.param(
        "app.py",
        "x = 1\ny = (\n",
        "app.py:2: syntax error: '(' was never closed\n    y = (",
        id="syntax error",
    ),
    pytest.param(
        "app.py", "x = 1\nprint(nothing)\n", "app.py:2: NameError: name 'nothing'", id="exception"
    ),
    pytest.param(
        "app.py",
        "def f():\n    import json\n    return json.loads('{')\n\nf()\n",
        "app.py:3: JSONDecodeError: Expecting property name",
        id="exception inside a library",
    ),
    pytest.param("app.py", "import sys\n\nsys.exit('no')\n", "app.py:3: SystemExit: no", id="exit"),
    pytest.param(
        "app.py", "import not_there.at_all\n", "app.py:1: no module named 'not_there'", id="import"
    ),
    pytest.param(
        "app.py",
        ENGINE.replace("engine =", "main ="),
        "app.py has no attribute 'engine'. Engines there: main, other. Name one: app.py:main",
        id="no attribute",
    ),
    pytest.param(
        "app.py:nothing",
        ENGINE,
        "app.py has no attribute 'nothing'. Engines there: engine, other.",
        id="no such attribute",
    ),
    pytest.param(
        "app.py:number",
        ENGINE,
        "app.py: number is a int, not a perdure.Engine. Engines there: engine, other.",
        id="no engine",
    ),
    pytest.param(
        "app.py",
        "x = 1\n",
        "app.py has no attribute 'engine'. There is no Engine in it. Add one: engine =",
        id="no engine at all",
    ),
    pytest.param(
        "app.py",
        "from perdure import Engine\n\nengine = Engine(agents=[])\n",
        "app.py:3: ConfigurationError: The engine has no agents",
        id="engine without agents",
    ),
    pytest.param(
        "app:engine", "raise ValueError\n", "app.py:1: ValueError", id="exception in a module"
    ),
    pytest.param("notes.txt", None, "notes.txt is no Python file.", id="no python"),
]


@pytest.mark.parametrize(("target", "text", "said"), WRONG)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, target: str, text: str | None, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    if text is not None:
        (tmp_path / "app.py").write_text(text)

    with pytest.raises(ConfigurationError) as refused:
        load_engine(target)

    assert str(refused.value).startswith(said)


def test_a_failure_in_a_module_of_the_folder_names_that_module(tmp_path: Path) -> None:
    (tmp_path / "broken_helper.py").write_text("\n\n1 / 0\n")
    (tmp_path / "app.py").write_text("import broken_helper\n")

    with pytest.raises(ConfigurationError, match=r"^broken_helper\.py:3: ZeroDivisionError"):
        load_engine("app.py")
