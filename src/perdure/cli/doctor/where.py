"""Which database doctor looks at, and how it is named without its password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from urllib.parse import quote, quote_plus

from psycopg.conninfo import conninfo_to_dict

from perdure import embedded
from perdure.config import Settings
from perdure.errors import ConfigurationError

_SECRET = ("password", "sslpassword")


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Give the URL of ``DATABASE_URL``, else of the embedded server if it runs, for the block.

    Raises:
        ConfigurationError: there is neither; the message says how to name one.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    home = settings.home
    with embedded.found(home) as server:
        if server is not None:
            yield server.url
            return
    if embedded.has_data(home):
        raise ConfigurationError(
            f"DATABASE_URL is not set, and the embedded Postgres in {home} does not run. "
            "Start it with `perdure dev` and ask again beside it, or set DATABASE_URL "
            "(postgresql://user:password@host:5432/name)."
        )
    raise ConfigurationError(
        f"DATABASE_URL is not set, and there is no embedded Postgres in {home}. Set DATABASE_URL "
        "(postgresql://user:password@host:5432/name), or PERDURE_HOME to the --data-dir of "
        "`perdure dev`."
    )


def without_password(message: str, url: str) -> str:
    """Return what libpq said of ``url`` with its passwords blotted out.

    Raises:
        ConfigurationError: a part of the password was taken for the host.
    """
    given = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    if "@" in given.get("host", ""):
        # libpq ends the password at the first @: what it says of the host is half of it.
        raise ConfigurationError(
            "The password in DATABASE_URL has an @. Write it as %40, as every character that has "
            "a meaning in a URL is written by its code."
        )
    for name in _SECRET:
        if secret := given.get(name):
            for spelling in {secret, quote(secret, safe=""), quote_plus(secret)}:
                message = message.replace(spelling, "***")
    return message


def on_loopback(url: str) -> bool:
    """Whether the server of ``url`` is reached within this machine."""
    host = str(conninfo_to_dict(url).get("host") or "")
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
