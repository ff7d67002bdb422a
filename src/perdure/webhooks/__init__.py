"""Webhooks: what happened is told to addresses people gave, signed; links by which they decide.

* ``addresses``: where a webhook may lead. Pure.
* ``schedule``: when a delivery is tried again, and what an answer means. Pure.
* ``sealing``, ``signing``: the secret that signs, as it is kept, and the headers it makes. Pure.
* ``sending``: one request, to the very address that was looked at.
* ``store``, ``deliveries``: the rows. ``views``, ``payloads``: what is shown and sent. Pure.
* ``tokens``: what a decision link is made of. Pure. ``links``: its row.

A delivery is made by a trigger, in the transaction of the change it tells of; ``worker.delivering``
has it sent.
"""
