"""The password, sessions, forged forms, and the security headers of every response."""

from __future__ import annotations

import threading
from dataclasses import replace
from http.cookies import SimpleCookie
from typing import NoReturn

import pytest
from flask import Flask, session
from flask.sessions import NullSession, SecureCookieSessionInterface
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.errors import StoreUnavailable
from receiver.stores.sql.sessions import DashboardSessions
from receiver.stores.sql.transfer import Transfer
from receiver.stores.sqlite import SqliteStore
from receiver.web.dashboard import login
from receiver.web.dashboard.login import BURST
from receiver.web.request_lifecycle import SESSION_LIFETIME
from tests.support.applications import MakeApp, merge
from tests.support.dashboard_visits import PASSWORD, FullSite, act, log_in, token

PAGES = ["", "tasks", "tasks/task-failed", "deliveries", "dead", "redeliver", "endpoints"]
ACTIONS = [
    "tasks/task-failed/ask",
    "callbacks/1/replay",
    "deliveries/1/redeliver",
    "redeliver",
    "endpoints/mail/pause",
    "endpoints/mail/resume",
    "endpoints/mail/test",
    "logout",
]


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze the limiter's clock: on a busy machine, a test can take seconds."""
    monkeypatch.setattr(login, "PER_SECOND", 1e-6)
    monkeypatch.setattr(threading.Timer, "start", lambda _: None)


def cookie(client: FlaskClient, **environ: str) -> SimpleCookie:
    answer = client.get("/dashboard/login", environ_overrides=environ)
    return SimpleCookie(answer.headers["Set-Cookie"])


@pytest.mark.parametrize(
    "path", [*PAGES, "events", "quarantine", "thumbnails/1/0", "files/1/0", "nothing"]
)
def test_no_page_is_shown_without_the_password(full: FullSite, path: str) -> None:
    answer = full.site.test_client().get(f"/dashboard/{path}")
    assert answer.status_code == 302
    assert answer.location.startswith("/dashboard/login?next=")
    assert "ORDER-" not in answer.text


@pytest.mark.parametrize("path", ACTIONS)
def test_no_action_is_possible_without_the_password(full: FullSite, path: str) -> None:
    stranger = full.site.test_client()
    form = {"csrf_token": token(stranger.get("/dashboard/login").text)}
    answer = stranger.post(f"/dashboard/{path}", data=form)
    assert (answer.status_code, answer.location) == (302, "/dashboard/login")


def test_the_script_learns_that_the_session_has_ended(stranger: FlaskClient) -> None:
    assert stranger.get("/dashboard/", headers={"X-Live": "1"}).status_code == 401


def test_the_right_password_leads_to_the_requested_page(stranger: FlaskClient) -> None:
    asked = stranger.get("/dashboard/tasks?status=failed")
    assert 'value="/dashboard/tasks?status=failed"' in stranger.get(asked.location).text
    answer = log_in(stranger, PASSWORD, next="/dashboard/tasks?status=failed")
    assert answer.location == "/dashboard/tasks?status=failed"
    assert stranger.get(answer.location).status_code == 200


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example", "/dashboard/\\e", "/api", "/dashboard/login", ""],
)
def test_login_redirects_only_to_pages_of_the_dashboard(stranger: FlaskClient, wanted: str) -> None:
    assert log_in(stranger, PASSWORD, next=wanted).location == "/dashboard/"


@pytest.mark.parametrize("wrong", ["", PASSWORD[:-1], PASSWORD + " ", "\udcff", PASSWORD.upper()])
def test_a_wrong_password_is_reported_and_refused(stranger: FlaskClient, wrong: str) -> None:
    answer = log_in(stranger, wrong.encode("utf-8", "replace").decode())
    assert answer.status_code == 401
    assert "The password is wrong." in answer.text
    assert stranger.get("/dashboard/").status_code == 302


def test_a_wrong_password_is_counted(settings: Settings, make_app: MakeApp) -> None:
    client = make_app(replace(settings, api_token="a-token-for-the-tests")).test_client()
    log_in(client, "a guess")
    found = client.get("/metrics", headers={"Authorization": "Bearer a-token-for-the-tests"}).text
    assert 'verification_failures_total{reason="dashboard_password"} 1.0' in found


def test_too_many_wrong_passwords_have_to_wait(site: Flask) -> None:
    client = site.test_client()
    statuses = [log_in(client, f"guess {number}").status_code for number in range(BURST + 1)]
    assert statuses == [401] * BURST + [429]
    guessed = log_in(
        client, PASSWORD
    )  # the right one as well, because a response must not reveal it
    assert guessed.status_code == 429
    assert int(guessed.headers["Retry-After"]) > 0
    assert "Wait" in guessed.text
    other = site.test_client()
    form = {"csrf_token": token(other.get("/dashboard/login").text), "password": PASSWORD}
    elsewhere = {"REMOTE_ADDR": "198.51.100.7"}
    assert other.post("/dashboard/login", data=form, environ_overrides=elsewhere).location


def test_without_a_configured_password_the_dashboard_is_disabled_and_says_so(
    settings: Settings, make_app: MakeApp
) -> None:
    client = make_app(replace(settings, dashboard_password=None)).test_client()
    for path in ("", "login", "tasks"):
        answer = client.get(f"/dashboard/{path}")
        assert answer.status_code == 403
        assert "DASHBOARD_PASSWORD" in answer.text
    assert client.post("/dashboard/login", data={"password": ""}).status_code == 403
    with client.get("/dashboard/static/dashboard.css") as style_sheet:
        assert style_sheet.status_code == 200


def test_a_new_password_ends_every_session(
    browser: FlaskClient, settings: Settings, make_app: MakeApp
) -> None:
    changed = make_app(replace(settings, dashboard_password="another password")).test_client()
    kept = browser.get_cookie("dashboard", path="/dashboard")
    assert kept is not None
    same = make_app(settings).test_client()
    for client, status in ((same, 200), (changed, 302)):
        client.set_cookie("dashboard", kept.value, path="/dashboard")
        assert client.get("/dashboard/").status_code == status


def test_logging_out_ends_the_session(browser: FlaskClient) -> None:
    assert act(browser, "/dashboard/logout").status_code == 200
    assert browser.get("/dashboard/").status_code == 302


def test_the_cookie_is_limited_to_the_dashboard_and_hidden_from_scripts(site: Flask) -> None:
    found = cookie(site.test_client())["dashboard"]
    assert (found["httponly"], found["samesite"], found["path"]) == (True, "Lax", "/dashboard")
    assert not found["secure"]


def test_over_tls_the_cookie_is_sent_only_over_tls(settings: Settings, make_app: MakeApp) -> None:
    told = make_app(settings).test_client()
    assert cookie(told, **{"wsgi.url_scheme": "https"})["dashboard"]["secure"]
    behind = make_app(replace(settings, public_url="https://shop.example")).test_client()
    assert cookie(behind, HTTP_HOST="shop.example")["dashboard"]["secure"]
    assert not cookie(behind, HTTP_HOST="127.0.0.1:8000")["dashboard"]["secure"]


@pytest.mark.parametrize(
    ("path", "is_opened"), [("/callbacks/kling/t/x", False), ("/dashboard/", True)]
)
def test_a_callback_opens_no_session(site: Flask, path: str, is_opened: bool) -> None:
    """Opening one would cost more than checking the callback's token."""
    with site.test_request_context(path):
        assert isinstance(session, NullSession) is not is_opened


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("form", [{}, {"csrf_token": "forged"}])
def test_a_form_without_the_csrf_token_of_this_session_changes_nothing(
    full: FullSite, path: str, form: dict[str, str]
) -> None:
    store, browser = full.store, full.browser

    def record() -> object:
        lists = store.endpoints.all(), store.lists.deliveries(limit=99), store.endpoints.tests()
        return store.queries.history(full.rich.failed), *lists

    before = record()
    answer = browser.post(f"/dashboard/{path}", data=form)
    assert answer.status_code == 400
    assert "Nothing was done" in answer.text
    assert record() == before
    assert browser.get("/dashboard/").status_code == 200


def test_a_csrf_token_from_before_the_login_is_invalid_afterwards(stranger: FlaskClient) -> None:
    before = token(stranger.get("/dashboard/login").text)
    assert log_in(stranger, PASSWORD).status_code == 302
    assert stranger.post("/dashboard/logout", data={"csrf_token": before}).status_code == 400
    assert stranger.get("/dashboard/").status_code == 200


def test_the_csrf_token_of_another_session_is_invalid(browser: FlaskClient, site: Flask) -> None:
    theirs = token(site.test_client().get("/dashboard/login").text)
    answer = browser.post("/dashboard/endpoints/mail/pause", data={"csrf_token": theirs})
    assert answer.status_code == 400


@pytest.mark.usefixtures("rich")
def test_a_forged_session_cookie_shows_nothing(stranger: FlaskClient) -> None:
    answer = stranger.post("/dashboard/login", data={"password": PASSWORD})
    assert answer.status_code == 400
    assert "Dead letters" not in answer.text


def copied(browser: FlaskClient, site: Flask) -> FlaskClient:
    """A client with a copy of the browser's cookie."""
    kept = browser.get_cookie("dashboard", path="/dashboard")
    assert kept is not None
    client = site.test_client()
    client.set_cookie("dashboard", kept.value, path="/dashboard")
    return client


@pytest.mark.parametrize("path", [*PAGES, "files/1/0"])
def test_a_copied_cookie_is_invalid_after_the_logout_in_every_process(
    full: FullSite, make_app: MakeApp, path: str
) -> None:
    browser = full.site.test_client()
    log_in(browser, PASSWORD)
    copies = [copied(browser, served) for served in (full.site, make_app(full.settings))]
    assert [client.get("/dashboard/tasks").status_code for client in copies] == [200, 200]
    act(browser, "/dashboard/logout")
    for client in copies:
        assert client.get(f"/dashboard/{path}").location.startswith("/dashboard/login")
        assert client.get("/dashboard/", headers={"X-Live": "1"}).status_code == 401


@pytest.mark.parametrize("path", ACTIONS)
def test_a_copied_cookie_performs_no_action_after_the_logout(full: FullSite, path: str) -> None:
    store, browser = full.store, full.site.test_client()
    log_in(browser, PASSWORD)
    copy = copied(browser, full.site)
    form = {"csrf_token": token(copy.get("/dashboard/").text)}
    act(browser, "/dashboard/logout")
    before = store.endpoints.all(), store.lists.deliveries(limit=99), store.endpoints.tests()
    assert copy.post(f"/dashboard/{path}", data=form).location == "/dashboard/login"
    assert (
        store.endpoints.all(),
        store.lists.deliveries(limit=99),
        store.endpoints.tests(),
    ) == before


def test_logging_out_ends_only_this_session(browser: FlaskClient, site: Flask) -> None:
    other = site.test_client()
    assert log_in(other, PASSWORD).status_code == 302
    act(browser, "/dashboard/logout")
    assert other.get("/dashboard/").status_code == 200
    assert log_in(browser, PASSWORD).status_code == 302
    assert browser.get("/dashboard/").status_code == 200


def test_logging_in_again_ends_the_previous_session(browser: FlaskClient, site: Flask) -> None:
    copy = copied(browser, site)
    form = {"csrf_token": token(browser.get("/dashboard/").text), "password": PASSWORD}
    assert browser.post("/dashboard/login", data=form).status_code == 302
    assert browser.get("/dashboard/").status_code == 200
    assert copy.get("/dashboard/").status_code == 302


def test_a_session_expires(
    browser: FlaskClient, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Transfer(store.database).count("sessions") == 1
    now = now_ms()
    monkeypatch.setattr(login, "now_ms", lambda: now + SESSION_LIFETIME * 1000)
    assert browser.get("/dashboard/").status_code == 302


def test_a_logout_that_cannot_be_stored_is_reported(
    browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = {"csrf_token": token(browser.get("/dashboard/").text)}

    def fail(*_: object) -> NoReturn:
        raise StoreUnavailable("not now")

    with monkeypatch.context() as broken:
        broken.setattr(DashboardSessions, "close", fail)
        assert browser.post("/dashboard/logout", data=form).status_code == 503
    assert browser.get("/dashboard/").status_code == 200
    assert browser.post("/dashboard/logout", data=form).status_code == 302
    assert browser.get("/dashboard/").status_code == 302


def test_the_store_holds_no_session_id(
    browser: FlaskClient, site: Flask, store: SqliteStore
) -> None:
    kept = browser.get_cookie("dashboard", path="/dashboard")
    serializer = SecureCookieSessionInterface().get_signing_serializer(site)
    assert kept
    assert serializer
    identity = serializer.loads(kept.value)["id"]
    rows = [row for page in Transfer(store.database).pages("sessions") for row in page]
    assert len(rows) == 1
    assert identity not in repr(rows)


@pytest.mark.usefixtures("no_time_passes")
def test_wrong_passwords_count_for_all_processes(
    site: Flask, settings: Settings, make_app: MakeApp, store: SqliteStore
) -> None:
    first, second = site.test_client(), make_app(settings).test_client()
    assert {log_in(first, "a guess").status_code for _ in range(BURST)} == {401}
    assert Transfer(store.database).count("refused_attempts") == 0  # an attempt writes nothing
    merge(site)
    kinds = {
        row["kind"] for rows in Transfer(store.database).pages("refused_attempts") for row in rows
    }
    assert kinds == {"password", "token"}  # a 401 counts for both
    assert log_in(second, PASSWORD).status_code == 429
    form = {"csrf_token": token(second.get("/dashboard/login").text), "password": PASSWORD}
    elsewhere = {"REMOTE_ADDR": "198.51.100.7"}
    answer = second.post("/dashboard/login", data=form, environ_overrides=elsewhere)
    assert answer.status_code == 302


@pytest.mark.parametrize("path", ["", "login", "tasks/nobody", "nothing"])
def test_the_browser_may_run_only_our_script(browser: FlaskClient, path: str) -> None:
    answer = browser.get(f"/dashboard/{path}")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in answer.headers["Cache-Control"]


def test_the_root_address_redirects_to_the_dashboard(stranger: FlaskClient) -> None:
    assert stranger.get("/").location == "/dashboard/"
