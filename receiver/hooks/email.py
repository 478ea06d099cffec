"""Sends an e-mail that shows the downloaded pictures."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Iterator, Mapping, Sequence
from email.message import EmailMessage
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.hooks import mime_message, smtp
from receiver.hooks.base import Done, Preview
from receiver.hooks.mime_message import Output, OwnTexts
from receiver.hooks.options import NOT_EMPTY, Options, checked, placeholders, seconds
from receiver.hooks.templates import (
    Context,
    Template,
    TemplateField,
    checked_template,
    is_jinja,
)
from receiver.outgoing.deadline import Deadline


class OneOrMore(fields.List[str]):
    """A list, or one string for a list of one."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> list[str | None]:
        return super()._deserialize([value] if isinstance(value, str) else value, *args, **kwargs)


def _check_ascii(value: str) -> None:
    if not value.isascii():
        raise ValidationError("has characters outside ASCII, which SMTP logins do not support")


def _check_address(text: str) -> None:
    try:
        mime_message.address(text)
    except ValueError:
        raise ValidationError(
            "is not an address; use name@example.com or Name <name@example.com>"
        ) from None


def _check_subject(template: str) -> None:
    if is_jinja(template):
        checked_template(Template(template, Context.LINE))
    else:
        placeholders(template, mime_message.SUBJECT_PLACEHOLDERS)


class EmailOptions(Options):
    """The keys of a hook of type email."""

    host = fields.String(required=True, validate=NOT_EMPTY)
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
    username = fields.String(load_default=None, validate=_check_ascii)
    password = fields.String(load_default=None, validate=_check_ascii)
    sender = fields.String(data_key="from", required=True, validate=_check_address)
    to = OneOrMore(fields.String(validate=_check_address), required=True, validate=NOT_EMPTY)
    subject = fields.String(load_default="{reference} {status}", validate=_check_subject)
    text = TemplateField(Context.TEXT)
    html = TemplateField(Context.HTML, names=("pictures",))
    deadline = seconds(60)

    @validates_schema
    def _check_login(self, options: Mapping[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        if bool(options.get("username")) != bool(options.get("password")):
            missing = "password" if options.get("username") else "username"
            raise ValidationError("is missing; a login needs both", missing)
        is_plain = options.get("starttls") == "never" and not options.get("tls")
        if options.get("password") and is_plain and not smtp.is_loopback(options.get("host", "")):
            raise ValidationError(
                'never: the password would be sent unencrypted; use "auto" or "always"', "starttls"
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
        return Done(self._send(list(self._versions(notice))))

    def preview(self, notice: Notice) -> Preview:
        """Return the e-mail with all pictures. Raises RenderFailed."""
        message = next(self._versions(notice))
        to = ", ".join(recipient.addr_spec for recipient in self._recipients)
        return Preview(
            f"SMTP to {self._options['host']}, for {to}",
            {name: str(value) for name, value in message.items()},
            "\n".join([*_structure(message), *_texts(message)]),
        )

    def _versions(self, notice: Notice) -> Iterator[EmailMessage]:
        """Yield the e-mail, and then smaller versions of it. Raises RenderFailed."""
        return mime_message.versions(
            notice,
            hook=self.name,
            sender=self._sender,
            recipients=self._recipients,
            subject=self._options["subject"],
            now=time.time(),
            own=self._own_texts(notice),
        )

    def _own_texts(self, notice: Notice) -> OwnTexts:
        """Return the parts that are rendered from templates. Raises RenderFailed."""
        subject, text = self._options["subject"], self._options["text"]
        html: Template | None = self._options["html"]

        def rendered_html(outputs: Sequence[Output]) -> str:
            assert html is not None  # noqa: S101 - this function is used only if there is a template
            pictures = [
                {"index": output.media.index, "cid": output.content_id}
                for output in outputs
                if output.preview is not None
            ]
            return html.render(notice, hook=self.name, key="html", pictures=pictures)

        template = Template(subject, Context.LINE) if is_jinja(subject) else None
        return OwnTexts(
            template.render(notice, hook=self.name, key="subject") if template else None,
            text.render(notice, hook=self.name, key="text") if text else None,
            rendered_html if html is not None else None,
        )

    def alert(self, alert: Alert) -> None:
        """Report the state of another hook's endpoint. Raises DeliveryFailure."""
        message = mime_message.alert_message(
            alert, sender=self._sender, recipients=self._recipients, now=time.time()
        )
        self._send([message])

    def _send(self, versions: list[EmailMessage]) -> str:
        """Send the largest version that the server accepts, and return the server's replies.

        A server may accept different sizes for different recipients. Raises DeliveryFailure if
        no version was accepted for any recipient.
        """
        waiting = [recipient.addr_spec for recipient in self._recipients]
        replies: list[str] = []
        notes: list[str] = []
        smaller_versions = len(versions) - 1
        with Deadline(self._options["deadline"]) as clock:
            while waiting:
                try:
                    accepted, refused = self._offer(versions, waiting, clock)
                except (smtplib.SMTPException, OSError, ValueError) as error:
                    failure = smtp.failure(error, self._options["host"], clock)
                    if not replies:
                        raise failure from error
                    notes.append(f"not sent to {', '.join(waiting)}: {failure}")
                    break
                replies += accepted
                waiting = [
                    to for to, reply in refused.items() if versions and smtp.is_too_large(reply)
                ]
                final = {to: reply for to, reply in refused.items() if to not in waiting}
                if final:
                    notes.append(f"refused: {smtp.described_by_recipient(final)}")
        if len(versions) < smaller_versions:
            notes.append("the server refuses more pictures as too large")
        return "; ".join(replies + notes)

    def _offer(
        self, versions: list[EmailMessage], recipients: Sequence[str], clock: Deadline
    ) -> tuple[list[str], Mapping[str, smtp.Reply]]:
        """Send the largest version that does not exceed the size limit announced by the server.

        Removes this version and all larger ones from `versions`. Returns the server's reply if it
        accepted the e-mail, and the refused recipients with the replies for them.
        """
        with smtp.session(clock, self._options) as session:
            while len(versions) > 1 and len(versions[0].as_bytes()) > session.max_size:
                del versions[0]
            message = versions.pop(0)
            try:
                refused = session.send_message(message, self._sender.addr_spec, recipients)
            except smtp.REFUSALS as error:
                too_large = next(filter(smtp.is_too_large, smtp.refusals(error)), None)
                if too_large is None or not versions:
                    raise
                return [], dict.fromkeys(recipients, too_large)
            return [session.data_reply], refused


def _structure(message: EmailMessage, depth: int = 0) -> Iterator[str]:
    """Yield an indented line for each part, with its type, file name and size."""
    facts = [f"{'  ' * depth}{message.get_content_type()}"]
    if not message.is_multipart():
        content = message.get_payload(decode=True)
        assert isinstance(content, bytes)  # noqa: S101 - the part is not multipart
        name = message.get_filename()
        facts += [name] if name else []
        facts += [f"{message.get_content_disposition() or 'shown'}", f"{len(content):,} bytes"]
    yield ", ".join(facts)
    for part in message.iter_parts():
        assert isinstance(part, EmailMessage)  # noqa: S101 - we built it
        yield from _structure(part, depth + 1)


def _texts(message: EmailMessage) -> Iterator[str]:
    """Yield the content of each text part, after a line with its type."""
    for part in message.walk():
        if part.get_content_maintype() == "text":
            assert isinstance(part, EmailMessage)  # noqa: S101 - we built it
            yield f"\n--- {part.get_content_type()} ---\n{part.get_content().rstrip()}"
