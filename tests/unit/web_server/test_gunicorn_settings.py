"""gunicorn's settings depend on what the machine offers."""

from __future__ import annotations

import os
import runpy

import pytest

from tests.support.clean_venv import ROOT

SETTINGS = str(ROOT / "receiver/web/server/gunicorn.py")


@pytest.mark.parametrize(("may_write", "expected"), [(True, "/dev/shm"), (False, None)])  # noqa: S108
def test_heartbeats_are_in_shared_memory_if_it_can_be_written_to(
    monkeypatch: pytest.MonkeyPatch, may_write: bool, expected: str | None
) -> None:
    """In some containers it belongs to root; gunicorn would end without starting a worker."""
    monkeypatch.setattr(os, "access", lambda *_: may_write)
    assert runpy.run_path(SETTINGS)["worker_tmp_dir"] == expected
