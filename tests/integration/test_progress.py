"""Long operations show progress on a terminal, and only there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.clock import now_ms
from receiver.deliveries import Attempt, State
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from tests.support.patience import PATIENCE
from tests.support.samples import SECRET, body, callback, subscription

NOW = 1_765_519_851_000
LONG = [
    (("prune", "--older-than", "1d"), "erasing messages", "prune: erased 1 message"),
    (("redeliver", "--state", "delivered"), "deliveries", "1 delivery is due again"),
    (("replay", "--quarantined"), "parsing", "callback 2: still not understood"),
]


@pytest.fixture
def environment(store: SqliteStore, tmp_path: Path) -> dict[str, str]:
    """The environment of a record with an ended task, a delivery, and a quarantined callback."""
    Ingest(store, [subscription("mail")]).accept(callback(body(), received_at=NOW))
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1000, 1)
    store.outbox.settle(
        delivery, Attempt(1, NOW, NOW, "delivered", "250 OK"), State.DELIVERED, None
    )
    store.inbox.quarantine(callback(b"{}", "task-2", received_at=now_ms()), "not understood")
    hidden = ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    (tmp_path / "hooks.toml").write_text(
        '[[hook]]\nname = "mail"\ntype = "slack"\nurl = "https://hooks.example/x"\n'
    )
    return {
        **kept,
        "TERM": "xterm",
        "COLUMNS": "100",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}",
        "CALLBACK_SECRETS": SECRET,
        "HOOKS_FILE": str(tmp_path / "hooks.toml"),
    }


@pytest.mark.parametrize(("command", "doing", "result"), LONG)
def test_a_terminal_shows_progress_and_results_go_to_stdout(
    environment: dict[str, str], command: tuple[str, ...], doing: str, result: str
) -> None:
    ours, theirs = pty.openpty()
    try:
        program = [sys.executable, "-m", "receiver", *command]
        done = subprocess.run(
            program,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=PATIENCE,
            check=False,
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 0
    assert doing in shown
    assert done.stdout.decode().startswith(result)
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize(("command", "doing", "result"), LONG)
def test_without_a_terminal_only_the_result_is_printed(
    environment: dict[str, str], command: tuple[str, ...], doing: str, result: str
) -> None:
    program = [sys.executable, "-m", "receiver", *command]
    done = subprocess.run(
        program, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(result)
    assert f"{doing} " not in done.stdout.removeprefix(result)
