"""What is leaned on of DBOS's inside: private names, table columns, undocumented behaviour.

* ``tested``: which DBOS all of this was tried with; another minor version is refused.
* ``statements``: SQL on DBOS's tables, but for a dead worker's recovery (``worker/recovery.sql``).
* ``instance``: DBOS in this process, reduced to what segments need.
* ``claims``: segments are claimed and started.
* ``pickles``: nothing is unpickled meanwhile.

``instance``, ``claims`` and ``pickles`` import private names of DBOS: import them once the version
was looked at. ``tests/integration/test_dbos_inside.py`` says what each of these is taken to do.
"""
