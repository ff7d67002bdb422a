"""What is leaned on of DBOS's inside: private names, table columns, undocumented behaviour.

* ``tested``: which DBOS all of this was tried with; another minor version is refused.
* ``statements``: SQL on DBOS's tables.
"""
