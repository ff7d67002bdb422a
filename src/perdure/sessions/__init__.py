"""Conversations: sessions, their items, branches.

``rules`` says what one may be (pure), ``store`` makes, reads, changes and deletes them, ``items``
appends, ``reading`` reads and ``removing`` removes their items, ``branching`` forks them and lists
trees. ``exporting`` and ``importing`` take them along, ``sdk_sqlite`` reads the SDK's own files.
``postgres_session`` is the Agents SDK's session over all that; it alone imports the SDK.
"""
