"""`receiver doctor`: its findings for a correct installation and for each fault."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from receiver.cli import main
from receiver.clock import now_ms
from receiver.deliveries import Attempt, State
from receiver.endpoints import Breaker, EndpointHealth
from receiver.ingest import Ingest
from receiver.signing.callback_urls import mint
from receiver.stores.sqlite import SqliteStore
from tests.support.hook_servers import Page, Site, dripping, smtp_server
from tests.support.ports import free_port
from tests.support.samples import SECRET, body, callback, subscription

OTHER_SECRET = "another-secret-of-the-tests"
WEBHOOK_SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
HOOKS = """
[[hook]]
name = "shop"
type = "webhook"
url = "{url}/in"
secrets = ["{secret}"]
allow_private = true
"""


@dataclass
class Doctor:
    """The command, and the installation that it checks."""

    folder: Path
    set: Callable[[str, str], None]

    def run(self, *arguments: str) -> Result:
        done = CliRunner().invoke(main, ["doctor", *arguments])
        assert isinstance(done.exception, SystemExit | None), done.exception
        return done

    def findings(self, *arguments: str) -> dict[str, tuple[str, str, str]]:
        """The last finding of each check: verdict, text, and advice."""
        found = json.loads(self.run("--json", *arguments).stdout)
        return {one["check"]: (one["verdict"], one["said"], one["todo"]) for one in found}


@contextmanager
def served(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as served_site:
        served_site.pages["/in"] = Page(b"taken")
        yield served_site


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> Doctor:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.setenv("HOOKS_FILE", str(tmp_path / "hooks.toml"))
    (tmp_path / "hooks.toml").touch()
    monkeypatch.setenv("KLING_BASE_URL", site.url)
    monkeypatch.delenv("PUBLIC_URL", raising=False)
    return Doctor(tmp_path, monkeypatch.setenv)


def write_hooks(doctor: Doctor, site: Site) -> None:
    text = HOOKS.format(url=site.url, secret=WEBHOOK_SECRET)
    (doctor.folder / "hooks.toml").write_text(text)


# -- a correct installation


def test_a_correct_installation_passes(
    doctor: Doctor, app: Flask, store: SqliteStore, site: Site
) -> None:
    write_hooks(doctor, site)
    store.activity.heartbeat("w", "worker", now_ms())
    store.activity.heartbeat("p", "poller", now_ms())
    with served(app) as url:
        doctor.set("PUBLIC_URL", url)
        done = doctor.run()
        found = doctor.findings()
    assert done.exit_code == 0
    assert "failed" not in done.output
    lines = done.stdout.splitlines()
    assert all(line.split()[0] in ("ok", "warning") for line in lines)
    assert [found[check][0] for check in ("settings", "clock", "disk", "database")] == ["ok"] * 4
    assert [found[check][0] for check in ("worker", "poller", "hook shop")] == ["ok"] * 3
    verdict, said, _ = found["public URL"]
    assert verdict == "warning"  # loopback, which no provider can reach
    assert "pong" in said
    assert "127.0.0.1 is not public" in said
    assert [request.path for request in site.requests if request.path == "/in"] == []


def test_the_self_check_records_nothing(client: FlaskClient, store: SqliteStore) -> None:
    nonce = "0123456789abcdef"
    path = f"/callbacks/doctor/{nonce}/{mint(SECRET, 'doctor', nonce)}"
    answer = client.post(path, data=body(), content_type="application/json")
    assert (answer.status_code, answer.data) == (200, b"pong")
    assert (store.lists.tasks(), store.lists.callbacks()) == ([], [])
    assert client.get(path).status_code == 405


def test_a_wrong_token_gets_the_response_of_an_unknown_path(client: FlaskClient) -> None:
    unknown = client.post("/no/such/path", json={})
    path = f"/callbacks/doctor/0123456789abcdef/{mint(OTHER_SECRET, 'doctor', 'x')}"
    answer = client.post(path, json={})
    assert (answer.status_code, answer.data) == (404, unknown.data)


def test_a_task_token_does_not_work_for_the_self_check_and_vice_versa(client: FlaskClient) -> None:
    of_task, of_doctor = mint(SECRET, "kling", "task-1"), mint(SECRET, "doctor", "task-1")
    assert client.post(f"/callbacks/doctor/task-1/{of_task}", json={}).status_code == 404
    assert client.post(f"/callbacks/kling/task-1/{of_doctor}", json={}).status_code == 404


# -- faults between provider and receiver


@pytest.mark.parametrize(
    ("page", "where", "says"),
    [
        (Page(b"", 301, {"Location": "https://shop.example/x"}), "the proxy", "https://shop.ex"),
        (Page(b"Bad Gateway", 502), "the proxy", "no server behind it"),
        (Page(b"who are you?", 401), "the proxy", "a login is required"),
        (Page(b"<h1>Not Found</h1>", 404), "the path", "not a response of the receiver"),
        (Page(b"<h1>Welcome</h1>", 200), "the path", "not a response of the receiver"),
    ],
)
def test_servers_in_front_of_the_receiver_are_distinguished(
    doctor: Doctor, store: SqliteStore, page: Page, where: str, says: str
) -> None:
    store.check_schema()

    class Everywhere(dict[str, Page]):
        def get(self, *_: object) -> Page:
            return page

    with Site() as front:
        front.pages = Everywhere()
        doctor.set("PUBLIC_URL", front.url)
        verdict, said, todo = doctor.findings()["public URL"]
    assert verdict == "failed"
    assert said.startswith(f"broke at {where}:")
    assert says in said
    assert todo


@pytest.mark.parametrize(
    ("url", "where"),
    [("https://no-such-name.invalid", "DNS"), ("http://127.0.0.1:{closed}", "TCP")],
)
def test_a_path_that_does_not_reach_the_receiver(
    doctor: Doctor, store: SqliteStore, url: str, where: str
) -> None:
    store.check_schema()
    doctor.set("PUBLIC_URL", url.format(closed=free_port()))
    done = doctor.run()
    assert done.exit_code == 1
    assert f"broke at {where}:" in done.output


def test_an_untrusted_certificate(doctor: Doctor, store: SqliteStore) -> None:
    store.check_schema()
    with Site(tls=True) as front:
        doctor.set("PUBLIC_URL", front.url)
        _, said, _ = doctor.findings()["public URL"]
    assert said.startswith("broke at TLS: the certificate:")


def test_a_port_without_tls(doctor: Doctor, store: SqliteStore, site: Site) -> None:
    store.check_schema()
    doctor.set("PUBLIC_URL", site.url.replace("http:", "https:"))
    _, said, _ = doctor.findings()["public URL"]
    assert said.startswith("broke at TLS: no handshake")


def test_a_connection_without_a_response(doctor: Doctor, store: SqliteStore) -> None:
    store.check_schema()
    with dripping(b"", then_wait=False) as port:
        doctor.set("PUBLIC_URL", f"http://127.0.0.1:{port}")
        _, said, _ = doctor.findings()["public URL"]
    assert said.startswith("broke at the proxy:")


def test_a_prefix_that_the_proxy_does_not_strip(
    doctor: Doctor, app: Flask, store: SqliteStore
) -> None:
    store.check_schema()
    with served(app) as url:
        doctor.set("PUBLIC_URL", f"{url}/shop")
        _, said, todo = doctor.findings()["public URL"]
    assert said.startswith("broke at the path:")
    assert "received the path /shop/callbacks/doctor/" in said
    assert "PUBLIC_URL" in todo


def test_a_secret_that_the_web_process_does_not_have(
    doctor: Doctor, app: Flask, store: SqliteStore
) -> None:
    store.check_schema()
    doctor.set("CALLBACK_SECRETS", OTHER_SECRET)
    with served(app) as url:
        doctor.set("PUBLIC_URL", url)
        _, said, todo = doctor.findings()["public URL"]
    assert said.startswith("broke at the token:")
    assert "CALLBACK_SECRETS" in todo


def test_a_response_of_another_installation(
    doctor: Doctor,
    app: Flask,
    tmp_path: Path,
    migrated: Callable[[Path], SqliteStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("receiver.doctor.reach.NOTED_WITHIN", 0.5)  # nothing is recorded
    doctor.set("CALLBACK_SECRETS", OTHER_SECRET)
    (tmp_path / "own").mkdir()
    migrated(tmp_path / "own" / "receiver.db").close()
    doctor.set("DATABASE_URL", f"sqlite:///{tmp_path / 'own' / 'receiver.db'}")
    with served(app) as url:
        doctor.set("PUBLIC_URL", url)
        _, said, _ = doctor.findings()["public URL"]
    assert "a receiver that is not this one" in said


# -- settings, database, disk, clock, processes


def test_invalid_settings_are_reported_and_the_checks_continue(doctor: Doctor, site: Site) -> None:
    doctor.set("DATABASE_URL", "mysql://root:secret@x/y")
    doctor.set("WORKER_CONCURRENCY", "many")
    write_hooks(doctor, site)
    done = doctor.run()
    assert done.exit_code == 1
    failed = [line for line in done.output.splitlines() if line.startswith("failed")]
    assert ["DATABASE_URL" in failed[0], "WORKER_CONCURRENCY" in failed[1]] == [True, True]
    assert "secret" not in done.output
    assert "ok       hook shop" in done.output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "sqlite:///{folder}"),  # a folder
        ("DATABASE_URL", "sqlite:////dev/null/receiver.db"),
        ("DATABASE_URL_FILE", "/no/such/file"),
        ("HOOKS_FILE", "{folder}"),
        ("HOOKS_FILE", "{folder}/missing.toml"),
        ("PUBLIC_URL", "https://a..b"),
        ("PUBLIC_URL", "http://[::1"),
        ("PUBLIC_URL", "http://[fe80::1]:9"),
        ("PUBLIC_URL", "http://" + "a" * 300 + ".example"),
        ("CALLBACK_SECRETS", "short"),
    ],
)
def test_every_exception_is_a_finding(
    doctor: Doctor, store: SqliteStore, name: str, value: str
) -> None:
    store.check_schema()
    doctor.set(name, value.format(folder=doctor.folder))
    done = doctor.run()
    assert done.exit_code == 1
    assert "failed" in done.stdout


@pytest.mark.parametrize("url", ["nonsense", "http://[::1", "ftp://x.example", "http://a..b"])
def test_a_clock_that_cannot_be_compared_is_a_warning(
    doctor: Doctor, store: SqliteStore, url: str
) -> None:
    store.check_schema()
    doctor.set("KLING_BASE_URL", url)
    verdict, said, _ = doctor.findings()["clock"]
    assert (verdict, said.startswith("not compared")) == ("warning", True)


def test_a_missing_database_is_reported(doctor: Doctor) -> None:
    done = doctor.run()
    assert done.exit_code == 1
    assert "does not exist yet; run: receiver migrate" in done.output


def test_a_missing_folder_is_reported(doctor: Doctor) -> None:
    doctor.set("DATABASE_URL", f"sqlite:///{doctor.folder}/none/receiver.db")
    verdict, said, todo = doctor.findings()["disk"]
    assert (verdict, todo) == ("failed", "run: receiver migrate")
    assert "none does not exist" in said


def test_a_file_that_is_not_a_database_is_reported(doctor: Doctor) -> None:
    (doctor.folder / "receiver.db").write_bytes(b"not a database" * 1000)
    verdict, said, _ = doctor.findings()["database"]
    assert verdict == "failed"
    assert "not a database" in said


def test_a_wrong_clock_is_reported(doctor: Doctor, store: SqliteStore) -> None:
    store.check_schema()
    old = b"HTTP/1.1 200 OK\r\nDate: Fri, 12 Dec 2025 06:10:51 GMT\r\nContent-Length: 0\r\n\r\n"
    with dripping(old, pause=0) as port:
        doctor.set("KLING_BASE_URL", f"http://127.0.0.1:{port}")
        verdict, said, todo = doctor.findings()["clock"]
    assert verdict == "failed"
    assert "ahead of" in said
    assert "timedatectl" in todo


def test_processes_that_do_not_run_are_reported(doctor: Doctor, store: SqliteStore) -> None:
    Ingest(store, [subscription("mail")]).accept(callback(body()))
    store.activity.heartbeat("p", "poller", now_ms() - 3_600_000)
    found = doctor.findings()
    assert "nothing is delivered (1 delivery waits)" in found["worker"][1]
    assert "for 3600 s" in found["poller"][1]
    assert {found[kind][0] for kind in ("worker", "poller")} == {"warning"}


# -- hooks


def test_a_missing_hook_and_a_rejected_file_are_warnings(
    doctor: Doctor, store: SqliteStore
) -> None:
    Ingest(store, [subscription("gone")]).accept(callback())
    store.activity.report_problem("host:1", "poller", "hooks.toml: is not TOML", now_ms())
    found = doctor.run().stdout
    assert "it is not in the hooks file; deliveries that wait for it: 1; add it" in found
    assert (
        "rejected at the last SIGHUP by the poller; the previous one is used: hooks.toml" in found
    )
    (doctor.folder / "hooks.toml").write_text("half a fi")
    assert "rejected at the last SIGHUP by the poller" in doctor.run().stdout


def test_a_hook_that_cannot_be_built_is_reported(doctor: Doctor, store: SqliteStore) -> None:
    store.check_schema()
    (doctor.folder / "hooks.toml").write_text(
        '[[hook]]\nname = "chat"\ntype = "slack"\nurl = "${NO_SUCH_NAME}"\n'
    )
    verdict, said, _ = doctor.findings()["hook chat"]
    assert verdict == "failed"
    assert "NO_SUCH_NAME is not set" in said


def test_a_disabled_hook_is_reported(doctor: Doctor, store: SqliteStore, site: Site) -> None:
    write_hooks(doctor, site)
    Ingest(store, [subscription("shop")]).accept(callback(body()))
    (delivery,) = store.outbox.claim("w", now_ms(), now_ms() + 1000, 1)
    attempt = Attempt(1, 1, 2, "failed", "410 Gone")
    store.outbox.settle(
        delivery,
        attempt,
        State.DEAD,
        None,
        change=lambda endpoint: Breaker().after(endpoint, EndpointHealth.GONE, 2, "410 Gone"),
    )
    verdict, said, todo = doctor.findings()["hook shop"]
    assert (verdict, said) == ("failed", "disabled: 410 Gone")
    assert "receiver endpoints resume shop" in todo


def test_a_hook_whose_last_attempts_were_refused_is_reported(
    doctor: Doctor, store: SqliteStore, site: Site
) -> None:
    write_hooks(doctor, site)
    Ingest(store, [subscription("shop")]).accept(callback(body()))
    (delivery,) = store.outbox.claim("w", now_ms(), now_ms() + 1000, 1)
    attempt = Attempt(1, 1, 2, "failed", "https://shop.example answered 401 No")
    store.outbox.settle(delivery, attempt, State.DEAD, None)
    verdict, said, todo = doctor.findings()["hook shop"]
    assert (verdict, said) == ("warning", f"the last attempt failed: {attempt.answer}")
    assert todo == (
        "check that the endpoint uses the same secret as the hook, then: receiver hooks test shop"
    )


def test_only_send_sends_events_and_they_are_marked_as_tests(
    doctor: Doctor, store: SqliteStore, site: Site
) -> None:
    write_hooks(doctor, site)
    doctor.run()
    assert not any(request.path == "/in" for request in site.requests)
    verdict, said, _ = doctor.findings("--send")["hook shop"]
    assert (verdict, "answered 200 taken" in said) == ("ok", True)
    (sent,) = [request for request in site.requests if request.path == "/in"]
    event = json.loads(sent.body)
    assert event["test"] is True
    assert event["task"]["reference"] == "TEST"
    assert event["id"].startswith("test-")
    assert (store.lists.tasks(), store.lists.deliveries()) == ([], [])


def test_a_test_event_shows_times_in_the_local_time_zone(
    doctor: Doctor, store: SqliteStore, site: Site
) -> None:
    store.check_schema()
    doctor.set("TIMEZONE", "Asia/Kathmandu")
    site.pages["/chat"] = Page(b"ok")
    chat = f'name = "chat"\ntype = "slack"\nurl = "{site.url}/chat"\nallow_private = true\n'
    (doctor.folder / "hooks.toml").write_text(f"[[hook]]\n{chat}")
    doctor.run("--send")
    (sent,) = [request for request in site.requests if request.path == "/chat"]
    assert b"+0545" in sent.body


def test_a_failed_test_event_exits_with_1(doctor: Doctor, store: SqliteStore, site: Site) -> None:
    store.check_schema()
    write_hooks(doctor, site)
    site.pages["/in"] = Page(b"no", 500)
    done = doctor.run("--send")
    assert done.exit_code == 1
    assert "the test event failed" in done.output


def test_a_test_download_leaves_no_file(doctor: Doctor, store: SqliteStore) -> None:
    store.check_schema()
    pictures = doctor.folder / "pictures"
    (doctor.folder / "hooks.toml").write_text(
        f'[[hook]]\nname = "pictures"\ntype = "download"\nto = "{pictures}"\n'
    )
    verdict, said, _ = doctor.findings("--send")["hook pictures"]
    assert verdict == "ok"
    assert "was written, and removed again" in said
    assert list(pictures.rglob("*")) == [pictures / "kling"]  # as after a result, without the file


def test_a_test_message_contains_the_picture(doctor: Doctor, store: SqliteStore) -> None:
    store.check_schema()
    with smtp_server() as box:
        (doctor.folder / "hooks.toml").write_text(
            f'[[hook]]\nname = "mail"\ntype = "email"\nhost = "127.0.0.1"\nport = {box.port}\n'
            'from = "a@shop.example"\nto = "b@shop.example"\n'
        )
        assert doctor.findings("--send")["hook mail"][0] == "ok"
    ((_, letter),) = box.letters
    assert letter["Subject"] == "TEST succeeded"
    pictures = [part for part in letter.walk() if part.get_content_maintype() == "image"]
    starts = [picture.get_content()[:4] for picture in pictures]
    assert starts == [b"\xff\xd8\xff\xe0", b"\x89PNG"]  # the preview, and the original
