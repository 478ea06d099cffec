"""Every page, API response and command shows any text and timestamp on record."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import structlog
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

import receiver.cli
import submitter.cli
from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.console import output
from receiver.console import records as tables
from receiver.deliveries import Notice
from receiver.endpoints import Alert, AlertKind
from receiver.hooks import mime_message, slack, wording
from receiver.observability import logs
from receiver.observability.metrics import Sample
from receiver.serializers import records
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql.activity import ActivityKind
from receiver.stores.sqlite import SqliteStore
from receiver.web import problems
from submitter import api
from tests.support.applications import MakeApp
from tests.support.dashboard_visits import PASSWORD, log_in, token
from tests.support.hostile_record import (
    MOMENTS,
    TEXT,
    TEXTS,
    moved,
    poisoned,
    poisoned_postgres,
    replaced_bodies,
)
from tests.support.rich_record import fill
from tests.support.samples import SECRET

ROUTES = (api.blueprint,)
for error_of_api, status_of_error in api.STATUS.items():
    problems.register(error_of_api, status_of_error)
API_TOKEN = "a-token-for-the-tests"
AUTH = {"Authorization": f"Bearer {API_TOKEN}"}
HOOKS = """
[[hook]]
name = "pictures"
type = "download"
to = "data/pictures"

[[hook]]
name = "mail"
type = "email"
after = ""
host = "mail.example"
from = "a@shop.example"
to = ["b@shop.example"]
subject = "{{ task.reference | one_line }}"
text = "{{ task }} {{ media }}"
html = "<p>{{ task }} {{ media }}</p>"
"""
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# These run until they are stopped, send something, or change the record permanently.
OTHER_COMMANDS = {
    *("serve", "worker", "tail", "doctor", "copy", "completion", "migrate", "forget", "prune"),
    *("hooks test", "submit", "batch", "list", "reconcile"),
    *("endpoints pause", "endpoints resume", "endpoints drop"),
}


@dataclass
class Site:
    """A web application with a record, and requests to all of its routes."""

    app: Flask
    store: Store
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = self.app.test_client()
        self.client.environ_base["REMOTE_ADDR"] = "203.0.113.5"
        log_in(self.client, PASSWORD)
        # A stream ends after the events on record, instead of waiting for new ones.
        self.app.extensions["live"].is_serving = lambda: False
        self.deliveries = [one.id for one in self.store.lists.deliveries(limit=99)]
        self.tasks = [task.id for task in self.store.lists.tasks(limit=99)]
        self.callbacks = [one.id for one in self.store.lists.callbacks(limit=99)]

    @cached_property
    def csrf_token(self) -> str:
        return token(self.client.get("/dashboard/").text)

    def values(self, name: str) -> list[Any]:
        """Return the values of a path parameter. A new kind of parameter has to be added here."""
        known: dict[str, list[Any]] = {
            "task_id": self.tasks,
            "delivery_id": self.deliveries,
            "delivery": self.deliveries,
            "callback_id": self.callbacks,
            "hook": [*(one.hook for one in self.store.endpoints.all()), "pictures"],
            "index": ["0"],
            "name": ["human"],
            "provider": ["kling"],
            "token": ["token"],
            "nonce": ["nonce"],
            "filename": ["dashboard.css"],
            "_": ["nothing"],
        }
        return known[name][:20] or ["1"]

    def visit(self) -> None:
        """Request everything that can be read."""
        for rule in self.app.url_map.iter_rules():
            if "GET" not in (rule.methods or ()):
                continue
            for path in self.paths(rule):
                self.check(path, self.client.get(path, headers=AUTH))
        events = self.client.get("/api/events?last_event_id=events-0", headers=AUTH)
        assert events.text.count("\ndata: ") > 5
        self.check("/api/events", events)

    def search(self) -> None:
        """Request the lists with a hostile text as each filter."""
        for name in ("hook", "reference", "q", "provider", "state", "status", "since"):
            for path in ("/api/tasks", "/api/deliveries", "/dashboard/tasks", "/dashboard/dead"):
                self.check(path, self.client.get(path, query_string={name: TEXT}, headers=AUTH))

    def paths(self, rule: Rule) -> Iterator[str]:
        names = sorted(rule.arguments)
        for turn in range(max([len(self.values(name)) for name in names], default=1)):
            parts = {name: self.values(name)[turn % len(self.values(name))] for name in names}
            path = rule.rule
            for name, value in parts.items():
                path = re.sub(rf"<(?:[^<>]*:)?{name}>", quote(str(value), safe=""), path)
            yield path

    def check(self, path: str, response: TestResponse) -> None:
        if response.status_code >= 500:
            self.faults.append(f"{path}: {response.status_code} {response.text[:200]}")
        kind = response.mimetype or ""
        if kind.endswith("json"):
            _check_json(response.text)
        elif kind == "text/event-stream":
            for line in response.text.splitlines():
                if line.startswith("data: "):
                    _check_json(line.removeprefix("data: "))
        elif kind.startswith("text/"):
            response.data.decode()  # no truncated characters
        response.close()


def _check_json(text: str) -> None:
    """Check that every parser accepts the text, which has no NaN and no unpaired surrogate."""
    document = json.loads(text, parse_constant=pytest.fail)
    json.dumps(document, ensure_ascii=False).encode()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / "hooks.toml").write_text(HOOKS)
    environment = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}",
        "CALLBACK_SECRETS": SECRET,
        "PUBLIC_URL": "https://shop.example",
        "HOOKS_FILE": str(tmp_path / "hooks.toml"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(
        environment["DATABASE_URL"],
        (SECRET,),
        hooks_file=tmp_path / "hooks.toml",
        api_token=API_TOKEN,
        dashboard_password=PASSWORD,
        timezone="Pacific/Kiritimati",
    )


@pytest.fixture(scope="module")
def full_record(
    tmp_path_factory: pytest.TempPathFactory, migrated: Callable[[Path], SqliteStore]
) -> Path:
    folder = tmp_path_factory.mktemp("full")
    with closing(migrated(folder / "receiver.db")) as store:
        fill(store, folder / "pictures", now_ms())
        store.inbox.keep_inputs("task-processing", {"human": b"small"})
        store.metrics.add([Sample("callbacks", ("kling", "succeeded", "recorded"), 1)], [])
        store.idempotency.claim("key", b"digest", "task-new", now_ms(), now_ms() + 1)
    return folder / "receiver.db"


@pytest.fixture
def database(full_record: Path, tmp_path: Path) -> Path:
    """A full record, most of whose columns accept any text, because SQLite checks only some.

    It is copied, because filling one for each test takes longer.
    """
    for file in full_record.parent.glob(f"{full_record.name}*"):
        shutil.copy(file, tmp_path)
    return tmp_path / full_record.name


Visit = Callable[[], Site]


@pytest.fixture
def visit(settings: Settings, make_app: MakeApp, database: Path) -> Visit:
    def visited() -> Site:
        with closing(SqliteStore(database)) as store:
            site = Site(make_app(settings, ROUTES), store)
            site.visit()
            return site

    return visited


@pytest.mark.parametrize("turn", range(0, len(TEXTS), 2))
def test_every_page_shows_every_text_and_message(visit: Visit, database: Path, turn: int) -> None:
    assert len(poisoned(database, turn)) > 25
    replaced_bodies(database, turn)
    site = visit()
    site.search()
    assert site.faults == []


@pytest.mark.parametrize("turn", range(0, len(MOMENTS), 4))
def test_every_page_shows_every_timestamp(visit: Visit, database: Path, turn: int) -> None:
    assert len(moved(database, turn)) > 20
    assert visit().faults == []


@pytest.mark.parametrize("hours", [-48, -24, 1, 48, 99_999_999])
def test_the_overview_shows_callbacks_of_every_hour(
    settings: Settings, make_app: MakeApp, store: SqliteStore, tmp_path: Path, hours: int
) -> None:
    """This includes timestamps that were recorded while the clock was ahead."""
    fill(store, tmp_path / "pictures", now_ms() + hours * 3_600_000)
    browser = make_app(settings).test_client()
    log_in(browser, PASSWORD)
    assert browser.get("/dashboard/").status_code == 200


def test_a_postgres_record_is_shown_as_well(
    settings: Settings,
    make_app: MakeApp,
    fresh: Callable[[], str],
    tmp_path: Path,
) -> None:
    url = fresh()
    with closing(PostgresStore(url)) as store:
        fill(store, tmp_path / "pictures", now_ms())
        assert len(poisoned_postgres(url, MOMENTS["far in the future"])) > 40
        chosen = {**{name: getattr(settings, name) for name in settings.__slots__}}
        site = Site(make_app(Settings(**{**chosen, "database_url": url}), ROUTES), store)
        site.visit()
        site.search()
    assert site.faults == []


# -- hostile requests


def _fields(value: object) -> dict[str, object]:
    names = ("task", "hook", "provider", "status", "state", "since", "until", "dry_run", "odd")
    return {**dict.fromkeys(names, value), f"odd{value!s:.9}": value}


SAID = ["\ud800", "a\udfff\ud800", "\0", TEXT, "x" * 100_000, 1e308, 10**400, [["\ud800"]], None]


@pytest.mark.parametrize("said", SAID, ids=lambda said: repr(said)[:20])
def test_no_request_breaks_a_response(
    settings: Settings, make_app: MakeApp, database: Path, said: object
) -> None:
    with closing(SqliteStore(database)) as store:
        site = Site(make_app(settings, ROUTES), store)
        for rule in site.app.url_map.iter_rules():
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                _ask(site, method, next(site.paths(rule)), said)
        assert site.faults == []


def _ask(site: Site, method: str, path: str, said: object) -> None:
    client: FlaskClient = site.client
    odd = quote(str(said)[:500].encode("utf-8", "surrogatepass"), safe="")
    asked = client.open(f"{path}{odd}", method=method, headers=AUTH)
    site.check(path, asked)
    query = "&".join(f"{name}={odd}" for name in ("task", "q", "cursor", "before", "since", "hook"))
    site.check(path, client.open(f"{path}?{query}", method=method, headers=AUTH))
    if method == "GET" or path.endswith(("login", "logout")):
        return
    form = {"csrf_token": site.csrf_token}
    texts = {
        name: str(value).encode("utf-8", "replace")
        for name, value in _fields(said).items()
        if name.isascii()
    }
    site.check(path, client.open(path, method=method, data={**texts, **form}, headers=AUTH))
    for fields in (_fields(said), *({name: value} for name, value in _fields(said).items())):
        if path.startswith("/api/"):
            raw = json.dumps(fields)
            kind = "application/json"
            site.check(path, client.post(path, data=raw, content_type=kind, headers=AUTH))


# -- commands


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    if isinstance(command, click.Group):
        for name in command.commands:
            yield from _commands(command.commands[name], (*path, name))
        if not command.invoke_without_command:
            return
    if " ".join(path) in OTHER_COMMANDS:
        return
    given = {"task": "{task}", "provider": "kling", "hook": "pictures", "name": "mail"}
    arguments = []
    for parameter in command.params:
        if parameter.required:
            name = given[parameter.name or ""]
            arguments += (
                [name] if isinstance(parameter, click.Argument) else [parameter.opts[0], name]
            )
    yield [*path, *arguments, *MORE.get(" ".join(path), ())]
    if any(parameter.name == "as_json" for parameter in command.params):
        yield [*path, *arguments, *MORE.get(" ".join(path), ()), "--json"]


MORE = {
    "replay": ("--quarantined", "--dry-run"),
    "redeliver": ("--task", "{task}", "--dry-run"),
    "hooks render": ("--task", "{task}"),
}
PROGRAMS = {"receiver": receiver.cli.main, "submitter": submitter.cli.main}


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("turn", [0, 5])
def test_every_command_shows_every_text_and_timestamp(
    database: Path, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(database.parent)  # `receiver init` writes into the working directory
    poisoned(database, turn)
    replaced_bodies(database, turn)
    moved(database, turn)
    _run_all(database)


def _run_all(database: Path) -> None:
    original = database.with_suffix(".original")
    shutil.copy(database, original)
    for name, program in PROGRAMS.items():
        for arguments in _commands(program):
            tasks = ("task-hostile", "task-succeeded") if "{task}" in arguments else ("",)
            for task in tasks:
                shutil.copy(original, database)
                _run(name, program, [part.format(task=task) for part in arguments])


def _run(name: str, program: click.Command, arguments: list[str]) -> None:
    done = CliRunner(charset="utf-8").invoke(program, arguments)
    shown = f"{name} {' '.join(arguments)}: {done.output[-500:]}"
    assert done.exception is None or isinstance(done.exception, SystemExit), shown
    assert done.exit_code in (0, 1), shown
    assert not STEERING.search(done.output), shown
    done.output.encode()
    if arguments[-1] == "--json" and done.exit_code == 0:
        _check_json(done.stdout)


def test_tail_shows_every_text(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text is as `receiver tail` shows it."""
    poisoned(database)
    moved(database)
    with closing(SqliteStore(database)) as opened:
        for kind in ActivityKind:
            tables.show_activity(opened.activity.newest(kind))
            shown = capsys.readouterr().out
            assert shown
            assert not STEERING.search(shown)
            output.as_json_lines(map(records.activity_json, opened.activity.newest(kind)))
            for line in capsys.readouterr().out.splitlines():
                _check_json(line)


def test_every_command_is_run_or_excluded_with_a_reason() -> None:
    found = {arguments[0] for program in PROGRAMS.values() for arguments in _commands(program)}
    assert {"tasks", "callbacks", "deliveries", "rejections", "costs", "status"} <= found


# -- log lines, e-mail and chat


@pytest.mark.parametrize("form", ["json", "console"])
def test_every_log_line_shows_every_text(capsys: pytest.CaptureFixture[str], form: str) -> None:
    logs.configure(form=form)
    text = TEXT + "\ud800\0"
    try:
        int(text)
    except ValueError:
        structlog.get_logger().exception(text, said=text, **{text: [text, {text: text}]})
    with structlog.contextvars.bound_contextvars(task=text):
        structlog.get_logger().info("x", raw=text.encode("utf-8", "surrogatepass"))
    written = capsys.readouterr().err
    written.encode()
    assert not STEERING.search(written)
    if form == "json":
        for line in written.splitlines():
            _check_json(line)


SENT: dict[str, Any] = {
    "sender": mime_message.address("a@shop.example"),
    "recipients": [mime_message.address("b@shop.example")],
    "now": 1_765_519_851.0,
}


@pytest.mark.parametrize("turn", range(0, len(MOMENTS), 4))
def test_every_notification_shows_every_text_and_timestamp(database: Path, turn: int) -> None:
    poisoned(database, turn)
    moved(database, turn)
    with closing(SqliteStore(database)) as opened:
        for task in opened.lists.tasks():
            history = opened.queries.history(task.id)
            files = tuple(file for found in history.files.values() for file in found)
            for move in history.transitions:
                notice = Notice(task, move, files=files)
                mails = mime_message.versions(
                    notice, hook="mail", subject="{reference}: {status}", **SENT
                )
                for mail in mails:
                    mail.as_bytes().decode("ascii")
                json.dumps(slack.compose(notice), ensure_ascii=False).encode()
                assert not STEERING.search(wording.title(notice))
    alert = Alert(1, TEXT + "\ud800", AlertKind.PAUSED, MOMENTS["year 10000"], TEXT + "\ud800\0")
    mime_message.alert_message(alert, **SENT).as_bytes().decode("ascii")
