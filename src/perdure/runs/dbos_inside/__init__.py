"""What is leaned on of DBOS's inside: private names, table columns, undocumented behaviour.

* ``tested``: which DBOS all of this was tried with; another minor version is refused.
* ``statements``: what is done by SQL to DBOS's tables; ``looks``: what is read of them.
* ``kinds``: which workflows there are, and their queues.
* ``instance``: DBOS in this process, reduced to what segments and deliveries need.
* ``claims``: they are claimed and started.
* ``context``: which claim brought the workflow that runs.
* ``pickles``: nothing is unpickled meanwhile.

All but ``tested``, ``statements``, ``looks`` and ``kinds`` import private names of DBOS: import
them once the version was looked at. ``tests/integration/test_dbos_inside.py`` says what each is
taken to do.
"""
