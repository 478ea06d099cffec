"""The web process: receives callbacks, and serves the API, the dashboard, health and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from flask import Blueprint, Flask, Response
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

from receiver.config.settings import Settings, load
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.observability.metrics import MetricBuffer
from receiver.processes.clock_watch import ClockWatch
from receiver.processes.current_hooks import entries_for, known_secrets
from receiver.stores import check_schema_when_reachable, open_store
from receiver.text import display, limits
from receiver.web import (
    api,
    callbacks,
    cors,
    dashboard,
    health,
    hooks_report,
    metrics,
    openapi,
    problems,
    rejections,
    request_lifecycle,
)
from receiver.web.live import routes as live_routes
from receiver.web.live import waits
from receiver.web.live.feed import EventFeed
from receiver.web.middleware import CallbackPaths, UnreadBodies
from receiver.web.request_lifecycle import RequestReport
from receiver.web.server.callback_app import CallbackHandler

Routes = Callable[[Ingest, Settings], Blueprint]  # routes of another package


class _EncodableResponse(Response):
    """A response whose text can always be encoded, whatever is on record."""

    def set_data(self, value: bytes | str) -> None:
        super().set_data(display.encodable(value) if isinstance(value, str) else value)


class _AsciiJson(DefaultJSONProvider):
    """Writes JSON that every parser accepts; raises ValueError for JSON that is nested deeply."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            return super().loads(s, **kwargs)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return display.json_ascii(obj, **{"default": self.default, "sort_keys": True, **kwargs})


class _Application(Flask):
    response_class = _EncodableResponse
    json_provider_class = _AsciiJson


def create_app(settings: Settings | None = None, more: Sequence[Routes] = ()) -> Flask:
    """Return the Flask application, with `more` routes of other packages.

    Waits for a database server that is down. Raises SettingsError, SchemaMismatch,
    StoreUnavailable.
    """
    settings = settings or load(creates_secret=False)
    store = open_store(settings.database_url)
    try:
        check_schema_when_reachable(store)
        settings = settings.with_secret()
    except Exception:
        store.close()
        raise
    app = _Application("receiver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = limits.MAX_BODY
    # A path with two slashes is a wrong path: a redirect would only hide the mistake.
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    meter = MetricBuffer("web")
    watch = ClockWatch(store, meter)
    with suppress(StoreUnavailable):  # the first request reports it
        watch.look()  # before any heartbeat: after a reboot, it compares with the last ones
    entries = entries_for(settings)
    ingest = Ingest.into(store, settings, meter, entries)
    report = RequestReport(meter, metrics.flush_regularly(meter, store, watch))
    secrets = known_secrets(settings, entries)
    hide = display.hiding_values(secrets)
    feed = EventFeed(store, hide)
    problems.install(app)
    cors.install(app, settings.cors_origins)
    request_lifecycle.install(
        app,
        report,
        meter,
        reject=rejections.install(app, store, settings.session_key),
        hide=hide,
        api_token=settings.api_token,
        is_behind_proxy=settings.trusted_proxies > 0,
    )
    hooks_report.install(store)
    app.extensions["callbacks"] = CallbackHandler(ingest, settings, report)
    app.extensions["live"] = feed
    app.register_blueprint(callbacks.blueprint(ingest, settings))
    app.register_blueprint(health.blueprint(ingest, meter, watch))
    app.register_blueprint(metrics.blueprint(ingest))
    app.register_blueprint(api.blueprint(ingest, feed))
    app.register_blueprint(live_routes.blueprint(feed))
    app.register_blueprint(api.redelivery(ingest))
    app.register_blueprint(openapi.blueprint(settings.public_url))
    dashboard.install(app, ingest, settings, secrets, feed)
    for routes in more:
        blueprint = routes(ingest, settings)
        waits.install(blueprint, store, feed)
        app.register_blueprint(blueprint)
    app.wsgi_app = CallbackPaths(app.wsgi_app)  # type: ignore[method-assign]
    if hops := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    app.wsgi_app = UnreadBodies(app.wsgi_app)  # type: ignore[method-assign]
    return app
