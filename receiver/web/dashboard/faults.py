"""What goes wrong is a page as well, in words that say what to do."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from flask import Blueprint, make_response, render_template
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from receiver.errors import NotFound, StoreUnavailable
from receiver.web.dashboard.responses import page

NOTHING = "There is no such page."
STALE_FORM = "Nothing was done: the form was not one of this session. Try it again from here."
UNAVAILABLE = "The record cannot be read now. The page may work again in a moment."
log = structlog.get_logger()


def install(routes: Blueprint) -> None:
    """Answer every error below /dashboard with a page, and every unknown address there."""

    @routes.errorhandler(CSRFError)
    def forged(error: CSRFError) -> AnyResponse:
        log.warning("a form without its token", reason=error.description)
        return make_response(page("problem", title="Not done", text=STALE_FORM), 400)

    @routes.errorhandler(NotFound)
    def missing(error: NotFound) -> AnyResponse:
        return make_response(page("problem", title="Not found", text=f"{error}".capitalize()), 404)

    @routes.errorhandler(HTTPException)
    def refused(error: HTTPException) -> AnyResponse:
        status = error.code or 500
        text = NOTHING if status == HTTPStatus.NOT_FOUND else error.description
        title = HTTPStatus(status).phrase.capitalize()
        return make_response(page("problem", title=title, text=text), status)

    @routes.errorhandler(StoreUnavailable)
    def unavailable(error: StoreUnavailable) -> AnyResponse:
        log.error("the record is unavailable", error=str(error))
        plain = render_template("dashboard/unavailable.html", text=UNAVAILABLE)
        response = make_response(plain, 503)
        response.headers["Retry-After"] = str(error.retry_after)
        return response

    @routes.get("/<path:_>")
    def nothing(_: str) -> AnyResponse:
        return make_response(page("problem", title="Not found", text=NOTHING), 404)
