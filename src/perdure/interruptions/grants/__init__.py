"""Approvals that stand for later calls.

``rules`` says what one may be and what it covers (pure), ``store`` gives, uses and revokes them,
``queries`` reads them.
"""
