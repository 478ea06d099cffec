"""The whole installation under `receiver serve`: ended processes and reloads lose no callback."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from receiver.deliveries import State
from sandbox.server import Sandbox
from tests.support.forked_children import words_of
from tests.support.gunicorn_processes import send
from tests.support.http_server import LoopbackServer
from tests.support.installation import Installation
from tests.support.patience import PATIENCE

HOOK = '[[hook]]\nname = "{name}"\ntype = "webhook"\nurl = "{url}"\nallow_private = true\n'
HOOK += 'secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr"]\n'


@pytest.fixture(scope="module")
def consumer() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    server = LoopbackServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/in"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, consumer: str) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("serving")
    with Sandbox(pace=0.3) as sandbox:
        installation = Installation(folder, sandbox)
        installation.migrate()
        (folder / "hooks.toml").write_text(HOOK.format(name="shop", url=consumer))
        installation.start("serve", "receiver", "serve", "--bind", f"127.0.0.1:{installation.port}")
        try:
            installation.wait_until_ready()
            installation.wait_until(
                lambda: (
                    installation.store.activity.last_seen("worker")
                    and installation.store.activity.last_seen("poller")
                )
            )
            yield installation
        finally:
            installation.close()


def hang_up(serving: Installation, text: str, readers: int = 4) -> None:
    """Write the hooks file, send SIGHUP, and wait until the processes have read it.

    The readers are the three processes and `serve` itself. If the web process uses the new file,
    its workers with the previous one have ended afterwards.
    """
    before, of_web, workers = reloads(serving), reloads_of_web(serving), web_workers(serving)
    (serving.folder / "hooks.toml").write_text(text)
    serving.running["serve"].send_signal(signal.SIGHUP)
    serving.wait_until(lambda: reloads(serving) == before + readers)
    if reloads_of_web(serving) > of_web:
        serving.wait_until(lambda: not workers & web_workers(serving))


def reloads(serving: Installation) -> int:
    log = serving.logs_of("serve")
    return log.count("the hooks file was re")


def reloads_of_web(serving: Installation) -> int:
    return serving.logs_of("serve").count("the hooks file was reloaded (process web)")


def web_workers(serving: Installation) -> set[str]:
    """Return the process ids of the workers of the web process."""
    web = child(serving, "web")
    return set(Path(f"/proc/{web}/task/{web}/children").read_text().split())


def child(serving: Installation, word: str) -> int:
    """Return the process id of the child of `serve` with this word in its command."""
    (found,) = children(serving, word)
    return found


def children(serving: Installation, word: str) -> list[int]:
    serve = serving.running["serve"].pid
    found = Path(f"/proc/{serve}/task/{serve}/children").read_text().split()
    return [int(pid) for pid in found if word in words_of(pid)]


def test_callbacks_are_accepted_while_the_worker_and_the_poller_are_restarted(
    serving: Installation,
) -> None:
    for word in ("worker", "reconcile"):
        dead = child(serving, word)
        os.kill(dead, signal.SIGKILL)
        serving.wait_until(lambda dead=dead: not Path(f"/proc/{dead}").exists())  # type: ignore[misc]
        assert send(serving, f"while-{word}").status_code == 200
    for word in ("worker", "reconcile"):
        serving.settled(f"while-{word}")
        serving.wait_until(lambda word=word: children(serving, word))  # type: ignore[misc]
    assert {found.state for found in serving.store.lists.deliveries()} == {State.DELIVERED}


def test_a_reload_refuses_no_connection_and_uses_the_new_hooks(
    serving: Installation, consumer: str
) -> None:
    stop = threading.Event()
    statuses: list[int] = []

    def knock() -> None:
        while not stop.is_set():
            answer = requests.get(f"{serving.url}/healthz", timeout=PATIENCE)
            statuses.append(answer.status_code)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    both = HOOK.format(name="shop", url=consumer) + HOOK.format(name="books", url=consumer)
    for _ in range(2):
        hang_up(serving, both)
    accepted = len(statuses)
    serving.wait_until(lambda: len(statuses) > accepted or not thread.is_alive())
    stop.set()
    thread.join(PATIENCE)
    assert set(statuses) == {200}  # a refused connection would have ended the thread
    assert len(statuses) > accepted
    assert send(serving, "for-both").status_code == 200
    serving.settled("for-both")
    found = serving.store.lists.deliveries(task_id="for-both")
    assert {delivery.hook for delivery in found} == {"shop", "books"}


def test_deliveries_of_a_removed_hook_wait_until_it_is_back(
    serving: Installation, consumer: str
) -> None:
    shop, books = (HOOK.format(name=name, url=consumer) for name in ("shop", "books"))
    broken = HOOK.format(name="books", url=f"http://127.0.0.1:{serving.port}/nowhere")
    hang_up(serving, shop + broken)
    assert send(serving, "early").status_code == 200

    def is_retried() -> bool:
        return any(found.attempts for found in serving.store.lists.deliveries(task_id="early"))

    serving.wait_until(is_retried)
    hang_up(serving, shop)

    def is_shown_as_waiting() -> bool:  # not while the last attempt is running
        found = serving.run("receiver", "deliveries", "--hook", "books", "--json").stdout
        return '"waits_for_missing_hook": true' in found

    serving.wait_until(is_shown_as_waiting)
    doctor = serving.run("receiver", "doctor").stdout
    assert "it is not in the hooks file; deliveries that wait for it: 1" in doctor
    hang_up(serving, shop + books)
    serving.settled("early")
    (waited,) = serving.store.lists.deliveries(task_id="early", hook="books")
    assert waited.state is State.DELIVERED


def test_no_process_uses_a_file_whose_options_the_worker_rejects(
    serving: Installation, consumer: str
) -> None:
    hang_up(serving, HOOK.format(name="shop", url=consumer))
    added = HOOK.format(name="added", url=consumer) + HOOK.format(name="wrong", url="not a URL")
    reloaded = serving.logs_of("serve").count("the hooks file was reloaded")
    hang_up(serving, HOOK.format(name="shop", url=consumer) + added, readers=2)
    assert send(serving, "rejected-options").status_code == 200
    found = serving.store.lists.deliveries(task_id="rejected-options")
    assert {delivery.hook for delivery in found} == {"shop"}
    serving.wait_until(
        lambda: {one.kind for one in serving.store.activity.process_problems(0)} == {"worker"}
    )
    assert serving.logs_of("serve").count("the hooks file was reloaded") == reloaded
    hang_up(serving, HOOK.format(name="shop", url=consumer))
    serving.wait_until(lambda: not serving.store.activity.process_problems(0))


def test_the_first_block_names_the_process_that_takes_sighup(serving: Installation) -> None:
    line = f"kill -HUP {serving.running['serve'].pid} makes all processes read the hooks file again"
    serving.wait_until(lambda: line in serving.logs_of("serve"))


def test_an_invalid_file_changes_nothing_and_is_reported(
    serving: Installation, consumer: str
) -> None:
    hang_up(serving, '[[hook]]\nname = "sh')
    serving.wait_until(
        lambda: (
            {one.kind for one in serving.store.activity.process_problems(0)}
            == {"web", "worker", "poller"}
        )
    )
    # the next worker must not read the file either
    os.kill(child(serving, "worker"), signal.SIGKILL)
    assert send(serving, "meanwhile").status_code == 200
    serving.wait_until(
        lambda: (
            [
                found.state
                for found in serving.store.lists.deliveries(task_id="meanwhile", hook="shop")
            ]
            == [State.DELIVERED]
        )
    )
    doctor = serving.run("receiver", "doctor").stdout
    assert "at the last SIGHUP by the poller, the web process and the worker;" in doctor
    hang_up(serving, HOOK.format(name="shop", url=consumer))
    serving.wait_until(
        lambda: (
            not serving.store.activity.process_problems(0)
            or {one.kind for one in serving.store.activity.process_problems(0)} == {"worker"}
        )  # the problem of the killed process
    )


CUTOUT = """
[[hook]]
name = "cutout"
type = "command"
command = [
  "sh", "-c", "cd {folder}; touch started; until test -e go; do sleep 0.1; done; echo '{score}'"
]
"""


def test_a_running_chain_continues_with_the_new_file(serving: Installation, consumer: str) -> None:
    """The running attempt ends as it began, and the hook that waits for it has the new filter."""
    first, new = ('{\\"score\\": 0.7}', '{\\"score\\": 0.1}')
    shop = (
        HOOK.format(name="shop", url=consumer)
        + 'where = {{ "outputs.cutout.score" = {{ min = {} }} }}\n'
    )
    hang_up(serving, CUTOUT.format(folder=serving.folder, score=first) + shop.format(0.9))
    assert send(serving, "reloaded").status_code == 200
    serving.wait_until((serving.folder / "started").exists)
    hang_up(serving, CUTOUT.format(folder=serving.folder, score=new) + shop.format(0.5))
    (serving.folder / "go").touch()
    serving.settled("reloaded")
    found = {one.hook: one for one in serving.store.lists.deliveries(task_id="reloaded")}
    assert found["cutout"].output == {"score": 0.7}
    attempts = serving.store.queries.history("reloaded").attempts
    (attempt,) = attempts[found["shop"].id]
    assert "skipped" not in attempt.answer
    assert [len(attempts[one.id]) for one in found.values()] == [1, 1]
