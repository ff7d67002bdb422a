"""Loads the engine a target names: ``path/file.py``, ``path/file.py:engine``, ``package.module``.

Everything that can be wrong with a target is told in one message that says where to look.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from perdure.errors import ConfigurationError

if TYPE_CHECKING:
    from perdure.engine import Engine

DEFAULT_ATTRIBUTE = "engine"
_FORMS = "A target is path/file.py, path/file.py:engine or package.module:engine."


@dataclass(frozen=True, slots=True)
class Target:
    """A target taken apart: ``file`` or ``module``, and the attribute the engine stands in.

    ``named`` says whether the attribute was given; ``text`` is the target as it was written.
    """

    text: str
    file: Path | None
    module: str
    attribute: str = DEFAULT_ATTRIBUTE
    named: bool = False


def parse_target(text: str) -> Target:
    """Take a target apart; nothing is loaded.

    Raises:
        ConfigurationError: it has none of the three forms, or there is no such file.
    """
    place, colon, attribute = text.rpartition(":")
    # In C:\app.py the colon belongs to the path.
    named = bool(colon) and attribute.isidentifier() and len(place) > 1
    place, attribute = (place, attribute) if named else (text, DEFAULT_ATTRIBUTE)
    path = Path(place).expanduser()
    if not _is_path(place, path):
        if not all(part.isidentifier() for part in place.split(".")):
            raise ConfigurationError(f"{text!r} is no target. {_FORMS}")
        return Target(text, None, place, attribute, named)
    if path.is_dir():
        inside = ", ".join(sorted(file.name for file in path.glob("*.py"))) or "none"
        raise ConfigurationError(
            f"{place} is a folder; name the file in it that has your Engine. "
            f"Python files there: {inside}."
        )
    if not path.is_file():
        raise ConfigurationError(f"There is no file {place} (looked in {Path.cwd()}). {_FORMS}")
    file = path.resolve()
    return Target(text, file, file.stem, attribute, named)


def _is_path(place: str, path: Path) -> bool:
    if place.endswith(".py") or "/" in place or "\\" in place or path.is_file():
        return True
    return bool(place) and path.is_dir() and not (path / "__init__.py").is_file()


def load_engine(text: str) -> Engine:
    """Load what ``text`` names and return its engine; the code of the file runs.

    The file's folder (for ``package.module`` the current one) is put on ``sys.path``.

    Raises:
        ConfigurationError: it cannot be loaded, or what it names is no engine; the message says
            where and why.
    """
    return load(parse_target(text))


def own_files(target: Target) -> list[Path]:
    """Return the files that were loaded from the target's folder: what a change of would matter.

    For ``package.module`` the folder is the current one.
    """
    folder = Path.cwd() if target.file is None else target.file.parent
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    own = {Path(name) for name in loaded if name and _is_own(name, folder)}
    return sorted(own | ({target.file} if target.file else set()))


def load(target: Target) -> Engine:
    """Load a target taken apart; as ``load_engine``."""
    # First, so that a file called agents.py in the folder does not stand in for the SDK.
    import perdure.engine

    module = _load_file(target) if target.file is not None else _load_module(target)
    engine = _engine_of(module, target, perdure.engine.Engine)
    engine.target = f"{target.file or target.module}:{target.attribute}"
    return engine


def _load_file(target: Target) -> ModuleType:
    file = target.file
    assert file is not None  # noqa: S101
    _put_on_path(file.parent)
    # A name that is taken, as by a file called json.py, must not replace what has it.
    name = target.module if _is_free(target.module) else f"perdure_target_{target.module}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{target.text} is no Python file. {_FORMS}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _explaining(target, file.parent):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _load_module(target: Target) -> ModuleType:
    here = Path.cwd()
    _put_on_path(here)
    with _explaining(target, here):
        return importlib.import_module(target.module)


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _is_free(name: str) -> bool:
    return name.isidentifier() and name not in sys.modules and name not in sys.stdlib_module_names


@contextmanager
def _explaining(target: Target, folder: Path) -> Iterator[None]:
    """Turn whatever the target's code raises into one message with its file and line."""
    try:
        yield
    except SyntaxError as error:
        where = f"{_shown(error.filename or target.text)}:{error.lineno}"
        line = (error.text or "").strip()
        raise ConfigurationError(
            f"{where}: syntax error: {error.msg}" + (f"\n    {line}" if line else "")
        ) from error
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if target.file is None and f"{target.module}.".startswith(f"{missing}."):
            raise ConfigurationError(
                f"There is no module {missing!r} (looked from {folder}, {sys.executable}). {_FORMS}"
            ) from error
        raise ConfigurationError(
            f"{_place(error, target, folder)}: no module named {missing!r}. "
            f"Install what it belongs to for {sys.executable}, or check the spelling."
        ) from error
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ConfigurationError(f"{_place(error, target, folder)}: {what}") from error


def _place(error: BaseException, target: Target, folder: Path) -> str:
    """Return ``file:line`` of the innermost frame that is the user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename, folder)]
    if not own:
        return target.text
    return f"{_shown(own[-1].filename)}:{own[-1].lineno}"


def _is_own(filename: str, folder: Path) -> bool:
    path = Path(filename)
    inside = path.is_absolute() and path.is_relative_to(folder)
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return inside and not installed and not path.is_relative_to(Path(__file__).parents[1])


def _shown(filename: str) -> str:
    path = Path(filename)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _engine_of(module: ModuleType, target: Target, engine_type: type[Engine]) -> Engine:
    there = [name for name, value in vars(module).items() if isinstance(value, engine_type)]
    found = getattr(module, target.attribute, None)
    if isinstance(found, engine_type):
        return found
    place = target.text.removesuffix(f":{target.attribute}") if target.named else target.text
    if found is not None:
        what = f"{place}: {target.attribute} is a {type(found).__name__}, not a perdure.Engine."
    else:
        what = f"{place} has no attribute {target.attribute!r}."
    if there:
        hint = f"Engines there: {', '.join(there)}. Name one: {place}:{there[0]}"
    else:
        hint = "There is no Engine in it. Add one: engine = Engine(agents=[…])"
    raise ConfigurationError(f"{what} {hint}")
