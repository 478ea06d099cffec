"""E-mail: real SMTP, with TLS and login when set, and previews of the pictures in the message."""

from __future__ import annotations

import ipaddress
import math
import re
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import DeliveryFailure, PermanentFailure, TemporaryFailure, TimedOut
from receiver.hooks import mime_message, wording
from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked, placeholders, seconds
from receiver.outgoing.deadline import Deadline

MAX_REPLY = 64 * 1024  # bytes of one answer of the server
# "Log in first", "wrong password", "too weak a login": an operator can mend each of them.
LOGIN_CODES = frozenset({530, 534, 535, 538})
# An e-mail is too large: RFC 1870, RFC 3463 (X.2.3, X.3.4), and servers that use other codes.
TOO_LARGE_CODES = frozenset({523, 552})
QUOTED = 200  # characters of the server's answer
TOO_LARGE_STATUS = re.compile(r"[45]\.(2\.3|3\.4)\b")
MEASURES, LIMITS = ("size", "length", "large", "big"), ("exceed", "limit", "maxim", "too ")

Answer = tuple[int, bytes | str]


class OneOrMore(fields.List[str]):
    """A list, or one string for a list of one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[str | None]:
        return super()._deserialize([value] if isinstance(value, str) else value, *args, **kwargs)


def _ascii(value: str) -> None:
    if not value.isascii():
        raise ValidationError("has characters outside ASCII, which SMTP logins do not take")


def _subject(template: str) -> None:
    placeholders(template, mime_message.SUBJECT_NAMES)


class EmailOptions(Options):
    """The keys of a hook of type email."""

    host = fields.String(required=True, validate=validate.Length(min=1, error="is empty"))
    port = fields.Integer(
        load_default=None, validate=validate.Range(1, 65535, error="use 1 to 65535")
    )
    tls = fields.Boolean(load_default=False)
    starttls = fields.String(
        load_default="auto",
        validate=validate.OneOf(
            ("auto", "always", "never"), error="use auto (when offered), always or never"
        ),
    )
    username = fields.String(load_default=None, validate=_ascii)
    password = fields.String(load_default=None, validate=_ascii)
    sender = fields.String(data_key="from", required=True, validate=mime_message.check_address)
    to = OneOrMore(
        fields.String(validate=mime_message.check_address),
        required=True,
        validate=validate.Length(min=1, error="is empty"),
    )
    subject = fields.String(load_default="{reference} {status}", validate=_subject)
    deadline = seconds(60)

    @validates_schema
    def _check_login(self, given: Mapping[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        if bool(given.get("username")) != bool(given.get("password")):
            missing = "password" if given.get("username") else "username"
            raise ValidationError("is missing; a login needs both", missing)
        open_line = given.get("starttls") == "never" and not given.get("tls")
        if given.get("password") and open_line and not is_loopback(given.get("host", "")):
            raise ValidationError(
                'never: the password would go unencrypted; use "auto" or "always"', "starttls"
            )


class Email:
    """Sends one e-mail for each notice, with the same Message-ID in every attempt.

    If the server refuses the e-mail as too large, it is sent without the original pictures, and
    then without any picture, in the same attempt.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(EmailOptions(), options)
        self._sender = mime_message.address(self._options["sender"])
        self._recipients = [mime_message.address(text) for text in self._options["to"]]

    def send(self, notice: Notice) -> Done:
        versions = mime_message.versions(
            notice,
            hook=self.name,
            sender=self._sender,
            recipients=self._recipients,
            subject=self._options["subject"],
            now=time.time(),
        )
        return Done(self._post(list(versions)))

    def alert(self, alert: Alert) -> None:
        """Tell the recipients of another hook's endpoint. Raises DeliveryFailure."""
        message = mime_message.alert_message(
            alert, sender=self._sender, recipients=self._recipients, now=time.time()
        )
        self._post([message])

    def _post(self, versions: list[EmailMessage]) -> str:
        """Send the largest version that the server accepts, and return the server's answer.

        A server may accept different sizes for different recipients. Raises DeliveryFailure if
        no version was accepted for any recipient.
        """
        waiting = [to.addr_spec for to in self._recipients]
        said: list[str] = []
        notes: list[str] = []
        smaller = versions[1:]
        with Deadline(self._options["deadline"]) as clock:
            while waiting:
                try:
                    answer, refused = self._offer(versions, waiting, clock)
                except (smtplib.SMTPException, OSError, ValueError) as error:
                    failure = _explained(error, self._options["host"], clock)
                    if not said:
                        raise failure from error
                    notes.append(f"not sent to {', '.join(waiting)}: {failure}")
                    break
                said += answer
                waiting = [to for to, text in refused.items() if versions and _too_large(text)]
                final = {to: text for to, text in refused.items() if to not in waiting}
                notes += [f"refused: {text}" for text in _refusals(final)]
        if len(versions) < len(smaller):
            notes.append("the server refuses more pictures as too large")
        return "; ".join(said + notes)

    def _offer(
        self, versions: list[EmailMessage], recipients: Sequence[str], clock: Deadline
    ) -> tuple[list[str], Mapping[str, Answer]]:
        """Send the largest version that does not exceed the size limit announced by the server.

        Removes this version and all larger ones from `versions`. Returns the server's answer if it
        accepted the e-mail, and the refused recipients with the answers for them.
        """
        with self._session(clock) as smtp:
            while len(versions) > 1 and len(versions[0].as_bytes()) > smtp.largest:
                del versions[0]
            message = versions.pop(0)
            try:
                refused = smtp.send_message(message, self._sender.addr_spec, recipients)
            except (
                smtplib.SMTPRecipientsRefused,
                smtplib.SMTPSenderRefused,
                smtplib.SMTPDataError,
            ) as error:
                too_large = next(filter(_too_large, _answers(error)), None)
                if too_large is None or not versions:
                    raise
                return [], dict.fromkeys(recipients, too_large)
            return [smtp.said], refused

    @contextmanager
    def _session(self, clock: Deadline) -> Iterator[_Smtp]:
        """A session that is encrypted and logged in as far as the options want it."""
        kind, usual_port = (_SmtpOverTls, 465) if self._options["tls"] else (_Smtp, 587)
        smtp = kind(clock, self._options["host"], self._options["port"] or usual_port)
        try:
            smtp.ehlo_or_helo_if_needed()
            self._encrypt(smtp)
            self._log_in(smtp)
            yield smtp
        finally:
            # The answer to QUIT says nothing of the letter, which has been taken or refused.
            with suppress(smtplib.SMTPException, OSError):
                smtp.quit()
            smtp.close()

    def _encrypt(self, smtp: _Smtp) -> None:
        mode = self._options["starttls"]
        if self._options["tls"] or mode == "never":
            return
        if smtp.has_extn("starttls"):
            smtp.starttls(context=ssl.create_default_context())
            smtp.ehlo()
        elif mode == "always":
            raise TemporaryFailure(
                f'{self._options["host"]} offers no STARTTLS, which starttls = "always" wants'
            )

    def _log_in(self, smtp: _Smtp) -> None:
        host = self._options["host"]
        if not self._options["username"]:
            return
        if not isinstance(smtp.sock, ssl.SSLSocket) and not is_loopback(smtp.peer):
            raise TemporaryFailure(f"{host} offers no encryption: the password was not sent")
        if not smtp.has_extn("auth"):
            raise TemporaryFailure(f"{host} offers no login")
        smtp.login(self._options["username"], self._options["password"])


class _Bounded:
    """A reader of lines that gives up after `LONGEST_REPLY` bytes."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._left = MAX_REPLY

    def readline(self, limit: int) -> bytes:
        line: bytes = self.inner.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise OSError("the server's answer does not end")
        return line

    def close(self) -> None:
        self.inner.close()


class _Smtp(smtplib.SMTP):
    """smtplib, kept to a total deadline; `said` is the answer to the letter itself."""

    def __init__(self, clock: Deadline, host: str, port: int) -> None:
        self._clock = clock
        self.said = ""
        # smtplib's own choice of a name for EHLO asks the DNS, which may take its time.
        super().__init__(host, port, local_hostname="localhost", timeout=clock.remaining())
        name = socket.gethostname()
        self.local_hostname = name if "." in name else _literal(self._near)

    @property
    def largest(self) -> float:
        """The size in bytes of the largest message that the server accepts, as it announced it."""
        announced = self.esmtp_features.get("size", "").strip()
        return int(announced) or math.inf if re.fullmatch(r"[0-9]{1,18}", announced) else math.inf

    def send(self, s: Any) -> None:
        """Send; if the server closed the connection, raise its last answer (such as 552)."""
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
        """One answer of the server; an endless one is cut off instead of kept in memory."""
        if self.file is None and self.sock is not None:
            self.file = self.sock.makefile("rb")
        self.file = _Bounded(self.file)
        try:
            return super().getreply()
        finally:
            if isinstance(self.file, _Bounded):
                self.file = self.file.inner

    def data(self, msg: Any) -> tuple[int, bytes]:
        code, text = super().data(msg)
        self.said = _line(code, text)
        return code, text

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002
        connection = self._clock.connect(host, port)
        self._near, self.peer = connection.getsockname()[0], connection.getpeername()[0]
        return connection


class _SmtpOverTls(smtplib.SMTP_SSL, _Smtp):
    """The same with TLS from the first byte."""

    def __init__(self, clock: Deadline, host: str, port: int) -> None:
        self.context = ssl.create_default_context()
        _Smtp.__init__(self, clock, host, port)


def is_loopback(host: str) -> bool:
    """Does this name or address lead to this very machine?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _literal(ip: str) -> str:
    """An address as EHLO wants it (RFC 5321, 4.1.3)."""
    return f"[IPv6:{ip}]" if ":" in ip else f"[{ip}]"


def _too_large(answer: Answer) -> bool:
    """Return whether the server refused the e-mail, or this recipient, because of its size."""
    code, text = answer
    said = (text.decode("utf-8", "replace") if isinstance(text, bytes) else text).lower()
    if code in TOO_LARGE_CODES or (code >= 400 and TOO_LARGE_STATUS.match(said)):
        return True
    has_measure = any(word in said for word in MEASURES)
    return code >= 400 and has_measure and any(word in said for word in LIMITS)


def _answers(error: smtplib.SMTPException) -> list[Answer]:
    """The answers that refused the e-mail."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return list(error.recipients.values())
    return [(error.smtp_code, error.smtp_error)]  # type: ignore[attr-defined]


def _line(code: int, text: bytes | str) -> str:
    return f"{code} {wording.quoted(text, QUOTED)}"


def _refusals(refused: Mapping[str, Answer]) -> list[str]:
    return [f"{to} ({_line(*answer)})" for to, answer in refused.items()]


def _explained(error: Exception, host: str, clock: Deadline) -> DeliveryFailure:
    if clock.passed or isinstance(error, TimeoutError):
        return TimedOut(f"{host}: no complete answer within {clock.seconds:g} s")
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        text = f"{host} refused every recipient: {'; '.join(_refusals(error.recipients))}"
        return _by_code(text, [code for code, _ in error.recipients.values()])
    if isinstance(error, smtplib.SMTPAuthenticationError):
        said = _line(error.smtp_code, error.smtp_error)
        return TemporaryFailure(f"{host} refused the login: {said}")
    if isinstance(error, (smtplib.SMTPSenderRefused, smtplib.SMTPDataError)):
        text = f"{host} refused the letter: {_line(error.smtp_code, error.smtp_error)}"
        return _by_code(text, [error.smtp_code])
    if isinstance(error, smtplib.SMTPResponseException):
        return TemporaryFailure(f"{host} answered {_line(error.smtp_code, error.smtp_error)}")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return PermanentFailure(f"{host} does not take addresses that are not ASCII (SMTPUTF8)")
    if isinstance(error, ssl.SSLCertVerificationError):
        return TemporaryFailure(f"{host}: certificate not trusted: {error.verify_message}")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return PermanentFailure(f"{host}: the letter cannot be sent: {error}")
    reason = error.strerror if isinstance(error, OSError) else None
    return TemporaryFailure(f"{host}: {reason or error}")


def _by_code(text: str, codes: list[int]) -> DeliveryFailure:
    final = all(code >= 500 and code not in LOGIN_CODES for code in codes)
    return PermanentFailure(text) if final else TemporaryFailure(text)
