"""Redis and RabbitMQ run for a test without root, and all their processes end with it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tests.support.patience import wait_until
from tests.support.real_servers import (
    AMQP_HEADER,
    CONNECTION_START,
    accepts,
    exchange,
    place,
    rabbitmq,
    redis,
)


def processes_in(folder: Path) -> dict[str, int]:
    """Return the command lines and users of processes whose home or directory is this folder."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or belongs to another user
            environment = (process / "environ").read_bytes()
            if (process / "cwd").readlink() == folder or str(folder).encode() in environment:
                command = (process / "cmdline").read_text().replace("\0", " ")
                found[command] = process.stat().st_uid
    return found


def test_redis_answers_and_ends() -> None:
    with place("redis-server") as server:
        with redis(server) as port:
            assert exchange(port, b"PING\r\n") == b"+PONG\r\n"
            (user,) = processes_in(server.folder).values()
            assert user != 0
        assert not accepts(port)
        assert processes_in(server.folder) == {}


def test_rabbitmq_answers_and_ends_with_all_its_processes() -> None:
    with place("rabbitmq-server") as server:
        with rabbitmq(server) as port:
            # A method frame on channel 0, then its length, then the method: AMQP 0-9-1, 2.3.5.
            answer = exchange(port, AMQP_HEADER)
            assert (answer[:3], answer[7:11]) == (b"\x01\x00\x00", CONNECTION_START)
            assert exchange(port, b"AMQP\x00\x00\x00\x00") == AMQP_HEADER  # its protocol version
            processes = processes_in(server.folder)
            assert any("epmd" in command for command in processes)
            assert 0 not in processes.values()
        assert not accepts(port)
        wait_until(lambda: not processes_in(server.folder))  # child processes end after the server
