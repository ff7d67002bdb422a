"""What is leaned on of DBOS's inside: private names, table columns, undocumented behaviour.

* ``tested``: which DBOS all of this was tried with; another minor version is refused.
* ``statements``: SQL on DBOS's tables. Others read the same columns: ``worker/recovery.sql``,
  ``worker/sweep.sql``, ``runs/stuck.sql``.
* ``instance``: DBOS in this process, reduced to what segments need.
* ``claims``: segments are claimed and started.
* ``context``: which claim brought the workflow that runs.
* ``pickles``: nothing is unpickled meanwhile.

All but ``tested`` and ``statements`` import private names of DBOS: import them once the version
was looked at. ``tests/integration/test_dbos_inside.py`` says what each of these is taken to do.
"""
