"""A mail server that stores the newest e-mails, and accepts all of them unless a fault is set.

It never answers the DATA of an e-mail to `hang@…`, like a server whose content filter hangs.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import deque
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

from aiosmtpd.controller import Controller

from sandbox.bounded_store import BoundedStore
from sandbox.clock import now_ms
from sandbox.scenarios.faults import MailFault

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable

    from aiosmtpd.smtp import SMTP, Envelope, Session

KEPT = 200
HANGS_FOR = "hang"  # local part of the recipient's address
HEAVIEST = 128 * 1024 * 1024
LARGEST = 20 * 1024 * 1024
LIMITS = {MailFault.SIZE_LIMIT: 150_000, MailFault.TOO_LARGE: 20_000}  # bytes
STARTED_WITHIN = 120.0  # seconds; a busy machine needs more than aiosmtpd's 5


@dataclass(frozen=True)
class MailPart:
    """A part of an e-mail other than its body: an attachment or an inline picture."""

    content_type: str
    filename: str | None
    content_id: str | None  # without the angle brackets
    inline: bool
    content: bytes

    def as_json(self) -> dict[str, Any]:
        return {
            "content_type": self.content_type,
            "filename": self.filename,
            "content_id": self.content_id,
            "inline": self.inline,
            "size": len(self.content),
            "sha256": hashlib.sha256(self.content).hexdigest(),
        }


@dataclass(frozen=True)
class Mail:
    """A received e-mail, raw and parsed. `received_at` is in Unix milliseconds."""

    number: int
    received_at: int
    envelope_from: str
    envelope_to: tuple[str, ...]
    headers: dict[str, str]  # names in lower case
    text: str | None
    html: str | None
    parts: tuple[MailPart, ...]
    raw: bytes

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "received_at": self.received_at,
            "envelope_from": self.envelope_from,
            "envelope_to": list(self.envelope_to),
            **{name: self.headers.get(name, "") for name in ("subject", "from", "to", "date")},
            "message_id": self.headers.get("message-id", ""),
            "text": self.text,
            "html": self.html,
            "attachments": [part.as_json() for part in self.parts],
        }


class Mailbox:
    def __init__(self) -> None:
        self._mails: BoundedStore[int, Mail] = BoundedStore(
            KEPT, HEAVIEST, lambda mail: 2 * len(mail.raw)
        )
        self._numbers = itertools.count(1)
        self._faults: deque[MailFault] = deque(maxlen=KEPT)

    def refuse(self, fault: MailFault) -> None:
        """Apply this fault to one more e-mail, until a version of it is accepted."""
        self._faults.append(fault)

    def mails(self) -> list[Mail]:
        """Return the stored e-mails, oldest first."""
        return self._mails.values()

    def mail(self, number: int) -> Mail | None:
        return self._mails.get(number)

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        del server, envelope
        session.host_name = hostname
        if not self._faults or self._faults[0] is not MailFault.SIZE_LIMIT:
            return responses
        rest = [line for line in responses if not line[4:].startswith("SIZE")]
        return [rest[0], f"250-SIZE {LIMITS[MailFault.SIZE_LIMIT]}", *rest[1:]]

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        del server, session
        if any(to.partition("@")[0] == HANGS_FOR for to in envelope.rcpt_tos):
            await asyncio.Event().wait()  # until the client closes the connection
        raw = envelope.content
        if not isinstance(raw, bytes):
            return "500 no content"
        if self._faults and len(raw) > LIMITS[self._faults[0]]:
            return "552 5.3.4 Message size exceeds fixed limit"
        if self._faults:
            self._faults.popleft()
        number = next(self._numbers)
        sender, recipients = envelope.mail_from or "", tuple(envelope.rcpt_tos)
        self._mails.put(number, read(raw, number, sender, recipients))
        return f"250 OK: stored as mail {number}"


def read(raw: bytes, number: int, sender: str, recipients: tuple[str, ...]) -> Mail:
    """Parse a raw message."""
    message = message_from_bytes(raw, _class=EmailMessage, policy=policy.default)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    leaves = [leaf for leaf in message.walk() if not leaf.is_multipart()]
    return Mail(
        number=number,
        received_at=now_ms(),
        envelope_from=sender,
        envelope_to=recipients,
        headers={name.lower(): str(value) for name, value in message.items()},
        text=_text(plain),
        html=_text(html),
        parts=tuple(_part(leaf) for leaf in leaves if leaf is not plain and leaf is not html),
        raw=raw,
    )


def _text(body: Any) -> str | None:
    if body is None:
        return None
    try:
        return str(body.get_content())
    except LookupError:  # an unknown charset
        return _bytes(body).decode("utf-8", "replace")


def _part(leaf: Any) -> MailPart:
    content_id = leaf["Content-ID"]
    return MailPart(
        content_type=leaf.get_content_type(),
        filename=leaf.get_filename(),
        content_id=str(content_id).strip().strip("<>") if content_id else None,
        inline=leaf.get_content_disposition() == "inline",
        content=_bytes(leaf),
    )


def _bytes(leaf: Any) -> bytes:
    payload = leaf.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


class MailServer(Controller):
    """An SMTP server on a socket that is already bound, so that port 0 chooses a free port."""

    def __init__(self, mailbox: Mailbox, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        super().__init__(
            mailbox,
            hostname=host,
            port=port,
            ready_timeout=STARTED_WITHIN,
            data_size_limit=LARGEST,
        )
        self._listening = listening

    def _create_server(self) -> Awaitable[asyncio.AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._listening)
