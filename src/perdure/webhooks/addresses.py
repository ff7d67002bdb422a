"""Where a webhook may lead: to public addresses by https, and where the operator says. Pure.

Whoever makes a webhook has this server send requests from where it stands. Into its own network,
to the machine itself or to the cloud's metadata service none are sent, whatever a name resolves
to and however the address is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx

from perdure.errors import ConfigurationError

__all__ = ["Allowed", "Target", "check_addresses", "parse_target"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL = 2048
_SETTING = "PERDURE_WEBHOOK_ALLOW"
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")

# The special-purpose registries of IANA, and what is multicast or reserved.
_SPECIAL_4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carriers",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "192.31.196.0/24": "reserved",
    "192.52.193.0/24": "reserved",
    "192.88.99.0/24": "a 6to4 relay",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "reserved",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
# Of IPv6 only 2000::/3 is routed at all; the ways to write an IPv4 address in it are elsewhere,
# but for 6to4 and Teredo.
_ROUTED_6 = IPv6Network("2000::/3")
_SPECIAL_6 = {
    "::1/128": "loopback",
    "::ffff:0:0/96": "an IPv4 address in disguise",
    "64:ff9b::/96": "an IPv4 address in disguise",
    "64:ff9b:1::/48": "an IPv4 address in disguise",
    "2001::/23": "reserved",
    "2001:db8::/32": "for documentation",
    "2002::/16": "an IPv4 address in disguise",
    "2620:4f:8000::/48": "reserved",
    "3fff::/20": "for documentation",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
}
_SPECIAL: Sequence[tuple[Network, str]] = [
    (ip_network(network), what) for network, what in {**_SPECIAL_4, **_SPECIAL_6}.items()
]
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ),
    )
)
"""Services of clouds that give credentials to whoever asks from inside."""
_BY_NAME = frozenset(("private", "loopback", "shared by carriers"))
"""What a host that is allowed by its name may resolve to."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart: ``host`` is a name in ASCII or an address, without brackets."""

    url: httpx.URL
    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """The address its host is, if it is no name."""
        return _address(self.host)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows beyond public addresses by https: names and address ranges."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Allowed:
        """Read the entries of ``PERDURE_WEBHOOK_ALLOW``.

        Raises:
            ConfigurationError: one is neither a host nor an address or range of them.
        """
        hosts, networks = set(), []
        for entry in entries:
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                host = _ascii_host(entry)
                if host is None or "/" in entry:
                    raise ConfigurationError(
                        f"{_SETTING} names {entry!r}, which is no host, address or range: write "
                        "hooks.internal, 10.0.0.7 or 10.0.0.0/8, by commas."
                    ) from None
                hosts.add(host)
        return cls(frozenset(hosts), tuple(networks))

    def plain(self, target: Target) -> bool:
        """Whether ``target`` may be reached by http."""
        address = target.address
        return target.host in self.hosts or (address is not None and self.covers(address))

    def covers(self, address: Address) -> bool:
        """Whether an address is in an allowed range; one of metadata has to be named itself."""
        within = [n for n in self.networks if n.version == address.version and address in n]
        if address in _METADATA:
            return any(network.num_addresses == 1 for network in within)
        return bool(within)


def parse_target(url: str, allowed: Allowed) -> Target:
    """Take a webhook's URL apart.

    Raises:
        ValueError: the message completes "It …": it is no URL webhooks may have.
    """
    if len(url) > MAX_URL:
        raise ValueError(f"has more than {MAX_URL} characters.")
    if not url.isprintable() or any(character.isspace() for character in url):
        raise ValueError("holds white space or characters that do not show.")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("is no URL.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("has to look like https://host/path.")
    if parsed.userinfo:
        raise ValueError("holds credentials; the signature says who sends.")
    if parsed.fragment or "#" in url:
        raise ValueError("has a fragment, which is never sent.")
    host = parsed.raw_host.decode("ascii").strip("[]").rstrip(".").lower()
    port = parsed.port or {"http": 80, "https": 443}[parsed.scheme]
    if not host or not 0 < port < 65536:
        raise ValueError("has to look like https://host/path.")
    target = Target(parsed, host, port)
    if parsed.scheme == "http" and not allowed.plain(target):
        raise ValueError(f"has to begin with https://, unless {_SETTING} names its host.")
    if target.address is not None:
        check_addresses(target, [host], allowed)
    return target


def check_addresses(target: Target, found: Sequence[str], allowed: Allowed) -> list[str]:
    """Return the addresses a target's host resolved to, all of them looked at.

    Raises:
        ValueError: one is not to be reached, or there is none; the message completes "It …".
    """
    if not found:
        raise ValueError(f"leads nowhere: {target.host} has no address.")
    for text in found:
        address = _address(text)
        what = "no address" if address is None else _refused(address, target.host, allowed)
        if what is not None:
            raise ValueError(
                f"leads to {text}, which is {what}. {_SETTING} can allow that to the operator."
            )
    return list(dict.fromkeys(found))


def _refused(address: Address, host: str, allowed: Allowed) -> str | None:
    """Return what kind of address this is that is not to be reached, None where it is."""
    if allowed.covers(address):
        return None
    if address in _METADATA:
        return "a cloud's metadata service"
    what = next(
        (
            what
            for network, what in _SPECIAL
            if network.version == address.version and address in network
        ),
        None,
    )
    if what is None and isinstance(address, IPv6Address) and address not in _ROUTED_6:
        what = "reserved"
    return None if what in _BY_NAME and host in allowed.hosts else what


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # fe80::1%eth0: an address of one link only.
    return None if getattr(address, "scope_id", None) else address


def _ascii_host(text: str) -> str | None:
    try:
        host = httpx.URL(f"http://{text}/").raw_host.decode("ascii").rstrip(".").lower()
    except httpx.InvalidURL:
        return None
    return host if _HOST.fullmatch(host) and ":" not in text and "@" not in text else None
