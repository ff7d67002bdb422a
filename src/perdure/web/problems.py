"""Refusals: every error of the API as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from psycopg import errors as pg
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from perdure.db import is_infrastructure
from perdure.errors import (
    AlreadyDecidedError,
    FieldError,
    InvalidRequestError,
    PerdureError,
    UnauthorizedError,
    UnavailableError,
)
from perdure.web.rendering import render

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS_OF_CODE = {
    "validation_error": 422,
    "malformed_json": 400,
    "unsupported_media_type": 415,
    "method_not_allowed": 405,
    "not_supported": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "gone": 410,
    "already_decided": 409,
    "digest_mismatch": 409,
    "expired": 409,
    "invalid_state": 409,
    "idempotency_conflict": 409,
    "conflict": 409,
    "payload_too_large": 413,
    "rate_limited": 429,
    "unavailable": 503,
    "internal_error": 500,
}
_TITLES = {
    "validation_error": "The request is not valid",
    "malformed_json": "The body is not JSON",
    "unsupported_media_type": "The body has to be JSON",
    "method_not_allowed": "This address does not take that method",
    "not_supported": "Not supported by this build",
    "unauthorized": "A key is needed",
    "forbidden": "Not allowed",
    "not_found": "Not found",
    "gone": "Deleted",
    "already_decided": "Decided already",
    "digest_mismatch": "Decided on something else",
    "expired": "Too late",
    "invalid_state": "Not possible in this state",
    "idempotency_conflict": "Idempotency key used for another request",
    "conflict": "In conflict with the state of things",
    "payload_too_large": "The body is too large",
    "rate_limited": "Too many requests",
    "unavailable": "Not available now",
    "internal_error": "Something went wrong here",
}
_CODE_OF_STATUS = {
    400: "malformed_json",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    503: "unavailable",
}
_NOT_MIGRATED = (
    pg.UndefinedTable,
    pg.UndefinedColumn,
    pg.UndefinedFunction,
    pg.InvalidSchemaName,
)


def problem(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a refusal; ``code`` is the stable one, ``more`` are members of its own."""
    status = status or STATUS_OF_CODE.get(code, 500)
    content: dict[str, Any] = {
        "type": f"urn:perdure:problem:{code}",
        "title": _TITLES.get(code) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    if errors or code == "validation_error":
        content["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in errors]
    return Response(render(content), status, dict(headers or {}), media_type=MEDIA_TYPE)


def unavailable(detail: str, retry_after: int = 1) -> Response:
    """Return a 503 that says when to try again."""
    return problem("unavailable", detail, headers={"Retry-After": str(retry_after)})


def problem_of(error: PerdureError) -> Response:
    """Return the refusal an error of ours stands for."""
    match error:
        case UnavailableError():
            return unavailable(error.message, error.retry_after)
        case UnauthorizedError():
            return problem(error.code, error.message, headers={"WWW-Authenticate": "Bearer"})
        case InvalidRequestError():
            return problem(error.code, error.message, errors=error.errors)
        case AlreadyDecidedError():
            return problem(error.code, error.message, decision=error.recorded, **_where(error))
        case _ if error.code in STATUS_OF_CODE:
            return problem(error.code, error.message, **_where(error))
        case _:
            logger.error("an error of ours reached the API", exc_info=error)
            return problem("internal_error", "See the server's log for this request id.")


def _where(error: PerdureError) -> dict[str, Any]:
    return {} if error.pointer is None else {"pointer": error.pointer}


def install(app: FastAPI) -> None:
    """Make ``app`` answer each kind of error as a problem."""
    app.add_exception_handler(PerdureError, _perdure_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(psycopg.Error, _database_error)


async def _perdure_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PerdureError)  # noqa: S101
    return problem_of(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    status = error.status_code
    code = _CODE_OF_STATUS.get(status, "internal_error" if status >= 500 else "validation_error")
    detail = str(error.detail)
    if status == 404:
        detail = f"There is nothing at {request.url.path}."
    elif status == 405:
        detail = f"{request.url.path} does not take {request.method}."
    return problem(code, detail, status=status, headers=error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    details = error.errors()
    if any(one["type"] == "json_invalid" for one in details):
        return problem("malformed_json", "The body is not JSON.")
    errors = [_field_error(one) for one in details]
    detail = " ".join(f"{e.pointer or 'The body'}: {e.detail}" for e in errors[:3])
    return problem("validation_error", detail, errors=errors)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    where, *path = error["loc"]
    if where != "body":
        path = [where, *path]
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    message = str(error["msg"]).removeprefix("Value error, ")
    return FieldError("".join(f"/{part}" for part in escaped), f"{message.rstrip('.')}.")


async def _database_error(request: Request, error: Exception) -> Response:
    if is_infrastructure(error):
        logger.warning("the database failed a request: %s", error)
        return unavailable("The database cannot be reached now. Try again in a moment.")
    if isinstance(error, _NOT_MIGRATED):
        logger.error("the database does not fit this build: %s", error)
        return unavailable("The database is not migrated. Run `perdure migrate`.", retry_after=10)
    if isinstance(error, (psycopg.DataError, pg.ProgramLimitExceeded)):
        logger.warning("the database refused a value: %s", error)
        detail = "holds a value the database does not take."
        return problem("validation_error", f"The request {detail}", errors=[FieldError("", detail)])
    logger.error("the database refused a request", exc_info=error)
    return problem("internal_error", "See the server's log for this request id.")
