"""The dashboard: pages for the people who run this, behind a password, from the record alone."""

from __future__ import annotations

from flask import Blueprint, Flask
from flask_wtf import CSRFProtect

from receiver.config.settings import Settings
from receiver.ingest import Ingest
from receiver.web.dashboard import (
    deliveries,
    endpoints,
    faults,
    login,
    overview,
    pictures,
    quarantine,
    redelivery,
    responses,
    sessions,
    task,
    tasks,
)
from receiver.web.dashboard.page_context import PageContext

ROOMS = (overview, tasks, task, pictures, deliveries, redelivery, endpoints, quarantine)


def install(app: Flask, ingest: Ingest, settings: Settings) -> None:
    """Serve the pages below /dashboard. They make no outgoing request."""
    sessions.install(app, settings)
    csrf = CSRFProtect(app)
    routes = Blueprint(
        "dashboard",
        "receiver.web",
        url_prefix="/dashboard",
        template_folder="templates",
        static_folder="static",
    )
    desk = PageContext.of(ingest, settings)
    responses.install(routes, desk)
    faults.install(routes)
    limits = login.limits(ingest.store, settings)
    app.extensions["rejections"].close_with(limits)
    login.install(routes, ingest.store, settings, csrf, limits)
    for room in ROOMS:
        room.install(routes, desk)
    app.register_blueprint(routes)
    app.add_url_rule("/", "home", responses.to_dashboard)
