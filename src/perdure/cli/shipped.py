"""The examples that come with the package."""

from __future__ import annotations

from pathlib import Path

from perdure.errors import ConfigurationError


def shipped_example(name: str) -> Path:
    """Return the file of an example: inside the installed package, or in the checkout's root.

    Raises:
        ConfigurationError: it is in neither.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "examples", package.parents[1] / "examples"):
        file = folder / f"{name}.py"
        if file.is_file():
            return file
    raise ConfigurationError(f"The example {name} is missing from {package}; reinstall perdure.")
