"""What a decision link is made of. Pure.

The token is 256 bits that a key of ``PERDURE_SECRET_KEYS`` makes of 256 random ones: who reads the
database cannot make it, nor can who knows the key alone, and the server can show it again to who
asks twice. Kept is its hash. A second code over all the link stands for makes a row worthless that
somebody edited.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from perdure.config import NamedKey

__all__ = ["Claims", "hash_token", "key_called", "make_token", "read_token", "sign", "verify"]

_TOKEN = b"perdure decision link token v1"
_CLAIMS = b"perdure decision link claims v1"
_LENGTH = 43


@dataclass(frozen=True, slots=True)
class Claims:
    """What a link stands for: who (``subject``, of ``groups``) may decide what, how, until when.

    ``expires_at`` is UTC.
    """

    id: UUID
    tenant_id: UUID
    run_id: UUID
    interruption_id: UUID
    digest: str
    subject: str
    groups: Sequence[str]
    decisions: Sequence[str]
    expires_at: datetime


def make_token(key: NamedKey, nonce: bytes) -> str:
    """Return the token of a link, as it stands in its address."""
    made = hmac.digest(key.secret, _TOKEN + nonce, hashlib.sha256)
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def read_token(text: str) -> bytes | None:
    """Return the bytes of a token; None for what is none."""
    if len(text) != _LENGTH or not text.isascii():
        return None
    try:
        return base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except binascii.Error:
        return None


def hash_token(token: str) -> bytes:
    """Return what is kept of a token, and looked for.

    Raises:
        ValueError: it is none.
    """
    read = read_token(token)
    if read is None:
        raise ValueError("is no token.")
    return hashlib.sha256(read).digest()


def sign(key: NamedKey, claims: Claims, token_hash: bytes) -> bytes:
    """Return the code over what a link stands for."""
    said = json.dumps(
        [
            str(claims.id),
            str(claims.tenant_id),
            str(claims.run_id),
            str(claims.interruption_id),
            claims.digest,
            claims.subject,
            list(claims.groups),
            list(claims.decisions),
            int(claims.expires_at.timestamp() * 1_000_000),
            token_hash.hex(),
        ]
    )
    return hmac.digest(key.secret, _CLAIMS + said.encode(), hashlib.sha256)


def verify(key: NamedKey, claims: Claims, token_hash: bytes, mac: bytes) -> bool:
    """Whether the code is the one over these claims."""
    return hmac.compare_digest(sign(key, claims, token_hash), mac)


def key_called(key_id: str, keys: Sequence[NamedKey]) -> NamedKey | None:
    """Return the key of that id, if it is here."""
    return next((key for key in keys if key.id == key_id), None)
