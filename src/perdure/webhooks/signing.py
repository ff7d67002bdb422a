"""Signs what is sent, by the Standard Webhooks scheme. Pure."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from standardwebhooks.webhooks import Webhook

__all__ = ["headers", "new_secret"]

PREFIX = "whsec_"
_BYTES = 32


def new_secret() -> str:
    """Return a new secret, 256 random bits, as receivers verify with it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def headers(
    message_id: UUID, moment: datetime, body: str, signed_with: Sequence[str]
) -> dict[str, str]:
    """Return the headers ``body`` is sent with at ``moment`` (UTC): a signature for each secret.

    The message's id is the same at each attempt, the moment and with it the signature are not.
    """
    return {
        "webhook-id": str(message_id),
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": " ".join(
            Webhook(secret).sign(str(message_id), moment, body) for secret in signed_with
        ),
    }
