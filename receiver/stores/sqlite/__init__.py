"""The record in one SQLite file: for one machine, with every acknowledged callback on disk."""

from __future__ import annotations

from receiver.stores.sqlite.agenda import Agenda
from receiver.stores.sqlite.catalogue import Catalogue
from receiver.stores.sqlite.endpoints import Endpoints
from receiver.stores.sqlite.inbox import Inbox
from receiver.stores.sqlite.keys import Keys
from receiver.stores.sqlite.refusals import Refusals
from receiver.stores.sqlite.repair import Repair
from receiver.stores.sqlite.retention import Retention


class SqliteStore(Inbox, Agenda, Catalogue, Keys, Endpoints, Repair, Refusals, Retention):
    """See `stores.base.Store`, whose verbs these are."""


__all__ = ["SqliteStore"]
