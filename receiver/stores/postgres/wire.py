"""Many statements to PostgreSQL and their answers back, in one round trip.

Psycopg's own pipeline asks the kernel before each statement that it sends, and makes a cursor for
each: half of the CPU of a callback. Here libpq is given all of them, prepared, and is waited for
once.
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

from receiver.stores.postgres.session import with_locks
from receiver.stores.sql.session import Values

CONNECTED_WITHIN = 5  # seconds
ANSWERS_WITHIN = 8.0  # seconds; a server that is silent for longer is as good as gone
ANSWERED = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
GOES_AWAY = "57P"  # how the codes begin by which a server that stops says so
_PLACE = re.compile(r"\?|(?<!:):([a-z_]+)")


class Lost(psycopg.OperationalError):
    """The connection is gone."""


class Statement:
    """A statement with its values; `answer` once there is one."""

    __slots__ = ("answer", "sql", "values")

    def __init__(self, sql: str, values: Values = ()) -> None:
        self.sql = sql
        self.values = values
        self.answer: pq.abc.PGresult | None = None


class Wire:
    """A connection that speaks in exchanges, for one thread. Raises psycopg.Error."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, connect_timeout=CONNECTED_WITHIN, autocommit=True)
        self._libpq = self._connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._poll = select.poll()
        self._adapting = Transformer.from_context(self._connection)
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}

    def close(self) -> None:
        self._connection.close()

    def exchange(self, statements: Sequence[Statement]) -> None:
        """Send all of them, and wait for all answers.

        Raises psycopg.Error, of the first that failed: those behind it were not done. Raises Lost.
        """
        try:
            asked = [one for statement in statements for one in self._send(statement)]
            self._libpq.pipeline_sync()
            answers = self._answers(time.monotonic() + ANSWERS_WITHIN)
        except psycopg.OperationalError as error:
            raise Lost(str(error)) from error
        for statement, answer in zip(asked, answers, strict=True):
            if answer.status not in ANSWERED:
                raise self._error(answer)
            if statement is not None:
                statement.answer = answer

    def rows(self, statement: Statement) -> list[dict[str, Any]]:
        """The rows of a statement that was answered."""
        answer = statement.answer
        assert answer is not None  # noqa: S101 - who asks has waited for it
        names = [_decoded(answer.fname(number)) for number in range(answer.nfields)]
        self._adapting.set_pgresult(answer)
        return self._adapting.load_rows(
            0, answer.ntuples, lambda row: dict(zip(names, row, strict=True))
        )

    def _send(self, statement: Statement) -> Iterator[Statement | None]:
        """One item for each answer that will come; None for one that says nothing."""
        sql, names = numbered(statement.sql)
        given = statement.values
        values = [given[name] for name in names] if isinstance(given, dict) else given
        dumped = self._adapting.dump_sequence(values, [PyFormat.AUTO] * len(values))
        kind = (statement.sql, tuple(self._adapting.types or ()))
        name = self._prepared.get(kind)
        if name is None:
            name = self._prepared[kind] = b"w%d" % len(self._prepared)
            self._libpq.send_prepare(name, sql, kind[1])
            yield None
        self._libpq.send_query_prepared(name, dumped, self._adapting.formats)
        yield statement

    def _answers(self, until: float) -> list[pq.abc.PGresult]:
        found: list[pq.abc.PGresult] = []
        self._flush_and_wait(until)
        while True:
            while self._libpq.is_busy():
                self._flush_and_wait(until)
            answer = self._libpq.get_result()
            if answer is None:
                continue  # stands behind each answer
            if answer.status == pq.ExecStatus.PIPELINE_SYNC:
                return found
            found.append(answer)

    def _flush_and_wait(self, until: float) -> None:
        """Raises Lost if nothing comes."""
        more_to_send = self._libpq.flush()
        wanted = select.POLLIN | (select.POLLOUT if more_to_send else 0)
        self._poll.register(self._libpq.socket, wanted)
        if not self._poll.poll(max(0, until - time.monotonic()) * 1000):
            raise Lost(f"the server was silent for {ANSWERS_WITHIN:g} s")
        self._libpq.consume_input()

    def _error(self, answer: pq.abc.PGresult) -> psycopg.Error:
        code = _decoded(answer.error_field(pq.DiagnosticField.SQLSTATE))
        said = _decoded(answer.error_field(pq.DiagnosticField.MESSAGE_PRIMARY))
        if not code or code.startswith(GOES_AWAY) or self._libpq.status == pq.ConnStatus.BAD:
            return Lost(said or _decoded(answer.error_message))
        return psycopg.errors.lookup(code)(said)


@cache
def numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement as libpq takes it, and the names of its values if they have any."""
    names: list[str] = []
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        name = found[1]
        if name is None:
            count += 1
            return f"${count}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACE.sub(place, with_locks(sql)).encode(), tuple(names)


def _decoded(text: bytes | None) -> str:
    return "" if text is None else text.decode(errors="replace")
