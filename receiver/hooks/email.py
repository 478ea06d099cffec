"""E-mail: real SMTP, with TLS and login when set, the downloaded picture inside the message."""

from __future__ import annotations

import ipaddress
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from receiver.deadline import Deadline
from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import DeliveryFailure, PermanentFailure, TemporaryFailure, TimedOut
from receiver.hooks import letter, wording
from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked, placeholders, seconds

LONGEST_REPLY = 64 * 1024  # bytes of one answer of the server
# "Log in first", "wrong password", "too weak a login": an operator can mend each of them.
LOGIN_CODES = frozenset({530, 534, 535, 538})


class OneOrMore(fields.List[str]):
    """A list, or one string for a list of one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[str | None]:
        return super()._deserialize([value] if isinstance(value, str) else value, *args, **kwargs)


def _ascii(value: str) -> None:
    if not value.isascii():
        raise ValidationError("has characters outside ASCII, which SMTP logins do not take")


def _subject(template: str) -> None:
    placeholders(template, letter.SUBJECT_NAMES)


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
    sender = fields.String(data_key="from", required=True, validate=letter.check_address)
    to = OneOrMore(
        fields.String(validate=letter.check_address),
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
    """Sends one letter a notice, under the same Message-ID however often it is sent."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(EmailOptions(), options)
        self._sender = letter.address(self._options["sender"])
        self._recipients = [letter.address(text) for text in self._options["to"]]

    def send(self, notice: Notice) -> Done:
        message = letter.compose(
            notice,
            hook=self.name,
            sender=self._sender,
            recipients=self._recipients,
            subject=self._options["subject"],
            now=time.time(),
        )
        return Done(self._post(message))

    def alert(self, alert: Alert) -> None:
        """Tell the recipients of another hook's endpoint. Raises DeliveryFailure."""
        self._post(
            letter.alert(alert, sender=self._sender, recipients=self._recipients, now=time.time())
        )

    def _post(self, message: EmailMessage) -> str:
        """What the server said. Raises DeliveryFailure."""
        recipients = [to.addr_spec for to in self._recipients]
        with Deadline(self._options["deadline"]) as clock:
            try:
                with self._session(clock) as smtp:
                    refused = smtp.send_message(message, self._sender.addr_spec, recipients)
            except (smtplib.SMTPException, OSError, ValueError) as error:
                raise _explained(error, self._options["host"], clock) from error
        return "; ".join([smtp.said, *(f"refused: {text}" for text in _refusals(refused))])

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
        self._left = LONGEST_REPLY

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


def _line(code: int, text: bytes | str) -> str:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {wording.one_line(said)[:200]}"


def _refusals(refused: Mapping[str, tuple[int, bytes]]) -> list[str]:
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
