"""A small, correct receiver, and nine with one bug each, to be run as a process.

python receivers.py NAME PORT FOLDER HOOK_URL

It accepts callbacks at /callbacks/kling/<task>/<token> and signed ones at /callbacks/kling, records
them in FOLDER/record.db, and calls HOOK_URL once for each final status, with the event id
`<task>:<status>`.
"""

from __future__ import annotations

import base64
import hmac
import json
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

TOKEN_SECRET = b"the secret of the callback URLs"
SIGNING_KEY = b"the secret of the provider"
TOLERANCE = 300  # seconds
BUSY = 600  # seconds; reached only if the machine hangs
PAUSED = "paused"
ANSWERED, LOOKED = "answered", "looked"  # the steps at which a receiver can be paused
RANK = {"submitted": 1, "processing": 2, "succeed": 3, "failed": 3}
ENDS = ("succeed", "failed")
SCHEMA = """
create table if not exists tasks (id text primary key, status text not null);
create table if not exists transitions (task text, status text, unique (task, status));
create table if not exists deliveries (
  id text primary key, task text, state text default 'pending'
);
"""


class Refused(Exception):
    """A response other than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Right:
    """Checks the raw bytes, records once in one commit, responds, and only then acts."""

    schema = SCHEMA

    def __init__(self, folder: Path, hook_url: str) -> None:
        self.path = folder / "record.db"
        self.hook_url = hook_url
        with self.connected() as connection:
            connection.execute("pragma journal_mode = wal")
            connection.executescript(self.schema)
        self.folder = folder
        self.work = threading.Event()

    def pause(self, after: str) -> None:
        """Wait while the file of this step exists, so that a scenario can make a bug visible."""
        file = self.folder / after
        if file.exists():
            print(PAUSED, file=sys.stderr, flush=True)
        while file.exists():
            time.sleep(0.01)

    def connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY)
        connection.execute("pragma synchronous = full")
        return connection

    # -- callbacks

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Accept a callback. Raises Refused."""
        self.log(path, headers, body)
        parts = path.strip("/").split("/")
        if len(parts) == 4:
            self.check_token(parts[2], parts[3])
            task, status = parts[2], self.parsed(body)[1]
        else:
            self.check_signature(headers, body)
            task, status = self.parsed(body)
        self.accept(task, status)

    def log(self, path: str, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002
        print(f"a callback of {len(body)} bytes", file=sys.stderr)

    def check_token(self, task: str, token: str) -> None:
        if not hmac.compare_digest(token, token_of(task)):
            raise Refused(404)

    def check_signature(self, headers: Mapping[str, str], body: bytes) -> None:
        signed_at = headers.get("webhook-timestamp", "0")
        expected = signature(headers.get("webhook-id", ""), signed_at, body)
        if not hmac.compare_digest(headers.get("webhook-signature", ""), expected):
            raise Refused(401)
        self.check_age(int(signed_at))

    def check_age(self, signed_at: int) -> None:
        if abs(time.time() - signed_at) > TOLERANCE:
            raise Refused(401)

    def parsed(self, body: bytes) -> tuple[str, str]:
        try:
            document = json.loads(body)
            return document["task_info"]["external_task_id"], document["task_status"]
        except (ValueError, KeyError, TypeError):
            raise Refused(400) from None

    def accept(self, task: str, status: str) -> None:
        """Record the event; it is durable when this returns."""
        connection = self.connected()
        try:
            connection.execute("begin immediate")
            self.record(connection, task, status)
            connection.execute("commit")
        finally:
            connection.close()
        self.work.set()

    def record(self, connection: sqlite3.Connection, task: str, status: str) -> None:
        """Record each transition once, only forwards, with its delivery in the same commit."""
        row = connection.execute("select status from tasks where id = ?", (task,)).fetchone()
        if row and RANK[row[0]] >= RANK[status]:
            return
        moved = connection.execute(
            "insert into transitions values (?, ?) on conflict do nothing", (task, status)
        ).rowcount
        if moved:
            connection.execute("insert or replace into tasks values (?, ?)", (task, status))
            if status in ENDS:
                insert = "insert or ignore into deliveries (id, task) values (?, ?)"
                connection.execute(insert, (f"{task}:{status}", task))

    # -- deliveries

    def deliver_forever(self) -> None:
        while True:
            self.work.wait(0.1)
            self.work.clear()
            connection = self.connected()
            pending = "select id, task from deliveries where state = 'pending'"
            for identity, task in connection.execute(pending).fetchall():
                self.tell_later(self.identity(identity), task)
                connection.execute("update deliveries set state = 'done' where id = ?", (identity,))
            connection.close()

    def identity(self, identity: str) -> str:
        """Return the event id, which is the same for every attempt."""
        return identity

    def tell_later(self, identity: str, task: str) -> None:
        self.tell(identity, task)

    def tell(self, identity: str, task: str) -> None:
        body = json.dumps({"task": task}).encode()
        with urlopen(Request(self.hook_url, body, {"webhook-id": identity}), timeout=BUSY):  # noqa: S310
            pass


# -- nine receivers with a bug


class AcknowledgeBeforeCommit(Right):
    """Responds immediately and records later, so a crash in between loses the callback."""

    def accept(self, task: str, status: str) -> None:
        def later() -> None:
            self.pause(ANSWERED)
            Right.accept(self, task, status)

        threading.Thread(target=later, daemon=True).start()


class CheckThenInsert(Right):
    """Checks for the transition, then inserts it, so two requests can do so concurrently."""

    schema = SCHEMA.replace(", unique (task, status)", "")

    def accept(self, task: str, status: str) -> None:
        with self.connected() as connection:
            known = connection.execute(
                "select 1 from transitions where task = ? and status = ?", (task, status)
            ).fetchone()
            row = connection.execute("select status from tasks where id = ?", (task,)).fetchone()
            self.pause(LOOKED)
            if known or (row and RANK[row[0]] >= RANK[status]):
                return
            connection.execute("insert into transitions values (?, ?)", (task, status))
            connection.execute("insert or replace into tasks values (?, ?)", (task, status))
            if status in ENDS:
                insert = "insert or ignore into deliveries (id, task) values (?, ?)"
                connection.execute(insert, (f"{task}:{status}", task))
        self.work.set()


class CrashAfterEffectBeforeAck(Right):
    """Uses a new event id for each attempt, so a repetition after a crash cannot be recognised."""

    def identity(self, identity: str) -> str:  # noqa: ARG002
        return str(uuid.uuid4())


class NoIdempotencyRecord(Right):
    """Remembers earlier callbacks only in memory, so a restart forgets them."""

    schema = SCHEMA.replace(", unique (task, status)", "")

    def __init__(self, folder: Path, hook_url: str) -> None:
        super().__init__(folder, hook_url)
        self.seen: set[tuple[str, str]] = set()
        self.rank: dict[str, int] = {}
        self.lock = threading.Lock()

    def record(self, connection: sqlite3.Connection, task: str, status: str) -> None:
        with self.lock:
            if (task, status) in self.seen or self.rank.get(task, 0) >= RANK[status]:
                return
            self.seen.add((task, status))
            self.rank[task] = RANK[status]
        connection.execute("insert into transitions values (?, ?)", (task, status))
        connection.execute("insert or replace into tasks values (?, ?)", (task, status))
        if status in ENDS:
            insert = "insert or replace into deliveries (id, task) values (?, ?)"
            connection.execute(insert, (f"{task}:{status}", task))


class OrderAssuming(Right):
    """Regards the status that arrives last as the newest."""

    def record(self, connection: sqlite3.Connection, task: str, status: str) -> None:
        super().record(connection, task, status)
        connection.execute("insert or replace into tasks values (?, ?)", (task, status))


class SensitiveLogging(Right):
    """Logs the whole request, with the token, the signature, and the link to a person's picture."""

    def log(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        print(f"callback {path} {dict(headers)} {body!r}", file=sys.stderr)


class SideEffectBeforeDeduplication(Right):
    """Acts on each callback, and only afterwards checks whether it is a duplicate."""

    def accept(self, task: str, status: str) -> None:
        if status in ENDS:
            self.tell(f"{task}:{status}", task)
        super().accept(task, status)

    def tell_later(self, identity: str, task: str) -> None:
        """Do nothing: the hook has been called already."""


class SignatureAfterParse(Right):
    """Parses first, and verifies the parsed document instead of the received bytes."""

    def check_signature(self, headers: Mapping[str, str], body: bytes) -> None:
        try:
            canonical = json.dumps(json.loads(body), separators=(",", ":")).encode()
        except ValueError:
            raise Refused(400) from None
        super().check_signature(headers, canonical)


class StaleSignatureAccepted(Right):
    """Accepts old signatures, so a request that was once seen can be sent again."""

    def check_age(self, signed_at: int) -> None:
        """Accept any age."""


VARIANTS: dict[str, type[Right]] = {
    "right": Right,
    "acknowledge-before-commit": AcknowledgeBeforeCommit,
    "check-then-insert": CheckThenInsert,
    "crash-after-effect-before-ack": CrashAfterEffectBeforeAck,
    "no-idempotency-record": NoIdempotencyRecord,
    "order-assuming": OrderAssuming,
    "sensitive-logging": SensitiveLogging,
    "side-effect-before-deduplication": SideEffectBeforeDeduplication,
    "signature-after-parse": SignatureAfterParse,
    "stale-signature-accepted": StaleSignatureAccepted,
}


def token_of(task: str) -> str:
    return hmac.digest(TOKEN_SECRET, task.encode(), "sha256").hex()


def signature(message_id: str, signed_at: str, body: bytes) -> str:
    digest = hmac.digest(SIGNING_KEY, f"{message_id}.{signed_at}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


class Handler(BaseHTTPRequestHandler):
    receiver: Right

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = 200
        try:
            self.receiver.take(self.path, headers, body)
        except Refused as refused:
            status = refused.status
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Log nothing: the receivers log for themselves."""


class Server(ThreadingHTTPServer):
    request_queue_size = 64


def main(name: str, port: str, folder: str, hook_url: str) -> None:
    receiver = VARIANTS[name](Path(folder), hook_url)
    handler = type("Mine", (Handler,), {"receiver": receiver})
    threading.Thread(target=receiver.deliver_forever, daemon=True).start()
    Server(("127.0.0.1", int(port)), handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
