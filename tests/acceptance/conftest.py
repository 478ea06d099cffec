"""A sandbox, and an installation pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import Installation
from sandbox.server import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(pace=0.3) as made:
        yield made


@pytest.fixture
def installation(tmp_path: Path, sandbox: Sandbox) -> Iterator[Installation]:
    made = Installation(tmp_path, sandbox)
    made.store.migrate()
    try:
        yield made
    finally:
        made.close()
