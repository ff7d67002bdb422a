"""Answers, read back through what the API says about them."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import BaseModel

from perdure.web import answers


def read(model: type[BaseModel], response: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the JSON of an answer that has ``status`` and is a ``model``."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/json"
    content: dict[str, Any] = response.json()
    model.model_validate(content)
    return content


def read_list(model: type[BaseModel], response: httpx.Response) -> list[dict[str, Any]]:
    """Return the rows of a list of ``model``."""
    content = read(answers.List[model], response)  # type: ignore[valid-type]
    rows: list[dict[str, Any]] = content["data"]
    assert content["first_id"] == (rows[0]["id"] if rows else None)
    assert content["last_id"] == (rows[-1]["id"] if rows else None)
    return rows


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the JSON of a problem with ``status`` and ``code``."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    answers.Problem.model_validate(content)
    assert (content["status"], content["code"]) == (status, code), content
    assert content["title"]
    assert content["detail"]
    assert content["type"] == f"urn:perdure:problem:{code}"
    return content


def pointers(problem: dict[str, Any]) -> list[str]:
    """Return the fields a problem names."""
    return [error["pointer"] for error in problem["errors"]]
