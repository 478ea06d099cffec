"""`receiver tail --url` follows another installation, and reports problems."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.cli import main
from receiver.ingest import Ingest
from sandbox.server import Sandbox
from tests.integration.test_tail import following
from tests.support.hook_servers import Page, Site
from tests.support.installation import Installation
from tests.support.live_events import TOKEN
from tests.support.patience import wait_until
from tests.support.ports import free_port
from tests.support.samples import body, callback


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", TOKEN)


def tail(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tail", *arguments])


def test_a_remote_installation_is_followed_across_restarts(tmp_path: Path) -> None:
    def happen(task: str, status: str = "succeed") -> None:
        Ingest(installation.store, []).accept(callback(body(status, task_id=f"at-{task}"), task))

    def log() -> str:
        return (tmp_path / "web.log").read_text()

    with Sandbox() as sandbox:
        installation = Installation(tmp_path, sandbox)
        installation.environment["API_TOKEN"] = TOKEN
        try:
            installation.migrate()
            installation.start_web("wsgi:app", "--workers", "1")
            installation.wait_until_ready()
            with following("--url", installation.url, "--json") as tail:
                wait_until(lambda: "/api/events" in log())
                happen("first")
                assert tail.events(1) == [("move", "first", "succeeded")]
                installation.running["web"].send_signal(signal.SIGHUP)
                wait_until(lambda: log().count("/api/events") == 2)
                happen("later")
                assert tail.events(1) == [("move", "later", "succeeded")]
                status, output, warnings = tail.end(signal.SIGTERM)
            assert (status, output) == (0, b"")
            assert b"reconnecting in" in warnings
            assert TOKEN.encode() not in warnings
        finally:
            installation.close()


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (Page(b"{}", 401), "the token was refused; use the API_TOKEN of that installation"),
        (Page(b"{}", 404), "there is no stream of events at /api/events"),
        (Page(b"<html>", 200), "there is no stream of events at /api/events"),
        (Page(b'{"detail": "task: is too long\\u001b"}', 422), "422 task: is too long"),
        (Page(b"", 308, headers={"Location": "https://other.example/"}), "redirects to https://o"),
        (
            Page(b"id: events-1\ndata: {}\n\n", 200, {"Content-Type": "text/event-stream"}),
            "an event cannot be interpreted",
        ),
    ],
)
def test_a_refusal_is_explained(page: Page, problem: str) -> None:
    with Site() as site:
        site.pages["/api/events"] = page
        result = tail("--url", site.url)
    assert result.exit_code == 1
    assert problem in result.stderr
    assert "\x1b" not in result.stderr
    assert TOKEN not in result.output


def test_a_password_in_the_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site() as site:
        site.pages["/api/events"] = Page(b"{}", 401)
        url = site.url.replace("://", "://admin:hunter2pw@")
        refused = tail("--url", url)
        wrong = tail("--url", f"{url}?a=b")
        monkeypatch.delenv("API_TOKEN")
        without_token = tail("--url", url)
    assert "the token was refused" in refused.stderr
    assert "--url" in wrong.stderr
    assert "is not set" in without_token.stderr
    for result in (refused, wrong, without_token):
        assert result.exit_code != 0
        assert "hunter2pw" not in result.output


def test_an_unreachable_installation_is_reported() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = tail("--url", url)
    assert result.exit_code == 1
    assert f"{url}: " in result.stderr
    assert "Connection refused" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--url", "shop.example"), "is not a URL"),
        (("--url", "https://shop.example", "--hook", "mail"), "--hook cannot be combined"),
        (("--url", "https://shop.example", "-n", "5"), "--lines cannot be combined"),
        (("--url", "https://shop.example", "--only", "attempt"), "--only cannot be combined"),
    ],
)
def test_a_wrong_option_is_named(arguments: tuple[str, ...], problem: str) -> None:
    result = tail(*arguments)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_missing_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_TOKEN")
    for name in ("API_TOKEN", "SHOP_TOKEN"):
        result = tail("--url", "https://shop.example", "--token-env", name)
        assert result.exit_code == 1
        assert f"{name} is not set" in result.stderr
