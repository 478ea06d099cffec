"""Sends many statements to PostgreSQL, and receives their results, in one round trip.

Psycopg's own pipeline makes a system call and a cursor for each statement, which took half the time
of recording a callback. Here libpq gets all statements, prepared, and the thread waits once.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

from receiver.stores.postgres.connecting import CONNECTED_WITHIN, Connection
from receiver.stores.postgres.session import numbered
from receiver.stores.sql.database import Values

ANSWERS_WITHIN = 8.0  # seconds; a server that sends nothing for longer is taken to be lost
ANSWERED = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class ConnectionLost(psycopg.OperationalError):
    """The connection could not be opened, or was lost."""


class Statement:
    """A statement with its values. `answer` is None until the server has sent the result."""

    __slots__ = ("answer", "sql", "values")

    def __init__(self, sql: str, values: Values = ()) -> None:
        self.sql = sql
        self.values = values
        self.answer: pq.abc.PGresult | None = None


class Wire:
    """A connection for one thread, which is unusable after an error.

    `prepares`: whether statements are prepared, which requires the same server in all transactions.
    """

    def __init__(self, url: str, *, prepares: bool = True) -> None:
        self._prepares = prepares
        try:
            self._connection = Connection.connect(url, connect_timeout=CONNECTED_WITHIN)
        except psycopg.OperationalError as error:
            raise ConnectionLost(str(error)) from error
        self._libpq = self._connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.enter_pipeline_mode()
        self._poll = select.poll()
        self._adapting = Transformer.from_context(self._connection)
        self._prepared: dict[tuple[str, tuple[int, ...]], bytes] = {}

    def close(self) -> None:
        """Close the connection. The server rolls an open transaction back."""
        self._connection.close()

    def exchange(self, statements: Sequence[Statement]) -> None:
        """Send the statements, and wait for all results.

        Raises the psycopg.Error of the first statement that failed; later ones were not executed.
        Raises ConnectionLost.
        """
        try:
            sent = [entry for statement in statements for entry in self._send(statement)]
            self._libpq.pipeline_sync()
            answers = self._answers(time.monotonic() + ANSWERS_WITHIN)
        except psycopg.OperationalError as error:
            raise ConnectionLost(str(error)) from error
        for answer in answers:
            if answer.status not in ANSWERED:
                raise psycopg.DatabaseError(_text(answer.error_message))
        for statement, answer in zip(sent, answers, strict=True):
            if statement is not None:
                statement.answer = answer

    def rows(self, answer: pq.abc.PGresult) -> list[dict[str, Any]]:
        """Return the rows of a result, by column name."""
        names = [_text(answer.fname(number)) for number in range(answer.nfields)]
        self._adapting.set_pgresult(answer)
        rows = self._adapting.load_rows(0, answer.ntuples, tuple)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _send(self, statement: Statement) -> Iterator[Statement | None]:
        """Send a statement. Yields an item for each expected result: None for a preparation."""
        sql, names = numbered(statement.sql)
        values = statement.values
        if isinstance(values, Mapping):
            values = [values[name] for name in names]
        dumped = self._adapting.dump_sequence(values, [PyFormat.AUTO] * len(values))
        kind = statement.sql, tuple(self._adapting.types or ())
        if not self._prepares:
            self._libpq.send_query_params(sql, dumped, kind[1], self._adapting.formats)
            yield statement
            return
        name = self._prepared.get(kind)
        if name is None:
            name = self._prepared[kind] = b"way_in_%d" % len(self._prepared)
            self._libpq.send_prepare(name, sql, kind[1])
            yield None
        self._libpq.send_query_prepared(name, dumped, self._adapting.formats)
        yield statement

    def _answers(self, until: float) -> list[pq.abc.PGresult]:
        """Return the results of all statements. Raises ConnectionLost.

        libpq returns None after each result, and twice in succession when the connection is lost.
        """
        found: list[pq.abc.PGresult] = []
        answer: pq.abc.PGresult | None = None
        self._wait(until)
        while True:
            while self._libpq.is_busy():
                self._wait(until)
            before, answer = answer, self._libpq.get_result()
            if answer is not None and answer.status == pq.ExecStatus.PIPELINE_SYNC:
                return found
            if answer is not None:
                found.append(answer)
            elif before is None:
                raise ConnectionLost(
                    _text(found[-1].error_message) if found else "the server closed the connection"
                )

    def _wait(self, until: float) -> None:
        """Send the unsent data, and read the received data.

        Raises ConnectionLost if there is none.
        """
        more = self._libpq.flush()
        self._poll.register(self._libpq.socket, select.POLLIN | (select.POLLOUT if more else 0))
        if not self._poll.poll(max(0, until - time.monotonic()) * 1000):
            raise ConnectionLost(f"the server sent nothing for {ANSWERS_WITHIN:g} s")
        self._libpq.consume_input()


def _text(message: bytes | None) -> str:
    return (message or b"").decode(errors="replace")
