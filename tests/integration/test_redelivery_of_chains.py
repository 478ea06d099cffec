"""Everything that redelivers lets a hook wait again for the one whose output it uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from receiver.cli import main
from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.deliveries import Attempt, State
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import MakeApp
from tests.support.dashboard_visits import PASSWORD, act, log_in
from tests.support.samples import SECRET, body, callback, subscription

HOOKS = """
[[hook]]
name = "cutout"
type = "command"
command = ["true"]

[[hook]]
name = "shop"
type = "slack"
url = "https://hooks.example/x"
text = "{{ outputs.cutout.url }}"
"""
TOKEN = "a-token-for-the-tests"


def by_number(numbers: dict[str, int], client: FlaskClient) -> None:  # noqa: ARG001
    done = CliRunner().invoke(main, ["redeliver", str(numbers["cutout"]), str(numbers["shop"])])
    assert done.exit_code == 0, done.output


def by_option(numbers: dict[str, int], client: FlaskClient) -> None:  # noqa: ARG001
    for hook in ("cutout", "shop"):
        done = CliRunner().invoke(main, ["redeliver", "--hook", hook])
        assert done.exit_code == 0, done.output


def by_request(numbers: dict[str, int], client: FlaskClient) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for hook in ("cutout", "shop"):
        path = f"/api/deliveries/{numbers[hook]}/redeliver"
        assert client.post(path, headers=bearer).status_code == 202


def by_selection(numbers: dict[str, int], client: FlaskClient) -> None:  # noqa: ARG001
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    wanted = {"since": "1d", "dry_run": False}
    answer = client.post("/api/deliveries/redeliver", json=wanted, headers=bearer)
    assert answer.get_json()["redelivered"] == 2


def by_button(numbers: dict[str, int], client: FlaskClient) -> None:
    for hook in ("cutout", "shop"):
        act(client, f"/dashboard/deliveries/{numbers[hook]}/redeliver")


def by_form(numbers: dict[str, int], client: FlaskClient) -> None:  # noqa: ARG001
    act(client, "/dashboard/redeliver", state="dead", since="2h")


@pytest.mark.parametrize(
    "redeliver", [by_number, by_option, by_request, by_selection, by_button, by_form]
)
def test_a_hook_waits_again_for_the_output_that_it_uses(
    store: SqliteStore,
    make_app: MakeApp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    redeliver: Callable[[dict[str, int], FlaskClient], None],
) -> None:
    hooks = tmp_path / "hooks.toml"
    hooks.write_text(HOOKS)
    url, now = f"sqlite:///{tmp_path / 'receiver.db'}", now_ms()
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(hooks))
    chain = (subscription("cutout"), subscription("shop", after="cutout"))
    Ingest(store, chain).accept(callback(body(), received_at=now))
    for _ in chain:
        for delivery in store.outbox.claim("w", now, now + 1000, 9):
            store.outbox.settle(delivery, Attempt(1, now, now, "failed", "no"), State.DEAD, None)
    client = make_app(
        Settings(url, (SECRET,), hooks_file=hooks, api_token=TOKEN, dashboard_password=PASSWORD)
    ).test_client()
    log_in(client, PASSWORD)
    redeliver({one.hook: one.id for one in store.lists.deliveries()}, client)
    found = {one.hook: (one.state, one.due_at is None) for one in store.lists.deliveries()}
    assert found == {"cutout": (State.PENDING, False), "shop": (State.PENDING, True)}
