"""The server's error code, not its language, decides whether a process waits for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from receiver.errors import StoreUnavailable, StoreUnreachable
from receiver.stores import check_schema_when_reachable
from receiver.stores.postgres import connecting
from receiver.stores.postgres.connecting import connect
from tests.support.clean_venv import ROOT
from tests.support.ports import free_port

WAITED_FOR = {
    "starts": ("57P03", "the database system is starting up"),
    "starts, in German": ("57P03", "das Datenbanksystem startet"),
    "stops": ("57P03", "the database system is shutting down"),
    "recovers": ("57P03", "the database system is in recovery mode"),
    "is full": ("53300", "sorry, too many clients already"),
    "is full for us": ("53300", "remaining connection slots are reserved for roles with SUPERUSER"),
    "PgBouncer without a server": ("08P01", "server login has been failing, try again later"),
    "PgBouncer is full": ("08P01", "no more connections allowed (max_client_conn)"),
}
REFUSED = {
    "wrong password": ("28P01", 'password authentication failed for user "receiver"'),
    "wrong password, in French": ("28P01", "authentification par mot de passe échouée"),
    "no such role": ("28000", 'role "receiver" does not exist'),
    "no such database": ("3D000", 'database "shop" does not exist'),
    "not allowed from here": ("28000", 'no pg_hba.conf entry for host "10.0.0.7"'),
    "no such database at PgBouncer": ("08P01", "no such database: shop"),
}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server that refuses each connection with the error in its database name."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.apps.refusing_postgres"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())


def url(port: int, answer: tuple[str, str]) -> str:
    return f"postgresql://receiver@127.0.0.1:{port}/{quote(' '.join(answer))}"


@pytest.mark.parametrize("answer", WAITED_FOR.values(), ids=WAITED_FOR)
def test_a_server_that_is_not_ready_is_waited_for(port: int, answer: tuple[str, str]) -> None:
    with pytest.raises(StoreUnreachable) as raised:
        connect(url(port, answer))
    assert answer[1] in str(raised.value)


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_reported_immediately(port: int, answer: tuple[str, str]) -> None:
    with pytest.raises(StoreUnavailable) as raised:
        connect(url(port, answer))
    assert not isinstance(raised.value, StoreUnreachable)
    assert answer[1] in str(raised.value)
    assert "check DATABASE_URL" in str(raised.value)


def test_a_server_without_tls_is_not_waited_for(port: int) -> None:
    with pytest.raises(StoreUnavailable) as raised:
        connect(f"{url(port, WAITED_FOR['starts'])}?sslmode=require")
    assert not isinstance(raised.value, StoreUnreachable)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "no-such-host.invalid:{port}", "127.0.0.1:{port},[::1]:{port}"]
)
def test_a_missing_server_is_waited_for(address: str) -> None:
    with pytest.raises(StoreUnreachable):
        connect(f"postgresql://receiver@{address.format(port=free_port())}/shop")


def test_a_server_that_starts_between_the_error_and_the_check_is_waited_for(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is refused; `ping` already finds the server."""
    original = psycopg.Connection.connect
    failures = [psycopg.OperationalError("connection refused")]

    def fail_once(*args: Any, **kwargs: Any) -> psycopg.Connection[Any]:
        if failures:
            raise failures.pop()
        return original(*args, **kwargs)

    monkeypatch.setattr(connecting, "_connect", fail_once)
    connect(postgres_url).close()


class Scripted:
    """A store whose schema can be checked only at the third attempt."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.database = self

    def check_schema(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    def pooler(self) -> None: ...


def test_waiting_ends_with_the_first_error_that_is_not_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("receiver.stores.time.sleep", slept.append)
    down = StoreUnreachable("down")
    check_schema_when_reachable(Scripted(down, down))  # type: ignore[arg-type]
    assert len(slept) == 2
    with pytest.raises(StoreUnavailable, match="wrong password"):
        check_schema_when_reachable(
            Scripted(down, StoreUnavailable("wrong password"))  # type: ignore[arg-type]
        )
