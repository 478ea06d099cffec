"""Builds the e-mail of a hook: text, HTML, previews of pictures, and the original pictures."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from html import escape
from pathlib import PurePosixPath

from marshmallow import ValidationError
from PIL import Image

from receiver.deliveries import File, Notice
from receiver.endpoints import Alert
from receiver.events import Media
from receiver.hooks import content, file_storage, wording
from receiver.pictures import thumbnails
from receiver.pictures.memory import TooMuchMemory

MAX_INLINE = 3_000_000  # bytes of pictures in one letter; mail servers refuse much larger ones
MAX_READ = 50_000_000  # bytes of one file that is read for its preview
MOST_OUTPUTS = 10
PREVIEWED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")
CONTENT_TYPE = re.compile(r"(application|audio|image|video)/([A-Za-z0-9][A-Za-z0-9.+-]*)")
EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}")
SUBJECT_NAMES = ("reference", "task", "status", "provider")
SUBJECT_LIMIT = 200  # characters
POLICY = SMTP.clone(cte_type="7bit")  # no server has to know 8BITMIME
SPEC = r"[^\s@<>(),:;\\\"\[\]]+@[^\s@<>(),:;\\\"\[\]]+"
ADDRESS = re.compile(rf"(?P<bare>{SPEC})|(?P<name>[^<>]*)<(?P<spec>{SPEC})>")
COLORS = {"succeeded": "#1a7f37", "failed": "#b42318"}


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the task, as the letter shows it."""

    media: Media
    file: File | None
    name: str  # such as picture-1
    content_id: str  # of the preview
    preview: bytes | None = None  # a JPEG, shown in the e-mail
    original: bytes | None = None  # attached, unchanged

    @property
    def attachment(self) -> str:
        """The file name of the attached original."""
        url = self.file.url if self.file else ""
        extension = EXTENSION.fullmatch(PurePosixPath(url.partition("?")[0]).suffix)
        return f"{self.name}{extension[0] if extension else ''}"

    @property
    def link(self) -> str | None:
        return self.media.url if wording.is_link(self.media.url) else None


def check_address(text: str) -> None:
    """Validator: something that a letter can come from or go to."""
    try:
        address(text)
    except ValueError:
        raise ValidationError(
            "is not an address; use name@example.com or Name <name@example.com>"
        ) from None


def address(text: str) -> Address:
    """The address in `Name <name@example.com>`. Raises ValueError if there is none."""
    found = ADDRESS.fullmatch(text.strip())
    if not found or not text.isprintable():
        raise ValueError("no address")
    name = (found["name"] or "").strip().strip('"')
    user, _, domain = (found["bare"] or found["spec"]).rpartition("@")
    return Address(name, user, domain if domain.isascii() else domain.encode("idna").decode())


def versions(
    notice: Notice,
    *,
    hook: str,
    sender: Address,
    recipients: Sequence[Address],
    subject: str,
    now: float,
) -> Iterator[EmailMessage]:
    """Yield the e-mail of this hook about this notice, then smaller versions for servers that
    refuse it as too large: without the original pictures, and without any picture.

    `now`, in seconds since 1970, is the Date. All versions have the same Message-ID.
    """
    # The same for every attempt, so that a letter that was sent twice is seen once.
    identity = hashlib.sha256(f"{notice.id}\n{hook}".encode("utf-8", "replace")).hexdigest()[:32]
    whole = _outputs(notice, identity)
    previews = [replace(output, original=None) for output in whole]
    links = [replace(output, preview=None) for output in previews]
    found = [whole, previews, links]
    for number, outputs in enumerate(found):
        if outputs not in found[:number]:
            letter = _begun(sender, recipients, _subject(notice, subject), identity, now)
            _fill(letter, notice, outputs)
            yield letter


def largest_version(
    notice: Notice,
    *,
    hook: str,
    sender: Address,
    recipients: Sequence[Address],
    subject: str,
    now: float,
) -> EmailMessage:
    """The largest of the `versions`."""
    return next(
        versions(notice, hook=hook, sender=sender, recipients=recipients, subject=subject, now=now)
    )


def _fill(letter: EmailMessage, notice: Notice, outputs: Sequence[Output]) -> None:
    letter.set_content(_text(notice, outputs))
    letter.add_alternative(_html(notice, outputs), subtype="html")
    for output in outputs:
        if output.preview is not None:
            letter.get_payload()[1].add_related(  # type: ignore[index, union-attr]
                output.preview,
                "image",
                "jpeg",
                cid=f"<{output.content_id}>",
                disposition="inline",
                filename=f"{output.name}.jpg",
            )
    for output in outputs:
        if output.original is not None and output.file is not None:
            found = CONTENT_TYPE.fullmatch(output.file.content_type)
            kind, subtype = found.groups() if found else ("application", "octet-stream")
            letter.add_attachment(output.original, kind, subtype, filename=output.attachment)


def alert_message(
    message: Alert, *, sender: Address, recipients: Sequence[Address], now: float
) -> EmailMessage:
    """The letter about another hook's endpoint; `now`, in seconds since 1970, is its Date."""
    told = f"{message.id} {message.hook} {message.at}"
    identity = hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:32]
    letter = _begun(sender, recipients, _safe(message.title), identity, now)
    letter.set_content(f"{wording.one_line(message.text)}\n")
    return letter


def _begun(
    sender: Address, recipients: Sequence[Address], subject: str, identity: str, now: float
) -> EmailMessage:
    letter = EmailMessage(POLICY)
    letter["From"] = sender
    letter["To"] = recipients
    letter["Subject"] = subject
    letter["Date"] = datetime.fromtimestamp(now, UTC)
    letter["Message-ID"] = f"<{identity}@{sender.domain}>"
    letter["Auto-Submitted"] = "auto-generated"
    return letter


def _subject(notice: Notice, template: str) -> str:
    found = {
        "reference": wording.name(notice),
        "task": notice.task.id,
        "status": notice.status,
        "provider": notice.task.provider,
    }
    return _safe(template.format(**found))


def _safe(subject: str) -> str:
    text = wording.one_line(subject)[:SUBJECT_LIMIT]
    # `email` decodes what looks like an encoded word, line breaks included, and would write
    # them into the header: a reference `=?utf-8?q?=0ABcc:…?=` made a header of its own (3.11).
    return text.replace("=?", "= ?")


def _outputs(notice: Notice, identity: str) -> list[Output]:
    """Return all outputs with their previews and, within MAX_INLINE, their original pictures."""
    outputs = []
    for number, media in enumerate(notice.media[:MOST_OUTPUTS], 1):
        name, file = f"picture-{number}", notice.file_of(media)
        # Short, independent of the sender's domain: `email` folds a longer line so that mail
        # clients do not find the picture.
        output = Output(media, file, name, f"{name}.{identity[:16]}@callback-receiver")
        if file is not None and media.kind == "image":
            whole = _read(file)
            preview = _preview(whole) or file.thumbnail
            fits = 0 < len(whole) <= MAX_INLINE
            output = replace(output, preview=preview, original=whole if fits else None)
        outputs.append(output)
    left = MAX_INLINE - sum(len(output.preview or b"") for output in outputs)
    for number, output in enumerate(outputs):
        size = len(output.original or b"")
        if size > left:
            outputs[number] = replace(output, original=None)
        else:
            left -= size
    return outputs


def _read(file: File) -> bytes:
    """Return the file; empty if it is missing, too large, or its store is not installed."""
    if file.size > MAX_READ:
        return b""
    try:
        whole = file_storage.read(file.url, MAX_READ + 1)
    except (OSError, ValueError, ImportError):
        return b""
    return whole if len(whole) <= MAX_READ else b""


def _preview(whole: bytes) -> bytes | None:
    """Return a JPEG of the picture; None if Pillow cannot read it."""
    try:
        with thumbnails.opened(
            io.BytesIO(whole), PREVIEWED, content.MAX_PIXELS, thumbnails.PREVIEW_SIDE
        ) as image:
            return thumbnails.preview(image)
    except (
        *thumbnails.BROKEN,
        TooMuchMemory,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):
        return None


def _text(notice: Notice, outputs: Sequence[Output]) -> str:
    rows = [wording.title(notice), ""]
    rows += [f"{label}: {value}" for label, value in wording.facts(notice)]
    for output in outputs:
        rows += ["", *(f"{label}: {value}" for label, value in _whereabouts(output, notice.zone))]
    return "\n".join(rows) + "\n"


def _whereabouts(output: Output, zone: tzinfo) -> Iterator[tuple[str, str]]:
    kind = wording.kind(output.media)
    if output.link:
        until = output.media.expires_at
        expiry = f" (until {wording.moment(until, zone)})" if until is not None else ""
        yield kind, output.link + expiry
    if output.original is not None:
        yield "Attached", output.attachment
    if output.file:
        yield "Saved as", wording.one_line(output.file.url)


def _html(notice: Notice, outputs: Sequence[Output]) -> str:
    color = COLORS.get(notice.status, "#344054")
    rows = "".join(_row(label, escape(value)) for label, value in wording.facts(notice))
    rows += "".join(_output_rows(output, notice.zone) for output in outputs)
    thumbnails = "".join(_image(output) for output in outputs)
    # Mail clients know little CSS: tables and inline styles it is.
    return f"""<!doctype html>
<html><body style="margin:0;padding:24px 12px;background:#f2f4f7;\
font-family:-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif;color:#101828">
<table role="presentation" align="center" cellpadding="0" cellspacing="0" \
style="width:100%;max-width:560px;background:#fff;border-radius:8px;border-top:4px solid {color}">
<tr><td style="padding:24px">
<h1 style="margin:0 0 16px;font-size:20px;line-height:28px;word-break:break-word">\
{escape(wording.title(notice))}</h1>
{thumbnails}<table role="presentation" cellpadding="0" cellspacing="0" \
style="width:100%;font-size:14px;line-height:20px">
{rows}</table>
</td></tr></table>
</body></html>
"""


def _row(label: str, value: str) -> str:
    return (
        f'<tr><td style="padding:4px 16px 4px 0;color:#667085;vertical-align:top;'
        f'white-space:nowrap">{escape(label)}</td>'
        f'<td style="padding:4px 0;word-break:break-word">{value}</td></tr>\n'
    )


def _output_rows(output: Output, zone: tzinfo) -> str:
    rows = ""
    for label, value in _whereabouts(output, zone):
        shown = escape(value)
        if label not in ("Attached", "Saved as") and output.link:
            rest = escape(value.removeprefix(output.link))
            shown = f'<a href="{escape(output.link)}" style="color:#175cd3">open</a>{rest}'
        rows += _row(label, shown)
    return rows


def _image(output: Output) -> str:
    if output.preview is None:
        return ""
    return (
        f'<img src="cid:{escape(output.content_id)}" alt="The result" '
        f'style="display:block;max-width:100%;height:auto;margin:0 0 16px;border-radius:4px">\n'
    )
