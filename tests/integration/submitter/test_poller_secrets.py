"""The poller hides the secrets of present and former hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver.observability import logs
from receiver.stores.sqlite import SqliteStore
from submitter.cli import main, reconcile
from submitter.reconcile import Reconciler

HOOK = '[[hook]]\nname = "chat"\ntype = "slack"\nurl = "https://hooks.example/{}"\n'


def test_the_secrets_of_a_reloaded_hooks_file_are_hidden(
    tmp_path: Path,
    migrated: Callable[[Path], SqliteStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    migrated(tmp_path / "receiver.db").close()
    hooks = tmp_path / "hooks.toml"
    hooks.write_text(HOOK.format("first-secret-path"))
    hides: list[Callable[[str], str]] = []
    shown: list[str] = []

    def configure(hide: Callable[[str], str] = str, form: str = "auto") -> None:
        del form
        hides.append(hide)

    def run(*_: object) -> None:
        lines = (
            f"refused https://hooks.example/{name}-secret-path" for name in ("first", "second")
        )
        shown.extend(map(hides[-1], lines))

    def reload_at_once(reload: Callable[[], None], _: object) -> None:
        hooks.write_text(HOOK.format("second-secret-path"))
        reload()

    monkeypatch.setattr(logs, "configure", configure)
    monkeypatch.setattr(reconcile, "stop_at", lambda *_: None)
    monkeypatch.setattr(reconcile, "delay_hangup", lambda: None)
    monkeypatch.setattr(reconcile, "reload_at_hangup", reload_at_once)
    monkeypatch.setattr(Reconciler, "run", run)
    environment = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/receiver.db",
        "HOOKS_FILE": str(hooks),
        "PUBLIC_URL": "https://shop.example",
        "CALLBACK_SECRETS": "s" * 43,
    }
    done = CliRunner().invoke(main, ["reconcile", "--forever"], env=environment)
    assert done.exit_code == 0, done.output
    assert len(shown) == 2
    assert "secret-path" not in "".join(shown)
