"""The record in one SQLite file: for one machine, with every acknowledged callback on disk."""

from __future__ import annotations

from receiver.stores.sql.access import Access
from receiver.stores.sql.activity import Happenings
from receiver.stores.sql.browsing import Browsing
from receiver.stores.sql.charges import Charges
from receiver.stores.sql.clocks import Clocks
from receiver.stores.sql.endpoints import Endpoints
from receiver.stores.sql.hook_tests import Trials
from receiver.stores.sql.inbox import Inbox
from receiver.stores.sql.inputs import Inputs
from receiver.stores.sql.keys import Keys
from receiver.stores.sql.metrics import Measures
from receiver.stores.sql.overview import Overview
from receiver.stores.sql.polling_schedule import Agenda
from receiver.stores.sql.queries import Catalogue
from receiver.stores.sql.refusals import Refusals
from receiver.stores.sql.repair import Repair
from receiver.stores.sql.retention import Retention
from receiver.stores.sql.transfer import Transfer
from receiver.stores.sqlite.connections import Connections


class SqliteStore(
    Connections,
    Inbox,
    Agenda,
    Catalogue,
    Keys,
    Endpoints,
    Trials,
    Repair,
    Refusals,
    Access,
    Measures,
    Retention,
    Transfer,
    Happenings,
    Charges,
    Clocks,
    Overview,
    Browsing,
    Inputs,
):
    """See `stores.base.Store`, whose verbs these are."""


__all__ = ["SqliteStore"]
