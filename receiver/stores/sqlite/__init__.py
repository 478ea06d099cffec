"""The record in one SQLite file: for one machine, with every acknowledged callback on disk."""

from __future__ import annotations

from receiver.stores.sqlite.agenda import Agenda
from receiver.stores.sqlite.catalogue import Catalogue
from receiver.stores.sqlite.inbox import Inbox
from receiver.stores.sqlite.keys import Keys


class SqliteStore(Inbox, Agenda, Catalogue, Keys):
    """See `stores.base.Store`, whose verbs these are."""


__all__ = ["SqliteStore"]
