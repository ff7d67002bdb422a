"""The agents of a deployment as rows: what they are defined by, in versions.

``definitions`` says what a definition is and hashes it, ``registering`` writes what an engine
comes with, ``reading`` and ``differences`` give it back, ``pruning`` removes what nobody uses.
Reading definitions out of the Agents SDK's objects is ``runs.definitions``.
"""
