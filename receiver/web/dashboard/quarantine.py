"""What came and was not understood, and what was refused at the door; and why."""

from __future__ import annotations

from flask import Blueprint, request

from receiver.web import cursors
from receiver.web.dashboard.messages import message
from receiver.web.dashboard.page_context import PageContext, row_before
from receiver.web.dashboard.responses import page

MOST = 20  # messages of one page: each is shown whole
REFUSED = 50  # requests


def install(routes: Blueprint, desk: PageContext) -> None:
    @routes.get("/quarantine")
    def quarantine() -> str:
        before = row_before("quarantine", request.args.get("before", ""))
        found = desk.store.lists.page_of_quarantine(before=before, limit=MOST)
        return page(
            "quarantine",
            here="quarantine",
            messages=[message(stored, desk.hide) for stored in found.rows],
            following=cursors.encode("quarantine", found.next),
            refused=desk.store.activity.rejections(REFUSED),
        )
