"""Builds the message of an e-mail hook: text, HTML, previews and original pictures."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from html import escape
from pathlib import PurePosixPath

from receiver.deliveries import File, Notice
from receiver.endpoints import Alert
from receiver.events import Media
from receiver.hooks import content, file_storage, wording
from receiver.text.display import one_line

MAX_INLINE = 3_000_000  # bytes of pictures in one e-mail; mail servers refuse much larger ones
MAX_READ = 50_000_000  # bytes of one file that is read for its preview
MOST_OUTPUTS = 10
PREVIEWED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF")
CONTENT_TYPE = re.compile(r"(application|audio|image|video)/([A-Za-z0-9][A-Za-z0-9.+-]*)")
EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}")
SUBJECT_PLACEHOLDERS = ("reference", "task", "status", "provider")
SUBJECT_LIMIT = 200  # characters
POLICY = SMTP.clone(cte_type="7bit")  # works with servers without 8BITMIME
SPEC = r"[^\s@<>(),:;\\\"\[\]]+@[^\s@<>(),:;\\\"\[\]]+"
ADDRESS = re.compile(rf"(?P<bare>{SPEC})|(?P<name>[^<>]*)<(?P<spec>{SPEC})>")
COLORS = {"succeeded": "#1a7f37", "failed": "#b42318"}


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the task, as the e-mail shows it."""

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


@dataclass(frozen=True, slots=True)
class OwnTexts:
    """The parts of an e-mail that replace the default ones; None keeps the default."""

    subject: str | None = None
    text: str | None = None
    html: Callable[[Sequence[Output]], str] | None = None

    @property
    def has_html(self) -> bool:
        """Whether there is an HTML part with previews; if only `text` is set, there is none."""
        return self.html is not None or self.text is None


def address(text: str) -> Address:
    """Return the address in `Name <name@example.com>`. Raises ValueError if there is none."""
    match = ADDRESS.fullmatch(text.strip())
    if not match or not text.isprintable():
        raise ValueError("not an address")
    name = (match["name"] or "").strip().strip('"')
    user, _, domain = (match["bare"] or match["spec"]).rpartition("@")
    return Address(name, user, domain if domain.isascii() else domain.encode("idna").decode())


def versions(
    notice: Notice,
    *,
    hook: str,
    sender: Address,
    recipients: Sequence[Address],
    subject: str,
    now: float,
    own: OwnTexts = OwnTexts(),
) -> Iterator[EmailMessage]:
    """Yield the e-mail of this hook about this notice, then smaller versions.

    `subject` has placeholders; a subject in `own` replaces it.

    The smaller versions are for servers that refuse the e-mail as too large: one without the
    original pictures, and one without any picture. `now`, in seconds since 1970, is the Date.
    """
    # Every attempt and version has the same identity, so that a mail client shows only one of them.
    identity = _identity(f"{notice.id}\n{hook}")
    complete = _outputs(notice, identity)
    if not own.has_html:
        complete = [replace(output, preview=None) for output in complete]
    previews = [replace(output, original=None) for output in complete]
    links = [replace(output, preview=None) for output in previews]
    different = [complete]
    different += [outputs for outputs in (previews, links) if outputs != different[-1]]
    for outputs in different:
        line = _subject(notice, subject) if own.subject is None else _clean_subject(own.subject)
        message = _with_headers(sender, recipients, line, identity, now)
        _add_content(message, notice, outputs, own)
        yield message


def alert_message(
    alert: Alert, *, sender: Address, recipients: Sequence[Address], now: float
) -> EmailMessage:
    """Return the e-mail about another hook's endpoint; `now` is as in `versions`."""
    identity = _identity(f"{alert.id} {alert.hook} {alert.at}")
    message = _with_headers(sender, recipients, _clean_subject(alert.title), identity, now)
    message.set_content(f"{one_line(alert.text)}\n")
    return message


def _identity(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def _add_content(
    message: EmailMessage, notice: Notice, outputs: Sequence[Output], own: OwnTexts
) -> None:
    message.set_content(_text(notice, outputs) if own.text is None else own.text)
    if own.has_html:
        html = own.html(outputs) if own.html else _html(notice, outputs)
        message.add_alternative(html, subtype="html")
    for output in outputs:
        if output.preview is not None:
            message.get_payload()[1].add_related(  # type: ignore[index, union-attr]
                output.preview,
                "image",
                "jpeg",
                cid=f"<{output.content_id}>",
                disposition="inline",
                filename=f"{output.name}.jpg",
            )
    for output in outputs:
        if output.original is not None and output.file is not None:
            match = CONTENT_TYPE.fullmatch(output.file.content_type)
            kind, subtype = match.groups() if match else ("application", "octet-stream")
            message.add_attachment(output.original, kind, subtype, filename=output.attachment)


def _with_headers(
    sender: Address, recipients: Sequence[Address], subject: str, identity: str, now: float
) -> EmailMessage:
    message = EmailMessage(POLICY)
    message["From"] = sender
    message["To"] = recipients
    message["Subject"] = subject
    message["Date"] = datetime.fromtimestamp(now, UTC)
    message["Message-ID"] = f"<{identity}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    return message


def _subject(notice: Notice, template: str) -> str:
    values = {
        "reference": wording.name(notice),
        "task": notice.task.id,
        "status": notice.status,
        "provider": notice.task.provider,
    }
    return _clean_subject(template.format(**values))


def _clean_subject(subject: str) -> str:
    text = one_line(subject)[:SUBJECT_LIMIT]
    # Python's `email` decodes encoded words in a subject, including line breaks: in Python 3.11, a
    # reference `=?utf-8?q?=0ABcc:…?=` added a header.
    return text.replace("=?", "= ?")


def _outputs(notice: Notice, identity: str) -> list[Output]:
    """Return all outputs with their previews and, within MAX_INLINE, their original pictures."""
    outputs = []
    for number, media in enumerate(notice.media[:MOST_OUTPUTS], 1):
        name, file = f"picture-{number}", notice.file_of(media)
        # Short, whatever the sender's domain is: `email` folds a long line, and then mail clients
        # do not find the picture.
        output = Output(media, file, name, f"{name}.{identity[:16]}@callback-receiver")
        if file is not None and media.kind == "image":
            original = _read(file)
            preview = _preview(original) or file.thumbnail
            fits = 0 < len(original) <= MAX_INLINE
            output = replace(output, preview=preview, original=original if fits else None)
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
    """Return the content; empty if the file is missing, too large or not readable here."""
    if file.size > MAX_READ:
        return b""
    try:
        original = file_storage.read(file.url, MAX_READ + 1)
    except (OSError, ValueError, ImportError):
        return b""
    return original if len(original) <= MAX_READ else b""


def _preview(original: bytes) -> bytes | None:
    """Return a JPEG of the picture; None if Pillow cannot read it."""
    from receiver.pictures import thumbnails  # noqa: PLC0415 - as in `content`
    from receiver.pictures.memory import TooMuchMemory  # noqa: PLC0415

    try:
        with thumbnails.opened(
            io.BytesIO(original), PREVIEWED, content.MAX_PIXELS, thumbnails.PREVIEW_SIDE
        ) as image:
            return thumbnails.preview(image)
    except (*thumbnails.BROKEN, *thumbnails.BOMB, TooMuchMemory):
        return None


def _text(notice: Notice, outputs: Sequence[Output]) -> str:
    rows = [wording.title(notice), ""]
    rows += [f"{label}: {value}" for label, value in wording.facts(notice)]
    for output in outputs:
        rows += ["", *(f"{label}: {value}" for label, value in _locations(output, notice.zone))]
    return "\n".join(rows) + "\n"


def _locations(output: Output, zone: tzinfo) -> Iterator[tuple[str, str]]:
    """Yield a label and a text for each place where the output can be found."""
    kind = wording.kind(output.media)
    if output.link:
        until = output.media.expires_at
        expiry = f" (until {wording.moment(until, zone)})" if until is not None else ""
        yield kind, output.link + expiry
    if output.original is not None:
        yield "Attached", output.attachment
    if output.file:
        yield "Saved as", one_line(output.file.url)


def _html(notice: Notice, outputs: Sequence[Output]) -> str:
    color = COLORS.get(notice.status, "#344054")
    rows = "".join(_row(label, escape(value)) for label, value in wording.facts(notice))
    rows += "".join(_output_rows(output, notice.zone) for output in outputs)
    alts = [_alt(notice, number, len(outputs)) for number in range(1, len(outputs) + 1)]
    thumbnails = "".join(map(_image, outputs, alts))
    # Mail clients support little CSS, so this uses tables and inline styles.
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(wording.title(notice))}</title></head>
<body style="margin:0;padding:24px 12px;background:#f2f4f7;\
font-family:-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif;color:#101828">
<main><table role="presentation" align="center" cellpadding="0" cellspacing="0" \
style="width:100%;max-width:560px;background:#fff;border-radius:8px;border-top:4px solid {color}">
<tr><td style="padding:24px">
<h1 style="margin:0 0 16px;font-size:20px;line-height:28px;word-break:break-word">\
{escape(wording.title(notice))}</h1>
{thumbnails}<table role="presentation" cellpadding="0" cellspacing="0" \
style="width:100%;font-size:14px;line-height:20px">
{rows}</table>
</td></tr></table></main>
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
    for label, value in _locations(output, zone):
        shown = escape(value)
        if label not in ("Attached", "Saved as") and output.link:
            rest = escape(value.removeprefix(output.link))
            shown = f'<a href="{escape(output.link)}" style="color:#175cd3">open</a>{rest}'
        rows += _row(label, shown)
    return rows


def _alt(notice: Notice, number: int, count: int) -> str:
    """Return the alternative text of a picture, which names the task."""
    return f"{f'Result {number}' if count > 1 else 'The result'} of {wording.name(notice)}"


def _image(output: Output, alt: str) -> str:
    if output.preview is None:
        return ""
    return (
        f'<img src="cid:{escape(output.content_id)}" alt="{escape(alt)}" '
        f'style="display:block;max-width:100%;height:auto;margin:0 0 16px;border-radius:4px">\n'
    )
