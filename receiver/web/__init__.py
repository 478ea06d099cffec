"""The web process: takes callbacks, and tells how it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from flask import Blueprint, Flask, Response
from flask.json.provider import DefaultJSONProvider
from werkzeug.middleware.proxy_fix import ProxyFix

from receiver.config.settings import Settings, load
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest, known_secrets
from receiver.observability.metric_buffer import MetricBuffer
from receiver.processes.clock_watch import ClockWatch
from receiver.stores import check_schema_when_reachable, open_store
from receiver.text import display
from receiver.text.redaction import hiding_values
from receiver.web import (
    admission,
    api,
    auth,
    callbacks,
    dashboard,
    health,
    hooks_report,
    metrics,
    openapi,
    problems,
    redelivery,
    rejections,
    requestlog,
)
from receiver.web.callback_path import CallbackPaths
from receiver.web.server.callback_app import CallbackApp
from receiver.web.unread_bodies import UnreadBodies

Routes = Callable[[Ingest, Settings], Blueprint]  # what another package adds


class _EncodableResponse(Response):
    """A response whose text can always be encoded, whatever is on record."""

    def set_data(self, value: bytes | str) -> None:
        super().set_data(display.encodable(value) if isinstance(value, str) else value)


class _Json(DefaultJSONProvider):
    """Flask's JSON, which every parser accepts, and errors that it handles."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            return super().loads(s, **kwargs)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return display.json_ascii(obj, **{"default": self.default, "sort_keys": True, **kwargs})


class _Application(Flask):
    """Flask, told once that no function here is asynchronous: it asks eight times a request."""

    response_class = _EncodableResponse
    json_provider_class = _Json

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings | None = None, more: Sequence[Routes] = ()) -> Flask:
    """The Flask application, with `more` routes of other packages.

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
    app.config["MAX_CONTENT_LENGTH"] = admission.MAX_BODY
    # A path with two slashes is a wrong path: a redirect would only hide the mistake.
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    meter = MetricBuffer("web")
    watch = ClockWatch(store, meter)
    with suppress(StoreUnavailable):  # the first request reports it
        watch.look()  # before any heartbeat: after a reboot, it compares with the last ones
    ingest = Ingest.into(store, settings, meter)
    problems.install(app)
    requestlog.install(app, is_behind_proxy=settings.trusted_proxies > 0)
    hand_over = metrics.install(app, meter, store, watch)
    rejections.install(app, store, settings.session_key)
    hooks_report.install(store)
    auth.install(app, settings.api_token)
    requestlog.install_names(app)
    app.extensions["callbacks"] = CallbackApp(ingest, settings, hand_over)
    app.register_blueprint(callbacks.blueprint(ingest, settings))
    app.register_blueprint(health.blueprint(ingest, meter, watch))
    app.register_blueprint(metrics.blueprint(ingest))
    api.hide_secrets(app, hiding_values(known_secrets(settings)))
    app.register_blueprint(api.blueprint(ingest))
    app.register_blueprint(redelivery.blueprint(ingest))
    app.register_blueprint(openapi.blueprint())
    dashboard.install(app, ingest, settings)
    for routes in more:
        app.register_blueprint(routes(ingest, settings))
    app.wsgi_app = CallbackPaths(app.wsgi_app)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    app.wsgi_app = UnreadBodies(app.wsgi_app)  # type: ignore[method-assign]
    return app
