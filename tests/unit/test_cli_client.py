"""The client says what is wrong with a server, and sends again only what may be sent again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.client import Client, ServerError
from perdure.config import Settings
from perdure.errors import ConfigurationError

Answer = Callable[[BaseHTTPRequestHandler], tuple[int, str, bytes]]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, kind, body = answer(self)
            if not status:
                return
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()


@contextmanager
def client(url: str, key: str | None = None) -> Iterator[Client]:
    made = Client(Settings(home=Path(), server_url=url, api_key=key))
    try:
        yield made
    finally:
        made.close()


def problem(status: int, code: str, detail: str, **more: Any) -> Answer:
    body = json.dumps({"status": status, "code": code, "detail": detail, **more}).encode()
    return lambda _: (status, "application/problem+json", body)


def test_a_refusal_is_its_detail() -> None:
    with (
        server(problem(404, "not_found", "There is no run 7 here.")) as url,
        client(url) as asking,
        pytest.raises(ServerError, match=r"^There is no run 7 here\.$") as refused,
    ):
        asking.get("/v1/runs/7")

    assert refused.value.reason == "not_found"


@pytest.mark.parametrize(
    ("key", "hint"), [(None, "Set PERDURE_API_KEY"), ("pdr_x", "PERDURE_API_KEY was sent")]
)
def test_who_has_no_right_key_is_told_where_one_comes_from(key: str | None, hint: str) -> None:
    with (
        server(problem(401, "unauthorized", "No.")) as url,
        client(url, key) as asking,
        pytest.raises(ServerError, match=hint),
    ):
        asking.get("/v1/runs")


def test_the_key_is_sent_as_a_bearer() -> None:
    seen: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        seen.append(request.headers["Authorization"])
        return 200, "application/json", b"{}"

    with server(answer) as url, client(url, "pdr_x") as asking:
        asking.get("/v1/runs")

    assert seen == ["Bearer pdr_x"]


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>"), (500, b""), (200, b"<html>"), (200, b"\xff"), (400, b"[]")],
)
def test_another_kind_of_server_is_recognised(status: int, body: bytes) -> None:
    with (
        server(lambda _: (status, "text/html", body)) as url,
        client(url) as asking,
        pytest.raises(ServerError, match="is no Perdure server"),
    ):
        asking.get("/v1/runs")


def test_a_post_whose_answer_was_lost_is_sent_again_under_its_key() -> None:
    keys: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        keys.append(request.headers["Idempotency-Key"])
        return (0, "", b"") if len(keys) < 3 else (202, "application/json", b'{"id": 1}')

    with server(answer) as url, client(url) as asking:
        assert asking.post("/v1/runs", {"agent": "a"}) == {"id": 1}

    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


def test_no_server_names_the_address_and_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with client(url) as asking, pytest.raises(ServerError) as refused:
            asking.get("/v1/runs")

    assert str(refused.value).startswith(f"No server answers at {url} (")
    assert "perdure dev" in str(refused.value)
    assert "PERDURE_URL" in str(refused.value)


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://x:99999", "http://[::"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PERDURE_URL"), client(url):
        pass


def test_a_key_that_cannot_be_one_is_refused() -> None:
    with (
        pytest.raises(ConfigurationError, match="PERDURE_API_KEY"),
        client("http://127.0.0.1:9", "a\nb"),
    ):
        pass


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with server(lambda _: (200, "application/json", b"{}")) as url, client(url) as asking:
        assert asking.get("/v1/runs") == {}
