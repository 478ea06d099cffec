"""SMTP sessions with a total deadline, and the meaning of server replies for a delivery.

Threads that send e-mails to one server use the same connection, one after the other. It is closed
when no thread is waiting for it.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from receiver.errors import DeliveryFailure, PermanentFailure, TemporaryFailure, TimedOut
from receiver.hooks import wording
from receiver.outgoing.deadline import Deadline
from receiver.outgoing.tls import system_context

MAX_EMAILS = 50  # on one connection; many servers accept no more than 100
MAX_REPLY = 64 * 1024  # the maximum size of a server's reply, in bytes
QUOTED = 200  # characters of a reply
# A login is missing, wrong or too weak; an operator can correct each of them.
LOGIN_CODES = frozenset({530, 534, 535, 538})
# An e-mail is too large: RFC 1870, RFC 3463 (X.2.3, X.3.4), and servers that use other codes.
TOO_LARGE_CODES = frozenset({523, 552})
TOO_LARGE_STATUS = re.compile(r"[45]\.(2\.3|3\.4)\b")
MEASURES, LIMITS = ("size", "length", "large", "big"), ("exceed", "limit", "maxim", "too ")

# A session can be used by all e-mails with the same values of these options.
SESSION_OPTIONS = ("host", "port", "tls", "starttls", "username", "password")
RSET_ACCEPTED = 250

REFUSALS = (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError)

Reply = tuple[int, bytes | str]


class _BoundedReader:
    """Reads lines, and raises OSError after `MAX_REPLY` bytes."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._left = MAX_REPLY

    def readline(self, limit: int) -> bytes:
        line: bytes = self.inner.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise OSError("the server's reply does not end")
        return line

    def close(self) -> None:
        self.inner.close()


class SmtpSession(smtplib.SMTP):
    """smtplib with a total deadline. `data_reply` is the server's reply to the last e-mail."""

    def __init__(self, clock: Deadline, host: str, port: int) -> None:
        self._clock = clock
        self.data_reply = ""
        self.emails = 0
        # Without a name, smtplib would look one up in the DNS, which could take long.
        super().__init__(host, port, local_hostname="localhost", timeout=clock.remaining())
        name = socket.gethostname()
        self.local_hostname = name if "." in name else _address_literal(self._own_address)

    @property
    def max_size(self) -> float:
        """The size limit for e-mails that the server announced, in bytes."""
        announced = self.esmtp_features.get("size", "").strip()
        return int(announced) or math.inf if re.fullmatch(r"[0-9]{1,18}", announced) else math.inf

    def send(self, s: Any) -> None:
        """Send; if the server closed the connection, raise its last reply (such as 552)."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        content = s.encode(self.command_encoding) if isinstance(s, str) else s
        try:
            self.sock.sendall(content)
        except OSError as error:
            code, text = self.getreply()  # raises SMTPServerDisconnected if there is none
            self.close()
            raise smtplib.SMTPDataError(code, text) from error

    def getreply(self) -> tuple[int, bytes]:
        """Return a reply of the server. Raises OSError if it is too long."""
        if self.file is None and self.sock is not None:
            self.file = self.sock.makefile("rb")
        self.file = _BoundedReader(self.file)
        try:
            return super().getreply()
        finally:
            if isinstance(self.file, _BoundedReader):
                self.file = self.file.inner

    def data(self, msg: Any) -> tuple[int, bytes]:
        code, text = super().data(msg)
        self.emails += 1
        self.data_reply = described((code, text))
        return code, text

    def resume(self, clock: Deadline) -> bool:
        """Continue within another deadline; close and return False if the server is gone."""
        self._clock = clock
        with suppress(smtplib.SMTPException, OSError):
            if self.sock is not None:
                clock.watch(self.sock)
                self.sock.settimeout(clock.remaining())
                if self.rset()[0] == RSET_ACCEPTED:
                    return True
        self.close()
        return False

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002
        connection = self._clock.connect(host, port)
        self._own_address, self.peer = connection.getsockname()[0], connection.getpeername()[0]
        return connection


class SmtpOverTls(smtplib.SMTP_SSL, SmtpSession):
    """The same with TLS from the first byte."""

    def __init__(self, clock: Deadline, host: str, port: int) -> None:
        self.context = system_context()
        SmtpSession.__init__(self, clock, host, port)


class SessionTurns:
    """Lets the threads that send to one server use one session in turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_taken = False
        self.waiting = 0
        self._session: SmtpSession | None = None  # for the thread whose turn is next

    def begin(self, seconds: float) -> tuple[bool, SmtpSession | None]:
        """Wait for this thread's turn; return whether it came, and the open session or None.

        If it came, call `end`.
        """
        with self._changed:
            self.waiting += 1
            has_turn = self._changed.wait_for(lambda: not self._is_taken, seconds)
            self.waiting -= 1
            if not has_turn:
                return False, None
            self._is_taken = True
            session, self._session = self._session, None
            return True, session

    def end(self, session: SmtpSession | None) -> bool:
        """End the turn; return whether a waiting thread gets the session."""
        with self._changed:
            self._is_taken = False
            self._changed.notify()
            self._session = session if self.waiting else None
            return self._session is not None


session_turns: dict[tuple[Any, ...], SessionTurns] = {}  # by the options that a session depends on
os.register_at_fork(after_in_child=session_turns.clear)


@contextmanager
def session(clock: Deadline, options: Mapping[str, Any]) -> Iterator[SmtpSession]:
    """Open a session that is encrypted and logged in as the options require, or use an open one.

    If the thread has waited for half of its time, it opens a connection of its own, so that an
    e-mail that takes long does not hold up all others. Raises SMTPException, OSError, or
    TemporaryFailure if the server lacks what the options require.
    """
    key = tuple(options[name] for name in SESSION_OPTIONS)
    turns = session_turns.setdefault(key, SessionTurns())
    has_turn, smtp = turns.begin(clock.remaining() / 2)
    is_reusable = False
    try:
        if smtp is None or not smtp.resume(clock):
            smtp = _open(clock, options)
        yield smtp
        is_reusable = clock.release() and smtp.emails < MAX_EMAILS
    finally:
        is_kept = has_turn and turns.end(smtp if is_reusable else None)
        if smtp is not None and not is_kept:
            _quit(smtp, clock)


def _open(clock: Deadline, options: Mapping[str, Any]) -> SmtpSession:
    kind, usual_port = (SmtpOverTls, 465) if options["tls"] else (SmtpSession, 587)
    smtp = kind(clock, options["host"], options["port"] or usual_port)
    try:
        smtp.ehlo_or_helo_if_needed()
        if not options["tls"]:
            _start_tls(smtp, options)
        if options["username"]:
            _log_in(smtp, options)
    except BaseException:
        _quit(smtp, clock)
        raise
    return smtp


def _quit(smtp: SmtpSession, clock: Deadline) -> None:
    # The reply to QUIT is irrelevant: the e-mail has been accepted or refused.
    with suppress(smtplib.SMTPException, OSError):
        if smtp.sock is not None:
            clock.watch(smtp.sock)
        smtp.quit()
    smtp.close()


def _start_tls(smtp: SmtpSession, options: Mapping[str, Any]) -> None:
    mode = options["starttls"]
    if mode == "never":
        return
    if smtp.has_extn("starttls"):
        smtp.starttls(context=system_context())
        smtp.ehlo()
    elif mode == "always":
        raise TemporaryFailure(
            f'{options["host"]} offers no STARTTLS, which starttls = "always" requires'
        )


def _log_in(smtp: SmtpSession, options: Mapping[str, Any]) -> None:
    host = options["host"]
    if not isinstance(smtp.sock, ssl.SSLSocket) and not is_loopback(smtp.peer):
        raise TemporaryFailure(f"{host} offers no encryption, so the password was not sent")
    if not smtp.has_extn("auth"):
        raise TemporaryFailure(f"{host} offers no login")
    smtp.login(options["username"], options["password"])


def is_loopback(host: str) -> bool:
    """Return whether this name or address is that of this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_too_large(reply: Reply) -> bool:
    """Return whether the server refused the e-mail, or this recipient, because of its size."""
    code, content = reply
    text = (content.decode("utf-8", "replace") if isinstance(content, bytes) else content).lower()
    if code in TOO_LARGE_CODES or (code >= 400 and TOO_LARGE_STATUS.match(text)):
        return True
    has_measure = any(word in text for word in MEASURES)
    return code >= 400 and has_measure and any(word in text for word in LIMITS)


def refusals(error: smtplib.SMTPException) -> list[Reply]:
    """Return the replies by which the server refused the e-mail."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return list(error.recipients.values())
    return [(error.smtp_code, error.smtp_error)]  # type: ignore[attr-defined]


def described(reply: Reply) -> str:
    """Return a reply as one line."""
    code, text = reply
    return f"{code} {wording.quoted(text, QUOTED)}"


def described_by_recipient(refused: Mapping[str, Reply]) -> str:
    """Return the refused recipients with the replies for them."""
    return "; ".join(f"{recipient} ({described(reply)})" for recipient, reply in refused.items())


def failure(error: Exception, host: str, clock: Deadline) -> DeliveryFailure:
    """Return the failure for an exception of a session."""
    if clock.passed or isinstance(error, TimeoutError):
        return TimedOut(f"{host}: no complete answer within {clock.seconds:g} s")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        text = f"{host} refused every recipient: {described_by_recipient(error.recipients)}"
        return _by_code(text, [code for code, _ in error.recipients.values()])
    if isinstance(error, smtplib.SMTPResponseException):
        reply = described((error.smtp_code, error.smtp_error))
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return TemporaryFailure(f"{host} refused the login: {reply}")
        if isinstance(error, (smtplib.SMTPSenderRefused, smtplib.SMTPDataError)):
            return _by_code(f"{host} refused the e-mail: {reply}", [error.smtp_code])
        return TemporaryFailure(f"{host} answered {reply}")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return PermanentFailure(f"{host} does not support addresses outside ASCII (SMTPUTF8)")
    if isinstance(error, ssl.SSLCertVerificationError):
        return TemporaryFailure(f"{host}: the certificate is not trusted: {error.verify_message}")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return PermanentFailure(f"{host}: the e-mail cannot be sent: {error}")
    reason = error.strerror if isinstance(error, OSError) else None
    return TemporaryFailure(f"{host}: {reason or error}")


def _by_code(text: str, codes: list[int]) -> DeliveryFailure:
    final = all(code >= 500 and code not in LOGIN_CODES for code in codes)
    return PermanentFailure(text) if final else TemporaryFailure(text)


def _address_literal(ip: str) -> str:
    """Return the address in the form that EHLO requires (RFC 5321, 4.1.3)."""
    return f"[IPv6:{ip}]" if ":" in ip else f"[{ip}]"
