"""The dashboard: web pages for operators, protected by a password, that show the record."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Blueprint, Flask
from flask_wtf import CSRFProtect

from receiver.config.settings import Settings
from receiver.ingest import Ingest
from receiver.web import request_lifecycle
from receiver.web.dashboard import (
    deliveries,
    endpoints,
    login,
    messages,
    overview,
    pictures,
    responses,
    task,
    tasks,
)
from receiver.web.dashboard.page_context import PageContext
from receiver.web.live.feed import EventFeed
from receiver.web.live.routes import stream

PAGES = (overview, tasks, task, pictures, deliveries, endpoints, messages)


def install(
    app: Flask, ingest: Ingest, settings: Settings, secrets: Iterable[str], feed: EventFeed
) -> None:
    """Serve the pages below /dashboard. They make no outgoing request, and show no secret."""
    request_lifecycle.configure_sessions(app, settings)
    csrf = CSRFProtect(app)
    routes = Blueprint(
        "dashboard",
        "receiver.web",
        url_prefix=request_lifecycle.DASHBOARD,
        template_folder="templates",
        static_folder="static",
    )
    context = PageContext.of(ingest, settings, secrets)
    responses.install(routes, context)
    app.extensions["rejections"].close_with(login.install(routes, ingest.store, settings, csrf))
    for pages in PAGES:
        pages.install(routes, context)
    routes.add_url_rule("/events", "events", lambda: stream(feed, feed.watch()))
    app.register_blueprint(routes)
    app.add_url_rule("/", "home", responses.to_dashboard)
