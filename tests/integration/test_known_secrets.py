"""A hook's URL in an old record is hidden wherever the record is shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from receiver.cli import main
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import Endpoint
from receiver.errors import ContentFailure
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.observability import logs
from receiver.processes.current_hooks import known_secrets
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from receiver.text.display import hiding
from receiver.web.dashboard.page_context import PageContext
from tests.support.applications import MakeApp
from tests.support.attempts import make_attempt
from tests.support.samples import SECRET, body, callback, subscription

NOW = 1_765_519_851_000
ID, TOKEN = "123456789012345678", "Canary-abcDEF_canary-0123"
URL = f"https://discord.com/api/webhooks/{ID}/{TOKEN}"
SAID = f"Max retries exceeded with url: /api/webhooks/{ID}/{TOKEN}"
API_TOKEN = "a-token-for-the-tests"


@pytest.fixture
def settings(tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Settings:
    store.check_schema()
    hooks = tmp_path / "hooks.toml"
    hooks.write_text('[[hook]]\nname = "mail"\ntype = "slack"\nurl = "${CHAT_URL}"\n')
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    monkeypatch.setenv("CHAT_URL", URL)
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(hooks))
    return Settings(url, (SECRET,), hooks_file=hooks, api_token=API_TOKEN)


@pytest.fixture(autouse=True)
def record(store: SqliteStore, settings: Settings) -> SqliteStore:  # noqa: ARG001
    """A record that was written before this URL was known as a secret."""
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW, reference=SAID))
    Ingest(store, [subscription("mail")]).accept(
        callback(body("failed", task_status_msg=SAID), "task-1")
    )
    (delivery,) = store.outbox.claim("w", NOW + 10_000, NOW + 20_000, 1)
    attempt = Attempt(1, NOW, NOW, "failed", SAID)

    def change(endpoint: Endpoint) -> tuple[Endpoint, None]:
        return Endpoint(endpoint.hook, paused_at=NOW, said=SAID), None

    store.outbox.settle(delivery, attempt, State.DEAD, None, (), change)
    return store


def is_hidden(text: str) -> bool:
    return ID not in text and "anary" not in text


@pytest.mark.parametrize(
    "command",
    [
        ["tasks"],
        ["tasks", "show", "task-1"],
        ["callbacks"],
        ["deliveries"],
        ["endpoints"],
        ["doctor"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_no_command_shows_the_url(command: list[str], form: list[str]) -> None:
    shown = CliRunner().invoke(main, [*command, *form])
    assert is_hidden(shown.output), shown.output
    assert shown.output


def test_no_page_shows_the_url(store: SqliteStore, settings: Settings) -> None:
    context = PageContext.of(Ingest(store), settings, known_secrets(settings))
    assert is_hidden(context.hide(SAID))


@pytest.mark.parametrize("path", ["tasks", "tasks/task-1", "deliveries"])
def test_no_response_of_the_api_shows_the_url(
    make_app: MakeApp, settings: Settings, path: str
) -> None:
    client = make_app(settings).test_client()
    shown = client.get(f"/api/{path}", headers={"Authorization": f"Bearer {API_TOKEN}"})
    assert shown.status_code == 200
    assert is_hidden(shown.get_data(as_text=True))
    assert shown.json


def test_no_line_of_the_log_shows_the_url(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    logs.configure(hiding(known_secrets(settings)), "json")
    try:
        structlog.get_logger().warning("a hook failed", url=URL, said=SAID, path=Path(URL))
    finally:
        logs.configure()
    shown = capsys.readouterr().err
    assert "a hook failed" in shown
    assert is_hidden(shown)


def test_neither_the_attempt_nor_the_alert_stores_the_url(
    store: SqliteStore, settings: Settings
) -> None:
    class Echoes:
        name = "mail"

        def send(self, _: object) -> Done:
            raise ContentFailure(SAID)

    hide = hiding(known_secrets(settings))
    Ingest(store, [subscription("mail")]).accept(callback(body("failed"), "task-2"))
    store.endpoints.resume("mail")
    (delivery,) = store.outbox.claim("w", NOW + 10_000, NOW + 20_000, 1)
    make_attempt(DeliveryWorker(store, {"mail": Echoes()}, hide=hide), delivery)
    (attempt,) = store.queries.attempts([delivery])[delivery.id]
    assert "Max retries" in attempt.answer
    assert is_hidden(attempt.answer)
    assert is_hidden(store.endpoints.of("mail").said or "")
