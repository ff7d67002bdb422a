"""The log of a run: every change of it, numbered, read in order, followed as it grows.

Rows are written by ``perdure.write_events`` (SQL) in the transaction of the change they tell of.
It holds the row of the run's head to the end of that transaction, so numbers commit in their
order: whoever has read up to n finds nothing smaller later, and a page has no hole that is filled
behind its reader. Notifications only wake readers; what there is to read is in the table.

``event`` is what one is, ``reading`` the statements for the log of one run, ``windows`` those for
all runs of a tenant. ``hub`` reads for all who follow in this process, ``topic`` is what it holds
of a run for them, ``everywhere`` what of a tenant.
"""

from perdure.events.event import KINDS, TERMINAL, Event, EventPage, status_after
from perdure.events.hub import Hub
from perdure.events.reading import read_events
from perdure.events.topic import Entry

__all__ = [
    "KINDS",
    "TERMINAL",
    "Entry",
    "Event",
    "EventPage",
    "Hub",
    "read_events",
    "status_after",
]
