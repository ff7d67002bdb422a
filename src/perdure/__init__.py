"""Perdure: OpenAI Agents SDK runs that outlive their process."""

__version__ = "0.1.0"
