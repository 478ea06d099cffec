"""Uses the dashboard as a visitor does, but without a browser."""

from __future__ import annotations

import re

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

PASSWORD = "open sesame, please"


def log_in(client: FlaskClient, password: str, **more: str) -> TestResponse:
    form = {"csrf_token": token(client.get("/dashboard/login").text), "password": password, **more}
    return client.post("/dashboard/login", data=form)


def token(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found, page
    return found[1]


def act(client: FlaskClient, path: str, **form: str) -> TestResponse:
    """Press a button: send its form with the token of a page of this session."""
    form["csrf_token"] = token(client.get("/dashboard/").text)
    return client.post(path, data=form, follow_redirects=True)
