"""The web process: takes callbacks, and tells how it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from receiver.ingest import Ingest, known_secrets
from receiver.meter import Meter
from receiver.redaction import hiding_values
from receiver.settings import Settings, load
from receiver.stores import open_store
from receiver.web import (
    admission,
    api,
    auth,
    callbacks,
    dashboard,
    health,
    metrics,
    openapi,
    problems,
    redelivery,
    rejections,
    requestlog,
)
from receiver.web.callback_path import CallbackPaths
from receiver.web.server.callbacks import Callbacks

Routes = Callable[[Ingest, Settings], Blueprint]  # what another package adds


class _Application(Flask):
    """Flask, told once that no function here is asynchronous: it asks eight times a request."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings | None = None, more: Sequence[Routes] = ()) -> Flask:
    """The Flask application, with `more` routes of other packages.

    Raises SettingsError, SchemaMismatch, StoreUnavailable.
    """
    settings = settings or load()
    store = open_store(settings.database_url)
    try:
        store.check_schema()
    except Exception:
        store.close()
        raise
    app = _Application("receiver", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = admission.LONGEST_CALLBACK
    # A path with two slashes is a wrong path: a redirect would only hide the mistake.
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    meter = Meter("web")
    ingest = Ingest.into(store, settings, meter)
    problems.install(app)
    requestlog.install(app, is_behind_proxy=settings.trusted_proxies > 0)
    hand_over = metrics.install(app, meter, store)
    rejections.install(app, store)
    auth.install(app, settings.api_token)
    requestlog.install_names(app)
    app.extensions["callbacks"] = Callbacks(ingest, settings, hand_over)
    app.register_blueprint(callbacks.blueprint(ingest, settings))
    app.register_blueprint(health.blueprint(store))
    app.register_blueprint(metrics.blueprint(meter, store))
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
    return app
