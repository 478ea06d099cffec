"""Uses the dashboard as a visitor does, but without a browser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from receiver.config.settings import Settings
from receiver.stores.base import Store
from tests.support.rich_record import Rich

PASSWORD = "open sesame, please"


@dataclass(frozen=True)
class FullSite:
    """A full record and its application, which the tests of a module share if they change nothing.

    Building both takes longer than such a test.
    """

    store: Store
    rich: Rich
    settings: Settings
    site: Flask
    browser: FlaskClient  # logged in


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
