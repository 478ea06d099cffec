"""`sandbox trigger`: any scenario at any receiver, its report, and its error messages."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result

from sandbox.cli import main
from sandbox.scenarios.scenario import SCENARIOS, triggerable
from tests.support.http_server import LoopbackServer
from tests.support.ports import free_port

SECRET = "whsec_dGhlIGtleSBvZiB0aGUgc2FuZGJveC4u"
KNOWN = ("submitted", "processing", "succeed", "succeeded", "failed")


class Handler(BaseHTTPRequestHandler):
    """Takes JSON with a known status at the right path, compressed or not; answers probes."""

    heard: list[tuple[str, bytes]] = []  # noqa: RUF012 - each server has a class of its own

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((self.path, body))
        status = 400
        with suppress(ValueError):
            document = json.loads(decompressed(body))
            known = document.get("task_status", document.get("status")) in KNOWN
            status = 200 if known and self._is_ours() else 422
        self._answer(status, b'{"outcome": "recorded"}')

    def do_GET(self) -> None:
        self.heard.append((self.path, b""))
        self._answer(200 if self._is_ours() else 404, b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _is_ours(self) -> bool:
        return unquote(self.path.partition("?")[0]).rstrip("/ ").endswith("/token")

    def _answer(self, status: int, said: bytes) -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


def decompressed(body: bytes) -> bytes:
    """The body, decompressed with or without the header of gzip or zlib."""
    for window in (32 + zlib.MAX_WBITS, -zlib.MAX_WBITS):
        with suppress(zlib.error):
            return zlib.decompress(body, window)
    return body


@pytest.fixture
def heard() -> Iterator[list[tuple[str, bytes]]]:
    made: list[tuple[str, bytes]] = []
    handler = type("Mine", (Handler,), {"heard": made})
    server = LoopbackServer(("127.0.0.1", 0), handler)
    made.append((f"http://127.0.0.1:{server.server_port}/callbacks/kling/task-7/token", b""))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def fire(heard: list[tuple[str, bytes]], scenario: str, *more: str) -> Result:
    url = heard.pop(0)[0]
    return CliRunner().invoke(main, ["trigger", scenario, "--to", url, "--pace", "0.05", *more])


def test_each_callback_is_printed_with_its_response(heard: list[tuple[str, bytes]]) -> None:
    done = fire(heard, "succeed")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["submitted", "200"],
        ["processing", "200"],
        ["succeed", "200"],
    ]
    assert '{"outcome": "recorded"}' in lines[0]
    assert lines[3] == "trigger: 3 sent, 3 acknowledged"
    bodies = [json.loads(body) for _, body in heard]
    # our id of the task, from the path
    assert {body["task_info"]["external_task_id"] for body in bodies} == {"task-7"}


@pytest.mark.parametrize("scenario", triggerable())
def test_every_scenario_passes_with_a_correct_receiver(
    heard: list[tuple[str, bytes]], scenario: str
) -> None:
    done = fire(heard, scenario, "--webhook-secret", SECRET, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert document["missing"] == []
    assert len(document["callbacks"]) == len(heard)
    assert bool(heard) is (scenario != "silent")


def test_unacknowledged_callbacks_decide_the_exit_status(heard: list[tuple[str, bytes]]) -> None:
    url = heard.pop(0)[0].replace("/token", "/other")
    arguments = ["trigger", "succeed", "--to", url, "--pace", "0.02", "--retries", "1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "trigger: 6 sent, 0 acknowledged" in done.output
    assert "not acknowledged: submitted, processing, succeed" in done.output


def test_an_unreachable_receiver_is_reported() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    arguments = ["trigger", "succeed", "--to", url, "--pace", "0.02", "--retries", "0"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "Connection refused" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name a scenario"),
        (["succeed"], "--to URL"),
        (["succeed", "--to", "ftp://x"], "not an http or https URL"),
        (["succeed", "--to", "http://"], "not an http or https URL"),
        (["no-such", "--to", "http://127.0.0.1:9/"], "the scenarios are"),
        (["busy", "--to", "http://127.0.0.1:9/"], "/_sandbox/next"),
        (["wrong-signature", "--to", "http://127.0.0.1:9/"], "--webhook-secret"),
        (["succeed", "--to", "http://127.0.0.1:9/callbacks/modellix/a/b"], "sends no callbacks"),
        (["succeed", "--to", "http://127.0.0.1:9/", "--webhook-secret", "x"], "whsec_"),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(main, ["trigger", *arguments])
    assert done.exit_code == 2
    assert says in done.output
    assert "Traceback" not in done.output


def test_all_scenarios_are_listed_in_80_columns() -> None:
    output = CliRunner().invoke(main, ["trigger", "--list"]).output
    assert all(len(line) <= 80 for line in output.splitlines())
    fired, others = output.split("\n\n")
    heading, *others_by_line = others.splitlines()
    assert "/_sandbox/next" in heading
    assert [name for name in map(_name, fired.splitlines()) if name] == triggerable()
    listed = triggerable() + [name for name in map(_name, others_by_line) if name]
    assert sorted(listed) == sorted(SCENARIOS)
    text = " ".join(output.split())
    assert all(" ".join(one.summary.split()) in text for one in SCENARIOS.values())


def _name(line: str) -> str:
    return line[:22].strip()


@pytest.mark.parametrize(
    ("chaos", "says"), [("dorpped", "the scenarios are"), ("wrong-signature", "--webhook-secret")]
)
def test_invalid_chaos_options_are_refused_at_the_start(chaos: str, says: str) -> None:
    done = CliRunner().invoke(main, ["serve", "--port", "0", "--smtp-port", "0", "--chaos", chaos])
    assert done.exit_code == 2
    assert says in done.output
