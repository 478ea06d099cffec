"""The clocks: the clock of the record, the clock of the machine, and the time since boot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver import clock


@pytest.fixture(autouse=True)
def _clocks() -> Iterator[None]:
    clock.boot_id.cache_clear()
    yield
    clock.boot_id.cache_clear()
    clock.follow(None)


def test_the_clock_of_the_machine_is_used_until_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 5_000_000_000)
    assert (clock.now_ms(), clock.wall_ms()) == (5_000, 5_000)


def test_the_clock_of_the_record_does_not_jump_when_the_machine_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock.follow(1_765_519_851_000 - clock.elapsed_ms())
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert clock.wall_ms() == 0
    assert clock.now_ms() >= 1_765_519_851_000


def test_a_boot_has_one_id_in_every_process_of_a_time_namespace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boot, namespace = tmp_path / "boot_id", tmp_path / "time"
    monkeypatch.setattr(clock, "BOOT_ID", boot)
    monkeypatch.setattr(clock, "TIME_NAMESPACE", namespace)
    boot.write_text("1fcb\n")
    ids = []
    for target in (None, "time:[1]", "time:[2]"):
        clock.boot_id.cache_clear()
        if target is not None:
            namespace.unlink(missing_ok=True)
            namespace.symlink_to(target)
        ids.append(clock.boot_id())
    assert ids == ["1fcb", "1fcb time:[1]", "1fcb time:[2]"]


def test_without_a_boot_id_each_process_has_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clock, "BOOT_ID", tmp_path / "missing")
    first = clock.boot_id()
    assert clock.boot_id() == first
    clock.boot_id.cache_clear()
    assert clock.boot_id() != first
