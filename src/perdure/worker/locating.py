"""Finds the variable an object is kept in, so that another process can import it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType


def locate(thing: object) -> str | None:
    """Return where ``thing`` is kept: ``module:variable``, or ``path.py:variable`` of the program.

    Any other module comes before the one that was started as the program: loading that again may
    do more than define things. None: it is in no module's variable.
    """
    program = sys.modules["__main__"]
    for name, module in list(sys.modules.items()):
        # Under another name too, where multiprocessing is used.
        if module is not program and (variable := _variable(module, thing)) is not None:
            return f"{name}:{variable}"
    variable, place = _variable(program, thing), _place_of_program(program)
    return f"{place}:{variable}" if variable is not None and place is not None else None


def _variable(module: ModuleType, thing: object) -> str | None:
    names = list(getattr(module, "__dict__", {}).items())
    return next((name for name, value in names if value is thing and name.isidentifier()), None)


def _place_of_program(module: ModuleType) -> str | None:
    # ``python -m package.module`` has a spec, ``python path/file.py`` a file, ``-c`` neither.
    if module.__spec__ is not None:
        return module.__spec__.name
    file = getattr(module, "__file__", None)
    return None if file is None else str(Path(file).resolve())
