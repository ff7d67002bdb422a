"""Settings, read from the environment in one place.

``DATABASE_URL``           the database; unset, ``perdure dev`` and ``perdure demo`` bring their own
``PERDURE_MIGRATE_URL``    the same database as the role that owns the tables, where it is another
``PERDURE_HOME``           where the embedded Postgres lives; by default ``/var/lib/perdure`` for
                           root, else ``$XDG_DATA_HOME/perdure`` or ``~/.local/share/perdure``
``PERDURE_URL``            the server that ``perdure runs``, ``inbox``, … talk to
``PERDURE_API_KEY``        the key they use
``PERDURE_PORT``           the port ``perdure dev`` and ``perdure serve`` listen on
``PERDURE_MAX_BODY_BYTES`` the largest request body taken
``PERDURE_MAX_IMPORT_BYTES`` the same of ``POST /v1/sessions/import``
``PERDURE_ENCRYPTION_KEYS``, ``PERDURE_SECRET_KEYS``
                           ``id:base64,…``: the first writes or signs, all of them read or verify
``PERDURE_WEBHOOK_ALLOW``  hosts and address ranges, by commas, that webhooks may reach although
                           they are private, and by plain http
``PERDURE_OTEL_CONTENT``   1: OpenTelemetry spans hold what models and tools were told and said;
                           ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is heard too
``PERDURE_LOG_FORMAT``     ``text`` or ``json``: how what serves or works says it on standard error
``PERDURE_RETENTION``      how long workers keep ended runs: ``completed=90d,events=30d``
``PERDURE_ARCHIVE``        a directory they write runs to before these are deleted
``PERDURE_PUBLIC_URL``     where people reach the server, for links that are sent to them
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from perdure.errors import ConfigurationError

__all__ = ["DEFAULT_PORT", "NamedKey", "Settings", "normalize_url"]

DEFAULT_PORT = 8484
_DEFAULT_MAX_BODY_BYTES = 1024 * 1024
LogFormat = Literal["text", "json"]
_DEFAULT_MAX_IMPORT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A secret with the id it is looked up by; the secret is never shown."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. Secrets are kept out of ``repr``."""

    home: Path
    port: int = DEFAULT_PORT
    server_url: str = f"http://127.0.0.1:{DEFAULT_PORT}"
    max_body_bytes: int = _DEFAULT_MAX_BODY_BYTES
    max_import_bytes: int = _DEFAULT_MAX_IMPORT_BYTES
    database_url: str | None = field(default=None, repr=False)
    migrate_url: str | None = field(default=None, repr=False)
    """``PERDURE_MIGRATE_URL``, else ``DATABASE_URL``."""
    owner_url: str | None = field(default=None, repr=False)
    """``PERDURE_MIGRATE_URL``, where it is set."""
    api_key: str | None = field(default=None, repr=False)
    encryption_keys: tuple[NamedKey, ...] = ()
    secret_keys: tuple[NamedKey, ...] = ()
    webhook_allow: tuple[str, ...] = ()
    public_url: str | None = None
    trace_content: bool = False
    log_format: LogFormat = "text"
    retention: str = ""
    """As it was set; ``runs.keeping.policy`` reads it."""
    archive: Path | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read ``environ`` (``os.environ`` by default); a variable set to "" counts as unset.

        Raises:
            ConfigurationError: a variable has a value that cannot be meant; its name is in the
                message, its value only where it is no secret.
        """
        env = {k: v for k, v in (os.environ if environ is None else environ).items() if v}
        database_url = _url(env, "DATABASE_URL")
        owner_url = _url(env, "PERDURE_MIGRATE_URL")
        port = _integer(env, "PERDURE_PORT", DEFAULT_PORT, least=0, most=65535)
        return cls(
            home=_home(env),
            port=port,
            server_url=env.get("PERDURE_URL", f"http://127.0.0.1:{port}").rstrip("/"),
            max_body_bytes=_integer(
                env, "PERDURE_MAX_BODY_BYTES", _DEFAULT_MAX_BODY_BYTES, least=1024, most=1 << 30
            ),
            max_import_bytes=_integer(
                *(env, "PERDURE_MAX_IMPORT_BYTES", _DEFAULT_MAX_IMPORT_BYTES),
                least=1024,
                most=1 << 40,
            ),
            database_url=database_url,
            migrate_url=owner_url or database_url,
            owner_url=owner_url,
            api_key=env.get("PERDURE_API_KEY"),
            encryption_keys=_keys(env, "PERDURE_ENCRYPTION_KEYS"),
            secret_keys=_keys(env, "PERDURE_SECRET_KEYS"),
            webhook_allow=tuple(
                filter(None, map(str.strip, env.get("PERDURE_WEBHOOK_ALLOW", "").split(",")))
            ),
            public_url=_web_address(env, "PERDURE_PUBLIC_URL"),
            trace_content=_trace_content(env),
            log_format=_log_format(env),
            retention=env.get("PERDURE_RETENTION", ""),
            archive=Path(env["PERDURE_ARCHIVE"]).absolute() if "PERDURE_ARCHIVE" in env else None,
        )

    def require_database_url(self) -> str:
        """Return ``DATABASE_URL``.

        Raises:
            ConfigurationError: it is not set.
        """
        if self.database_url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set. Set it to the Postgres database to use "
                "(postgresql://user:password@host:5432/name); only `perdure dev` and "
                "`perdure demo` bring a database of their own."
            )
        return self.database_url


def normalize_url(url: str, *, name: str) -> str:
    """Return ``url`` in the one spelling both libpq and SQLAlchemy read: ``postgresql://…``.

    ``postgres://`` and SQLAlchemy's ``postgresql+driver://`` are taken too; ``name`` says in the
    error whose value it was. The URL itself is not repeated: it may hold a password.

    Raises:
        ConfigurationError: it is not a Postgres URL.
    """
    scheme, separator, rest = url.strip().partition("://")
    dialect = scheme.partition("+")[0]
    if not separator or dialect not in ("postgres", "postgresql"):
        raise ConfigurationError(
            f"{name} is not a Postgres URL. It has to look like "
            "postgresql://user:password@host:5432/name."
        )
    return f"postgresql://{rest}"


def _url(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    return None if value is None else normalize_url(value, name=name)


def _web_address(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name)
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigurationError(f"{name} is {value!r}; it has to look like https://host/path.")
    return value.rstrip("/")


def _trace_content(env: Mapping[str, str]) -> bool:
    own = env.get("PERDURE_OTEL_CONTENT")
    if own is None:
        wish = env.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "")
        return wish.lower() in ("true", "span_only", "span_and_event")
    if own.lower() in ("0", "1", "false", "true"):
        return own.lower() in ("1", "true")
    raise ConfigurationError(f"PERDURE_OTEL_CONTENT is {own!r}; it has to be 0 or 1.")


def _log_format(env: Mapping[str, str]) -> LogFormat:
    match env.get("PERDURE_LOG_FORMAT", "text"):
        case "text":
            return "text"
        case "json":
            return "json"
        case other:
            raise ConfigurationError(f"PERDURE_LOG_FORMAT is {other!r}; it has to be text or json.")


def _integer(env: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    text = env.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and least <= int(text) <= most:
        return int(text)
    raise ConfigurationError(f"{name} is {text!r}; it has to be a number from {least} to {most}.")


def _keys(env: Mapping[str, str], name: str) -> tuple[NamedKey, ...]:
    keys: dict[str, NamedKey] = {}
    for position, part in enumerate(filter(None, map(str.strip, env.get(name, "").split(","))), 1):
        id_, separator, encoded = part.partition(":")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not (id_ and separator and len(secret) >= 32) or id_ in keys:
            raise ConfigurationError(
                f"Entry {position} of {name} is no new `id:base64` pair of at least 32 bytes. "
                "Make one with: python -c \"import base64, os; print('k1:' + "
                'base64.b64encode(os.urandom(32)).decode())"'
            )
        keys[id_] = NamedKey(id_, secret)
    return tuple(keys.values())


def _home(env: Mapping[str, str]) -> Path:
    if "PERDURE_HOME" in env:
        return Path(env["PERDURE_HOME"]).expanduser().absolute()
    # The root user's home is closed to others, and Postgres refuses to run as root: its data has
    # to lie where the user it runs as can reach it.
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/perdure")
    base = Path(env["XDG_DATA_HOME"]) if "XDG_DATA_HOME" in env else Path("~/.local/share")
    return base.expanduser().absolute() / "perdure"
