"""A web worker that cannot start stops no other; an unusable address is reported clearly."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.support.gunicorn_processes import send, workers
from tests.support.installation import Installation
from tests.support.patience import PATIENCE


def test_a_web_worker_that_cannot_start_stops_no_other(
    installation: Installation, tmp_path: Path
) -> None:
    failures = tmp_path / "failures"
    failures.write_bytes(b"x" * 3)
    installation.environment["FAILURES"] = str(failures)
    installation.start_web("tests.support.apps.fails_to_boot:app", "--workers", "2")
    status = installation.running["web"].wait(PATIENCE)
    assert status == 3  # none could start, so the host restarts the program
    failures.write_bytes(b"x")
    installation.start_web("tests.support.apps.fails_to_boot:app", "--workers", "2")
    installation.wait_until_ready()
    log = installation.folder / "web.log"
    installation.wait_until(lambda: "This web worker could not start" in log.read_text())
    installation.wait_until(lambda: log.read_text().count("Booting worker") == 5)
    failures.write_bytes(b"x")
    os.kill(workers(installation)[0], signal.SIGKILL)  # at later starts as well
    installation.wait_until(lambda: log.read_text().count("This web worker could not start") == 2)
    assert send(installation, "task-1").status_code == 200
    installation.wait_until(lambda: log.read_text().count("Booting worker") == 7)
    assert installation.stop("web") == 0


def test_each_program_reports_a_port_in_use_in_one_sentence(installation: Installation) -> None:
    where = f"127.0.0.1:{installation.port}"
    sentence = f"receiver: cannot listen at {where}: another process uses it; stop that process"
    with socket.create_server(("127.0.0.1", installation.port)):
        gunicorn = ("gunicorn", "--config", "python:receiver.web.gunicorn", "--bind", where)
        for command in (("receiver", "serve", "--bind", where), (*gunicorn, "wsgi:app")):
            done = installation.run(*command)
            assert done.returncode not in (0, None)
            output = done.stdout + done.stderr
            assert output.count(sentence) == 1
            assert "Traceback" not in output
            assert '"error"' not in output  # everything else is correct
            # The other process would answer the check that serve has started.
            assert "has started" not in output
            assert '"starting"' not in output


def test_each_program_reports_a_missing_hooks_file_in_one_sentence(
    installation: Installation,
) -> None:
    installation.environment["HOOKS_FILE"] = str(installation.folder / "hooks.tml")
    for command in (
        ("gunicorn", "--config", "python:receiver.web.gunicorn", "wsgi:app"),
        ("submitter", "reconcile", "--forever"),
        ("receiver", "doctor"),
    ):
        done = installation.run(*command)
        assert done.returncode != 0
        output = done.stdout + done.stderr
        assert output.count("hooks.tml does not exist; correct HOOKS_FILE") == 1
        assert "Traceback" not in output
