"""How the secret of a webhook is kept: sealed, where there is a key for it. Pure.

It has to be had again to sign, so a hash will not do. ``aes256gcm.<key id>.<base64>`` is a nonce
and the secret by AES-256-GCM, bound to the webhook; ``plain.<secret>`` is what is written without
``PERDURE_ENCRYPTION_KEYS``. Each key seals with one derived from it for this alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from perdure.config import NamedKey
from perdure.errors import ConfigurationError

__all__ = ["PLAIN", "is_sealed", "seal", "unseal"]

PLAIN = "plain."
_SEALED = "aes256gcm."
_PURPOSE = b"perdure webhook secrets v1"
_NONCE = 12


def seal(secret: str, webhook_id: UUID, keys: Sequence[NamedKey]) -> str:
    """Return ``secret`` as it is kept: sealed with the first key, as it is where there is none."""
    if not keys:
        return PLAIN + secret
    nonce = os.urandom(_NONCE)
    sealed = _cipher(keys[0]).encrypt(nonce, secret.encode(), webhook_id.bytes)
    return f"{_SEALED}{keys[0].id}.{base64.b64encode(nonce + sealed).decode()}"


def unseal(kept: str, webhook_id: UUID, keys: Sequence[NamedKey]) -> str:
    """Return the secret that was sealed.

    Raises:
        ConfigurationError: its key is not here, or it was sealed for another webhook.
    """
    if kept.startswith(PLAIN):
        return kept.removeprefix(PLAIN)
    key_id, _, encoded = kept.removeprefix(_SEALED).rpartition(".")
    key = next((key for key in keys if key.id == key_id), None)
    if key is None:
        raise ConfigurationError(
            f"The secret of webhook {webhook_id} is sealed with key {key_id!r}, which "
            "PERDURE_ENCRYPTION_KEYS does not have here. Set it as where the webhook was made."
        )
    both = base64.b64decode(encoded)
    try:
        secret = _cipher(key).decrypt(both[:_NONCE], both[_NONCE:], webhook_id.bytes)
    except InvalidTag:
        raise ConfigurationError(
            f"The secret of webhook {webhook_id} does not open with key {key_id!r}: that id of "
            "PERDURE_ENCRYPTION_KEYS was given to another key, or the row was edited. Rotate it: "
            f"POST /v1/webhooks/{webhook_id}/rotate."
        ) from None
    return secret.decode()


def is_sealed(kept: str) -> bool:
    """Whether it takes a key to read what is kept."""
    return not kept.startswith(PLAIN)


def _cipher(key: NamedKey) -> AESGCM:
    return AESGCM(hmac.digest(key.secret, _PURPOSE, hashlib.sha256))
