"""What webhooks are made of: addresses, schedule, secrets, signatures, payloads. All pure."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from perdure.config import NamedKey
from perdure.errors import ConfigurationError
from perdure.webhooks.addresses import Allowed, check_addresses, parse_target
from perdure.webhooks.payloads import MAX_BYTES, payload
from perdure.webhooks.schedule import DELAYS_SECONDS, Sent, judge
from perdure.webhooks.sealing import PLAIN, is_sealed, seal, unseal
from perdure.webhooks.signing import headers, new_secret

NOBODY = Allowed()
SOME = Allowed.parse(["hooks.internal", "10.1.0.0/16", "127.0.0.1", "fd12::/16", "[::1]"])


@pytest.mark.parametrize(
    "address",
    [
        *(
            "93.184.216.34",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.255.255",
            "223.255.255.1",
        ),
        *("2606:4700::6810:84e5", "2a00:1450:4001::200e"),
    ],
)
def test_a_public_address_is_reached(address: str) -> None:
    target = parse_target("https://example.com/x", NOBODY)
    assert check_addresses(target, [address, address], NOBODY) == [address]


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "this network"),  # noqa: S104
        ("10.0.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "shared by carriers"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("192.0.0.1", "reserved"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "6to4"),
        ("198.18.0.1", "benchmarks"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "reserved"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("::ffff:127.0.0.1", "in disguise"),
        ("::ffff:8.8.8.8", "in disguise"),
        ("64:ff9b::7f00:1", "in disguise"),
        ("64:ff9b:1::a00:1", "in disguise"),
        ("2002:7f00:1::", "in disguise"),
        ("2001::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("4000::1", "reserved"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "metadata"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "no address"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
    ],
)
def test_an_address_that_is_not_public_is_refused_however_it_comes(address: str, what: str) -> None:
    target = parse_target("https://example.com/", NOBODY)
    # Also beside one that is fine: which one is connected to is not for chance.
    for found in ([address], ["8.8.8.8", address]):
        with pytest.raises(ValueError, match=f"leads to .*, which is .*{what}"):
            check_addresses(target, found, NOBODY)
    if "%" not in address:
        host = f"[{address}]" if ":" in address else address
        with pytest.raises(ValueError, match="leads to"):
            parse_target(f"https://{host}/", NOBODY)
    with pytest.raises(ValueError, match="leads nowhere"):
        check_addresses(target, [], NOBODY)


def test_what_the_operator_allows_and_no_more() -> None:
    by_name = parse_target("http://hooks.internal:8080/x", SOME)
    assert (by_name.host, by_name.port) == ("hooks.internal", 8080)
    for address in ("10.9.9.9", "127.0.0.2", "192.168.0.1", "100.64.0.1", "fd99::1", "8.8.8.8"):
        assert check_addresses(by_name, [address], SOME) == [address]
    for address in ("169.254.1.1", "169.254.169.254", "fd00:ec2::254", "224.0.0.1", "0.1.0.0"):
        with pytest.raises(ValueError, match="leads to"):
            check_addresses(by_name, [address], SOME)
    by_range = parse_target("https://example.com/", SOME)
    for address in ("10.1.2.3", "127.0.0.1", "fd12::7", "::1"):
        assert check_addresses(by_range, [address], SOME) == [address]
    for address in ("10.2.0.1", "127.0.0.2", "fd13::1", "::ffff:10.1.2.3"):
        with pytest.raises(ValueError, match="leads to"):
            check_addresses(by_range, [address], SOME)
    assert parse_target("http://10.1.2.3/", SOME).address is not None
    assert parse_target("http://[::1]:9/", SOME).port == 9
    # A range that happens to hold it does not open a cloud's metadata service; naming it does.
    with pytest.raises(ValueError, match="metadata"):
        check_addresses(by_range, ["169.254.169.254"], Allowed.parse(["169.254.0.0/16"]))
    named = Allowed.parse(["169.254.169.254"])
    assert check_addresses(by_range, ["169.254.169.254"], named)
    for wrong in ("10.0.0.0/33", "a b", "http://x", "host:80", "user@host", "*"):
        with pytest.raises(ConfigurationError, match="PERDURE_WEBHOOK_ALLOW"):
            Allowed.parse([wrong])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "has to begin with https://"),
        ("ftp://example.com/", "has to look like"),
        ("file:///etc/passwd", "has to look like"),
        ("https://", "has to look like"),
        ("https:///x", "has to look like"),
        ("//example.com/", "has to look like"),
        ("example.com", "has to look like"),
        ("", "has to look like"),
        ("https://u:p@example.com/", "credentials"),
        ("https://u@example.com/", "credentials"),
        ("https://example.com/#x", "fragment"),
        ("https://example.com:99999/", "has to look like"),
        ("https://example.com/a b", "white space"),
        ("https://example.com/\r\nX: y", "white space"),
        ("https://exa\u202emple.com/", "white space"),
        ("https://example.com/" + "x" * 2048, "has more than 2048"),
        ("https://[::1/", "is no URL"),
        ("http://127.0.0.2/", "has to begin with https://"),
        ("https://127.0.0.2/", "loopback"),
        ("https://[::ffff:7f00:1]/", "in disguise"),
    ],
)
def test_a_url_no_webhook_may_have_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_target(url, SOME)


def test_an_odd_way_to_write_an_address_is_a_name_until_it_is_resolved() -> None:
    # The system's resolver takes these for 127.0.0.1, which is what is looked at then.
    for odd in ("https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://0x7f000001/"):
        assert parse_target(odd, NOBODY).address is None


def test_answers_mean_what_they_should() -> None:
    assert [judge(Sent(1, code), 1).status for code in (200, 204, 299)] == ["delivered"] * 3
    gone = judge(Sent(1, 410), 1)
    assert (gone.status, gone.disable) == ("failed", True)
    for code in (301, 302, 307, 400, 401, 404, 429, 500, 503, None):
        verdict = judge(Sent(1, code, error=None if code else "no route"), 1)
        assert (verdict.status, verdict.retry_seconds, verdict.disable) == ("pending", 5.0, False)
        assert str(code or "no route") in str(verdict.error)
    waits = [judge(Sent(1, 500), tries).retry_seconds for tries in range(1, 10)]
    assert waits == list(DELAYS_SECONDS)
    assert sum(DELAYS_SECONDS) / 86_400 == pytest.approx(3.15, abs=0.01)
    last = judge(Sent(1, 500), 10)
    assert (last.status, last.error) == ("failed", "It answered 500.")
    # A receiver may ask for longer, up to a day, and not for less.
    assert judge(Sent(1, 429, retry_after=60), 1).retry_seconds == 60
    assert judge(Sent(1, 503, retry_after=1e9), 1).retry_seconds == 86_400
    assert judge(Sent(1, 503, retry_after=1), 2).retry_seconds == 300
    assert judge(Sent(1, 500, retry_after=60), 1).retry_seconds == 5


def test_a_secret_is_sealed_for_its_webhook_and_by_a_key_that_can_change() -> None:
    one, two = (NamedKey(name, os.urandom(32)) for name in ("one", "k.2"))
    secret, webhook = new_secret(), uuid4()
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    kept = seal(secret, webhook, [one])
    assert is_sealed(kept)
    assert secret not in kept
    assert seal(secret, webhook, [one]) != kept
    assert unseal(kept, webhook, [two, one]) == secret
    assert unseal(seal(secret, webhook, [two, one]), webhook, [two]) == secret
    with pytest.raises(ConfigurationError, match="'one', which PERDURE_ENCRYPTION_KEYS does not"):
        unseal(kept, webhook, [two])
    with pytest.raises(ConfigurationError, match="does not open"):
        unseal(kept, uuid4(), [one])
    with pytest.raises(ConfigurationError, match="does not open"):
        unseal(kept, webhook, [NamedKey("one", os.urandom(32))])
    plain = seal(secret, webhook, [])
    assert (plain, is_sealed(plain)) == (PLAIN + secret, False)
    assert unseal(plain, webhook, [one]) == secret


def test_a_message_is_signed_by_each_secret_as_the_library_verifies() -> None:
    old, new, message = new_secret(), new_secret(), uuid4()
    body = payload("webhook.test", datetime.now(UTC), {"text": "é \ud800 \u0000"})
    sent = headers(message, datetime.now(UTC), body, [new, old])
    assert sent["webhook-id"] == str(message)
    for secret in (old, new):
        assert Webhook(secret).verify(body.encode(), sent)["type"] == "webhook.test"
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body.encode() + b" ", sent)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body.encode(), sent)


def test_a_payload_that_is_too_large_says_what_it_is_about_alone() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    run = {"id": "7", "object": "run", "status": "completed", "output": "x" * 1000}
    whole = json.loads(payload("run.completed", moment, {"run": run}))
    assert whole == {
        "type": "run.completed",
        "timestamp": "2026-01-02T00:00:00.000000Z",
        "data": {"run": run},
    }
    large = payload(
        "run.completed", moment, {"run": run | {"output": "x" * MAX_BYTES}, "link": {"url": "u"}}
    )
    assert len(large) < 300
    assert json.loads(large)["data"] == {
        "run": {"id": "7", "object": "run", "status": "completed", "truncated": True},
        "link": {"url": "u"},
    }
