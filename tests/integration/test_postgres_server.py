"""The PostgreSQL server of the tests: with Debian's binaries, and with the wheel's."""

from __future__ import annotations

import pytest

psycopg = pytest.importorskip("psycopg")

from tests.support.postgres_server import postgres  # noqa: E402


@pytest.mark.parametrize("wheel", [False, True])
def test_the_server_works_and_is_gone_afterwards(wheel: bool) -> None:
    with postgres(wheel=wheel) as url, psycopg.connect(url) as connection:
        (version,) = connection.execute("show server_version_num").fetchone()
        assert int(version) >= 140_000
        assert connection.execute("show fsync").fetchone() == ("off",)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)


def test_a_durable_server_waits_for_the_disk() -> None:
    with postgres(durable=True) as url, psycopg.connect(url) as connection:
        assert connection.execute("show fsync").fetchone() == ("on",)
