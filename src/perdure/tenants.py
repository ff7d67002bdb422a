"""Tenants: who owns what."""

from __future__ import annotations

from uuid import UUID

__all__ = ["DEFAULT_TENANT"]

DEFAULT_TENANT = UUID("00000000-0000-7000-8000-000000000000")
"""The tenant that exists from the start."""
