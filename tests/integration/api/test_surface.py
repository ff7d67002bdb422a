"""What every answer has, and what the API says of itself."""

from __future__ import annotations

import json

import httpx
import pytest


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é"])
async def test_a_request_id_is_taken_or_made(client: httpx.AsyncClient, given: str) -> None:
    headers = [(b"x-request-id", given.encode("latin-1"))]
    made = (await client.get("/healthz", headers=headers)).headers["x-request-id"]
    assert len(made) == 32
    taken = await client.get("/nowhere", headers={"X-Request-Id": "abc-123"})
    assert taken.headers["x-request-id"] == "abc-123"


async def test_the_api_describes_itself(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    schemas = described["components"]["schemas"]
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            problem = operation["responses"]["4XX"]["content"]["application/problem+json"]
            assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert "422" not in operation["responses"]
            assert ("security" in operation) == path.startswith("/v1/"), (method, path)
    assert set(schemas) >= {"Run", "Interruption", "StartRun", "Decide", "Problem"}
    assert "HTTPValidationError" not in schemas
    assert schemas["StartRun"]["examples"]
    start = described["paths"]["/v1/runs"]["post"]
    answer = start["responses"]["202"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/Run"}
    names = {parameter["name"] for parameter in start["parameters"]}
    assert names == {"Idempotency-Key"}
    listed = described["paths"]["/v1/runs"]["get"]["parameters"]
    assert {one["name"] for one in listed} >= {"status", "agent", "limit", "after", "order"}
    text = json.dumps(described)
    refs = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert refs <= set(schemas)


async def test_answers_are_not_kept(client: httpx.AsyncClient) -> None:
    for path in ("/v1/runs", "/nowhere", "/healthz"):
        headers = (await client.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
