"""SMTP sessions with a total deadline, and the meaning of server replies for a delivery."""

from __future__ import annotations

import ipaddress
import math
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from receiver.errors import DeliveryFailure, PermanentFailure, TemporaryFailure, TimedOut
from receiver.hooks import wording
from receiver.outgoing.deadline import Deadline

MAX_REPLY = 64 * 1024  # the maximum size of a server's reply, in bytes
QUOTED = 200  # characters of a reply
# A login is missing, wrong or too weak; an operator can correct each of them.
LOGIN_CODES = frozenset({530, 534, 535, 538})
# An e-mail is too large: RFC 1870, RFC 3463 (X.2.3, X.3.4), and servers that use other codes.
TOO_LARGE_CODES = frozenset({523, 552})
TOO_LARGE_STATUS = re.compile(r"[45]\.(2\.3|3\.4)\b")
MEASURES, LIMITS = ("size", "length", "large", "big"), ("exceed", "limit", "maxim", "too ")

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
        self.data_reply = described((code, text))
        return code, text

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002
        connection = self._clock.connect(host, port)
        self._own_address, self.peer = connection.getsockname()[0], connection.getpeername()[0]
        return connection


class SmtpOverTls(smtplib.SMTP_SSL, SmtpSession):
    """The same with TLS from the first byte."""

    def __init__(self, clock: Deadline, host: str, port: int) -> None:
        self.context = ssl.create_default_context()
        SmtpSession.__init__(self, clock, host, port)


@contextmanager
def session(clock: Deadline, options: Mapping[str, Any]) -> Iterator[SmtpSession]:
    """Open a session that is encrypted and logged in as the options require.

    Raises SMTPException, OSError, or TemporaryFailure if the server lacks a required feature.
    """
    kind, usual_port = (SmtpOverTls, 465) if options["tls"] else (SmtpSession, 587)
    smtp = kind(clock, options["host"], options["port"] or usual_port)
    try:
        smtp.ehlo_or_helo_if_needed()
        if not options["tls"]:
            _start_tls(smtp, options)
        if options["username"]:
            _log_in(smtp, options)
        yield smtp
    finally:
        # The reply to QUIT is irrelevant: the e-mail has been accepted or refused.
        with suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp.close()


def _start_tls(smtp: SmtpSession, options: Mapping[str, Any]) -> None:
    mode = options["starttls"]
    if mode == "never":
        return
    if smtp.has_extn("starttls"):
        smtp.starttls(context=ssl.create_default_context())
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
