"""What the environment says."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from perdure.config import Settings
from perdure.errors import ConfigurationError

SECRET = base64.b64encode(b"s" * 32).decode()


def test_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    settings = Settings.from_env({"HOME": "/nowhere"})
    assert settings.database_url is None
    assert settings.migrate_url is None
    assert settings.api_key is None
    assert settings.port == 8484
    assert settings.server_url == "http://127.0.0.1:8484"
    assert settings.max_body_bytes == 1024 * 1024
    assert settings.home == Path("~/.local/share/perdure").expanduser()
    assert settings.encryption_keys == settings.secret_keys == ()


def test_root_keeps_data_where_others_can_be_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert Settings.from_env({}).home == Path("/var/lib/perdure")


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"PERDURE_HOME": "/data/p"}, Path("/data/p")),
        ({"XDG_DATA_HOME": "/xdg"}, Path("/xdg/perdure")),
        ({"PERDURE_HOME": "", "XDG_DATA_HOME": "/xdg"}, Path("/xdg/perdure")),
    ],
)
def test_home(environ: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert Settings.from_env(environ).home == home


@pytest.mark.parametrize(
    "given",
    ["postgres://u:p@h/db", "postgresql+psycopg://u:p@h/db", " postgresql://u:p@h/db\n"],
)
def test_database_urls_get_one_spelling(given: str) -> None:
    settings = Settings.from_env({"DATABASE_URL": given})
    assert settings.database_url == "postgresql://u:p@h/db"
    assert settings.require_database_url() == settings.migrate_url == settings.database_url


def test_the_owner_of_the_tables_may_be_another() -> None:
    settings = Settings.from_env(
        {"DATABASE_URL": "postgresql://app@h/db", "PERDURE_MIGRATE_URL": "postgresql://owner@h/db"}
    )
    assert settings.migrate_url == "postgresql://owner@h/db"


def test_the_port_is_where_the_server_is_looked_for() -> None:
    assert Settings.from_env({"PERDURE_PORT": "9000"}).server_url == "http://127.0.0.1:9000"
    assert (
        Settings.from_env({"PERDURE_URL": "https://p.example/"}).server_url == "https://p.example"
    )


def test_keys_keep_their_order() -> None:
    settings = Settings.from_env({"PERDURE_ENCRYPTION_KEYS": f"new:{SECRET}, old:{SECRET},"})
    assert [key.id for key in settings.encryption_keys] == ["new", "old"]
    assert settings.encryption_keys[0].secret == b"s" * 32


def test_no_database() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        Settings.from_env({}).require_database_url()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://u:hidden@h/db"),
        ("DATABASE_URL", "hidden"),
        ("PERDURE_MIGRATE_URL", "sqlite:///hidden"),
        ("PERDURE_PORT", "65536"),
        ("PERDURE_PORT", "-1"),
        ("PERDURE_PORT", "eight"),
        ("PERDURE_MAX_BODY_BYTES", "10"),
        ("PERDURE_SECRET_KEYS", "hidden"),
        ("PERDURE_SECRET_KEYS", f":{SECRET}"),
        ("PERDURE_SECRET_KEYS", "k:aGlkZGVu"),
        ("PERDURE_SECRET_KEYS", f"k:{SECRET},k:{SECRET}"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        Settings.from_env({name: value})
    assert "hidden" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    settings = Settings.from_env(
        {
            "DATABASE_URL": "postgresql://u:hidden@h/db",
            "PERDURE_API_KEY": "hidden",
            "PERDURE_SECRET_KEYS": f"k1:{SECRET}",
        }
    )
    shown = repr(settings)
    assert "k1" in shown
    assert "hidden" not in shown
    assert "ssss" not in shown
